import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticSerializationError

from shared.messages import Sealed
from shared.messages.mailer.mails import SendMail
from shared.sealing import CannotUnseal, Sealer

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLAIN = "correct horse battery staple"


@pytest.fixture
def sealer() -> Sealer:
    return Sealer({"a": OLD})


def mail(sealer: Sealer) -> bytes:
    message = SendMail(template="magic-link", to=Sealed.of(PLAIN), variables=Sealed.of(PLAIN))
    return message.__pydantic_serializer__.to_json(message, context={"seal": sealer.sealer_for("mailer")})


@given(st.binary(max_size=2000))
def test_the_receiver_unseals_what_was_sealed(plain: bytes) -> None:
    sealer = Sealer({"a": OLD})
    assert sealer.unseal("auth", sealer.seal("auth", plain)) == plain


def test_another_receiver_cannot_unseal_it(sealer: Sealer) -> None:
    with pytest.raises(CannotUnseal):
        sealer.unseal("billing", sealer.seal("auth", b"secret"))


def test_the_same_secret_has_a_different_ciphertext_each_time(sealer: Sealer) -> None:
    assert sealer.seal("auth", b"secret") != sealer.seal("auth", b"secret")


def test_after_a_key_rotation_the_new_key_seals_and_the_old_one_unseals(sealer: Sealer) -> None:
    before = sealer.seal("auth", b"secret")
    rotated = Sealer({"b": NEW, "a": OLD})
    assert rotated.unseal("auth", before) == b"secret"
    assert rotated.seal("auth", b"secret").startswith("b.")


def test_a_ciphertext_of_a_lost_key_cannot_be_unsealed(sealer: Sealer) -> None:
    with pytest.raises(CannotUnseal, match="'a'"):
        Sealer({"b": NEW}).unseal("auth", sealer.seal("auth", b"secret"))


@given(st.text(max_size=80))
def test_any_text_raises_cannot_unseal(text: str) -> None:
    for ciphertext in (text, f"a.{text}"):
        with pytest.raises(CannotUnseal):
            Sealer({"a": OLD}).unseal("auth", ciphertext)


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_detected(position: int, change: int) -> None:
    sealer = Sealer({"a": OLD})
    sealed = bytearray(sealer.seal("auth", b"a secret of some length").encode())
    sealed[position % len(sealed)] ^= change
    text = sealed.decode("latin-1")
    try:
        plain = sealer.unseal("auth", text)
    except CannotUnseal:
        return
    # Some changes of base64 characters decode to the same bytes; other bytes are never unsealed.
    assert plain == b"a secret of some length"


@pytest.mark.parametrize(("keys", "error"), [({}, "at least one"), ({"short": b"x" * 31}, "31 bytes")])
def test_missing_and_short_keys_are_rejected(keys: dict[str, bytes], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Sealer(keys)


def test_a_message_contains_only_the_ciphertext(sealer: Sealer) -> None:
    body = mail(sealer)
    assert PLAIN.encode() not in body
    received = SendMail.model_validate_json(body)
    assert sealer.unseal_secret("mailer", received.to) == PLAIN


def test_without_a_sealer_no_secret_is_serialized() -> None:
    message = SendMail(template="magic-link", to=Sealed.of(PLAIN), variables=Sealed.of(PLAIN))
    for serialize in (message.model_dump, message.model_dump_json, lambda: message.model_dump(mode="json")):
        with pytest.raises((PydanticSerializationError, TypeError)):
            serialize()


def test_no_representation_contains_a_secret() -> None:
    secret = Sealed.of(PLAIN)
    message = SendMail(template="magic-link", to=secret, variables=secret)
    assert PLAIN not in f"{secret!r} {secret} {message!r} {message}"


def test_one_secret_in_two_messages_is_sealed_for_each_receiver(sealer: Sealer) -> None:
    secret = Sealed.of(PLAIN)
    message = SendMail(template="magic-link", to=secret, variables=secret)
    for receiver in ("mailer", "billing"):
        body = message.__pydantic_serializer__.to_json(message, context={"seal": sealer.sealer_for(receiver)})
        assert sealer.unseal_secret(receiver, SendMail.model_validate_json(body).to) == PLAIN


def test_a_received_secret_has_no_plain_text(sealer: Sealer) -> None:
    with pytest.raises(ValueError, match="receiving service"):
        _ = SendMail.model_validate_json(mail(sealer)).to.plain


def test_plain_text_is_parsed_only_in_a_plain_context() -> None:
    body = b'{"template": "magic-link", "to": "a@example.com", "variables": "{}"}'
    assert SendMail.model_validate_json(body).to.ciphertext == "a@example.com"
    assert SendMail.model_validate_json(body, context={"plain": True}).to.plain == "a@example.com"


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.binary(max_size=20), max_size=5))
def test_fingerprints_are_equal_only_for_equal_parts(one: list[bytes], other: list[bytes]) -> None:
    sealer = Sealer({"a": OLD})
    assert (sealer.fingerprint(*one) == sealer.fingerprint(*other)) == (one == other)


def test_a_fingerprint_depends_on_the_key() -> None:
    assert Sealer({"a": OLD}).fingerprint(b"123456") != Sealer({"a": NEW}).fingerprint(b"123456")


def test_a_keyed_hash_matches_as_long_as_its_key_is_held() -> None:
    stored = Sealer({"a": OLD}).keyed_hash("codes", b"123456", b"nonce")
    assert Sealer({"b": NEW, "a": OLD}).matches("codes", stored, b"123456", b"nonce")
    assert not Sealer({"b": NEW}).matches("codes", stored, b"123456", b"nonce")
    assert not Sealer({"a": NEW}).matches("codes", stored, b"123456", b"nonce")


def test_hash_keys_are_those_of_a_purpose_with_the_active_one_first() -> None:
    keys = Sealer({"b": NEW, "a": OLD}).hash_keys("tokens")
    assert list(keys) == ["b", "a"]
    assert keys["a"] == Sealer({"a": OLD}).hash_keys("tokens")["a"]
    assert keys["a"] != Sealer({"a": OLD}).hash_keys("codes")["a"]
    assert {len(key) for key in keys.values()} == {32}


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_a_keyed_hash_matches_only_its_own_purpose_and_parts(one: list[bytes], other: list[bytes]) -> None:
    sealer = Sealer({"a": OLD})
    assert sealer.matches("codes", sealer.keyed_hash("codes", *one), *other) == (one == other)
    assert not sealer.matches("other", sealer.keyed_hash("codes", *one), *one)
    assert not sealer.matches("codes", "", *one)


def test_a_ciphertext_of_an_older_key_is_not_current(sealer: Sealer) -> None:
    sealed = sealer.seal("auth", b"secret")
    assert sealer.is_current(sealed)
    rotated = Sealer({"b": NEW, "a": OLD})
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal("auth", rotated.unseal("auth", sealed)))
