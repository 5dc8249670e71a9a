import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import ALPHABET, LENGTH, Ids, decode, derived_message_id, encode, new_message_id

raw_ids = st.binary(min_size=21, max_size=21)


@given(raw_ids)
def test_encoding_and_decoding_are_inverse(raw: bytes) -> None:
    assert decode(encode(raw)) == raw


@given(raw_ids, raw_ids)
def test_encoded_ids_sort_as_their_bytes_do(one: bytes, other: bytes) -> None:
    assert (encode(one) < encode(other)) == (one < other)


@given(st.binary(max_size=40).filter(lambda raw: len(raw) != 21))
def test_other_lengths_than_21_bytes_are_rejected(raw: bytes) -> None:
    with pytest.raises(ValueError, match="21 bytes"):
        encode(raw)


@given(st.text(max_size=40))
def test_any_text_decodes_to_21_bytes_or_is_rejected(text: str) -> None:
    try:
        raw = decode(text)
    except ValueError:
        return
    assert len(raw) == 21
    assert encode(raw) == text


def test_29_characters_beyond_21_bytes_are_rejected() -> None:
    with pytest.raises(ValueError, match="21 bytes"):
        decode(ALPHABET[-1] * LENGTH)


def derived(message: str = "m", time: int = 1_700_000_000_999, number: int = 1, *, ids: Ids = Ids()) -> str:  # noqa: B008
    return ids.derived("user", message, time, number)


def test_ids_of_a_message_are_the_same_at_each_delivery_and_differ_from_all_others() -> None:
    assert derived() == derived()
    others = {
        *(derived(str(each)) for each in range(1000)),
        # An idempotency key that is used again after weeks determines the same message ID.
        *(derived(time=each) for each in range(1000)),
        *(derived(number=each) for each in range(1000)),
    }
    assert len(others) == 3000


def test_ids_sort_by_the_time_of_their_message_and_their_number() -> None:
    ids = [derived(str(time), time=time, number=number) for time in range(0, 3_000, 7) for number in (1, 2, 300)]
    assert ids == sorted(ids)


def test_the_prefix_is_the_resource_and_outside_production_the_environment() -> None:
    assert re.fullmatch(r"user_[0-9A-Za-z]{29}", derived())
    assert re.fullmatch(r"dev_user_[0-9A-Za-z]{29}", derived(ids=Ids("dev")))


def test_an_id_contains_its_second_scheme_and_number() -> None:
    raw = decode(derived(number=7).removeprefix("user_"))
    assert int.from_bytes(raw[:8], "big") == 1_700_000_000
    assert raw[8:9] == b"M"
    assert int.from_bytes(raw[17:], "big") == 7


def test_message_ids_are_128_random_bits_in_hex() -> None:
    generated = {new_message_id() for _ in range(1000)}
    assert len(generated) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in generated)


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_derived_message_id_depends_only_on_its_parts(parts: list[str], others: list[str]) -> None:
    derived = derived_message_id(*parts)
    assert re.fullmatch(r"[0-9a-f]{32}", derived)
    assert (derived == derived_message_id(*others)) == (parts == others)


def test_the_boundary_of_parts_matters() -> None:
    assert derived_message_id("ab", "c") != derived_message_id("a", "bc")
