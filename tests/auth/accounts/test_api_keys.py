from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.auth.accounts.api_keys import ALPHABET, api_key, id_of
from shared.messages.auth.errors import MalformedApiKey

KNOWN = [
    ("17ac43a8-f3b9-40be-a3b4-9eaca99b529a", "2YP47A5-YEWM1FG-MET9XB1-N6DN56N"),
    ("9b3ac4c9-0228-4e42-a244-927059b1a5ea", "KCXC9JD-08M4WGH-M9294W1-B6RTBTH"),
    ("0b9ca335-92a8-46d8-b477-eb2ed83ac927", "1EEA6DC-JAM4DP2-PHVYPBN-V0XCJ9X"),
]
"""The second and third are examples in the documentation of the npm package uuid-apikey."""


@pytest.mark.parametrize(("id_", "key"), KNOWN)
def test_keys_equal_those_of_old_clients(id_: str, key: str) -> None:
    assert api_key(UUID(id_)) == key
    assert id_of(key) == UUID(id_)


@given(st.uuids())
@example(UUID(int=0))
@example(UUID(int=2**128 - 1))
def test_key_parses_to_its_id(id_: UUID) -> None:
    assert id_of(api_key(id_)) == id_


@given(st.lists(st.text(ALPHABET, min_size=7, max_size=7), min_size=4, max_size=4).map("-".join))
def test_text_that_parses_is_the_key_of_its_id(text: str) -> None:
    try:
        id_ = id_of(text)
    except MalformedApiKey:
        return
    assert api_key(id_) == text


@given(st.text())
@example("")
@example("2YP47A5-YEWM1FG-MET9XB1-N6DN56")
@example("2YP47A5-YEWM1FG-MET9XB1-N6DN56NN")
@example("2YP47A5YEWM1FGMET9XB1N6DN56N")
@example("2YP47A5-YEWM1FG-MET9XB1-N6DN56U")
@example("2YP47A5-YEWM1FG-MET9XB1-N6DN56N\n")
@example("2YP47A5_YEWM1FG_MET9XB1_N6DN56N")
@example("\u017fYP47A5-YEWM1FG-MET9XB1-N6DN56N")
@example("2" * 1_000_000)
def test_malformed_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedApiKey):
        id_of(text)


@given(st.uuids(), st.integers(0, 30), st.sampled_from(ALPHABET))
def test_wrong_character_is_refused_or_gives_another_id(id_: UUID, position: int, character: str) -> None:
    key = api_key(id_)
    if key[position] in ("-", character):
        return
    wrong = key[:position] + character + key[position + 1 :]
    with suppress(MalformedApiKey):
        assert id_of(wrong) != id_


def test_lower_case_and_lookalike_letters_are_accepted() -> None:
    id_, key = KNOWN[0]
    assert id_of(key.lower()) == UUID(id_)
    assert id_of(key.replace("1", "I")) == id_of(key.replace("1", "l")) == UUID(id_)
    assert id_of(KNOWN[1][1].replace("0", "O")) == UUID(KNOWN[1][0])
