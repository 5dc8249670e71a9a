import os
import re
import time

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


def test_ids_of_one_generator_are_unique_and_ascending() -> None:
    ids = Ids()
    generated = [ids.new("user") for _ in range(10_000)]
    assert len(set(generated)) == len(generated)
    assert generated == sorted(generated)


def test_two_generators_never_generate_the_same_id() -> None:
    one, other = Ids(), Ids()
    assert {one.new("user") for _ in range(1000)}.isdisjoint(other.new("user") for _ in range(1000))


def test_the_prefix_is_the_resource_and_outside_production_the_environment() -> None:
    assert re.fullmatch(r"user_[0-9A-Za-z]{29}", Ids().new("user"))
    assert re.fullmatch(r"dev_user_[0-9A-Za-z]{29}", Ids("dev").new("user"))


def test_an_id_contains_its_second_and_scheme() -> None:
    before = int(time.time())
    raw = decode(Ids().new("user").removeprefix("user_"))
    assert before <= int.from_bytes(raw[:8], "big") <= time.time()
    assert raw[8:9] == b"R"


def test_a_clock_set_back_generates_no_earlier_id(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids()
    first = ids.new("user")
    monkeypatch.setattr(time, "time", time.monotonic)  # decades ago
    assert ids.new("user") > first


def test_used_up_sequence_numbers_renew_the_instance_part() -> None:
    ids = Ids()
    first = decode(ids.new("user").removeprefix("user_"))
    ids._sequence = iter([1 << 32])  # type: ignore[assignment]
    second = decode(ids.new("user").removeprefix("user_"))
    assert first[9:17] != second[9:17]


def test_a_forked_child_renews_the_instance_part() -> None:
    ids = Ids()
    ids.new("user")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # must end at once, because it is a copy of the whole test run
        os.write(writing, ids.new("user").encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = pipe.read()
    assert decode(of_child.removeprefix("user_"))[9:17] != decode(ids.new("user").removeprefix("user_"))[9:17]


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
