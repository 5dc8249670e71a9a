"""A secret opens for its receiver alone, and nothing that leaves its process shows it."""

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
def test_the_receiver_reads_what_was_sealed(plain: bytes) -> None:
    sealer = Sealer({"a": OLD})
    assert sealer.unseal("auth", sealer.seal("auth", plain)) == plain


def test_another_service_cannot_open_it(sealer: Sealer) -> None:
    with pytest.raises(CannotUnseal):
        sealer.unseal("billing", sealer.seal("auth", b"secret"))


def test_the_same_secret_looks_different_each_time(sealer: Sealer) -> None:
    assert sealer.seal("auth", b"secret") != sealer.seal("auth", b"secret")


def test_after_a_rotation_the_new_key_seals_and_the_old_one_still_opens(sealer: Sealer) -> None:
    before = sealer.seal("auth", b"secret")
    rotated = Sealer({"b": NEW, "a": OLD})
    assert rotated.unseal("auth", before) == b"secret"
    assert rotated.seal("auth", b"secret").startswith("b.")


def test_a_key_that_is_gone_opens_nothing(sealer: Sealer) -> None:
    with pytest.raises(CannotUnseal, match="'a'"):
        Sealer({"b": NEW}).unseal("auth", sealer.seal("auth", b"secret"))


@given(st.text(max_size=80))
def test_any_text_is_refused_without_an_accident(text: str) -> None:
    for ciphertext in (text, f"a.{text}"):
        with pytest.raises(CannotUnseal):
            Sealer({"a": OLD}).unseal("auth", ciphertext)


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    sealer = Sealer({"a": OLD})
    sealed = bytearray(sealer.seal("auth", b"a secret of some length").encode())
    sealed[position % len(sealed)] ^= change
    text = sealed.decode("latin-1")
    try:
        opened = sealer.unseal("auth", text)
    except CannotUnseal:
        return
    # Base64 knows several spellings of the same bytes; other bytes than those sealed never open.
    assert opened == b"a secret of some length"


@pytest.mark.parametrize(("keys", "complaint"), [({}, "at least one"), ({"short": b"x" * 31}, "31 bytes")])
def test_a_sealer_without_proper_keys_is_not_made(keys: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sealer(keys)


def test_a_message_carries_the_ciphertext_only(sealer: Sealer) -> None:
    body = mail(sealer)
    assert PLAIN.encode() not in body
    received = SendMail.model_validate_json(body)
    assert sealer.unseal_secret("mailer", received.to) == PLAIN


def test_without_something_to_seal_with_no_secret_is_written() -> None:
    message = SendMail(template="magic-link", to=Sealed.of(PLAIN), variables=Sealed.of(PLAIN))
    for written in (message.model_dump, message.model_dump_json, lambda: message.model_dump(mode="json")):
        with pytest.raises((PydanticSerializationError, TypeError)):
            written()


def test_no_representation_shows_a_secret() -> None:
    secret = Sealed.of(PLAIN)
    message = SendMail(template="magic-link", to=secret, variables=secret)
    assert PLAIN not in f"{secret!r} {secret} {message!r} {message}"


def test_one_secret_in_two_messages_is_sealed_for_each_receiver(sealer: Sealer) -> None:
    secret = Sealed.of(PLAIN)
    message = SendMail(template="magic-link", to=secret, variables=secret)
    for receiver in ("mailer", "billing"):
        body = message.__pydantic_serializer__.to_json(message, context={"seal": sealer.sealer_for(receiver)})
        assert sealer.unseal_secret(receiver, SendMail.model_validate_json(body).to) == PLAIN


def test_the_process_that_only_holds_the_ciphertext_has_no_plain_text(sealer: Sealer) -> None:
    with pytest.raises(ValueError, match="receiving service"):
        _ = SendMail.model_validate_json(mail(sealer)).to.plain


def test_from_json_plain_text_is_taken_only_where_the_reader_says_so() -> None:
    body = b'{"template": "magic-link", "to": "a@example.com", "variables": "{}"}'
    assert SendMail.model_validate_json(body).to.ciphertext == "a@example.com"
    assert SendMail.model_validate_json(body, context={"plain": True}).to.plain == "a@example.com"


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.binary(max_size=20), max_size=5))
def test_a_fingerprint_tells_requests_apart_and_nothing_else(one: list[bytes], other: list[bytes]) -> None:
    sealer = Sealer({"a": OLD})
    assert (sealer.fingerprint(*one) == sealer.fingerprint(*other)) == (one == other)


def test_a_fingerprint_cannot_be_guessed_without_the_key() -> None:
    assert Sealer({"a": OLD}).fingerprint(b"123456") != Sealer({"a": NEW}).fingerprint(b"123456")


def test_a_keyed_hash_outlives_a_new_key_and_ends_with_its_own() -> None:
    kept = Sealer({"a": OLD}).keyed_hash("codes", b"123456", b"nonce")
    assert Sealer({"b": NEW, "a": OLD}).matches("codes", kept, b"123456", b"nonce")
    assert not Sealer({"b": NEW}).matches("codes", kept, b"123456", b"nonce")
    assert not Sealer({"a": NEW}).matches("codes", kept, b"123456", b"nonce")


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_a_keyed_hash_matches_its_own_parts_alone(one: list[bytes], other: list[bytes]) -> None:
    sealer = Sealer({"a": OLD})
    assert sealer.matches("codes", sealer.keyed_hash("codes", *one), *other) == (one == other)
    assert not sealer.matches("other", sealer.keyed_hash("codes", *one), *one)
    assert not sealer.matches("codes", "", *one)


def test_what_an_older_key_has_sealed_can_be_told(sealer: Sealer) -> None:
    sealed = sealer.seal("auth", b"secret")
    assert sealer.is_current(sealed)
    newer = Sealer({"b": NEW, "a": OLD})
    assert not newer.is_current(sealed)
    assert newer.is_current(newer.seal("auth", newer.unseal("auth", sealed)))
