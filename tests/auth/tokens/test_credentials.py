import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.tokens.credentials import Code, RefreshTokenString, hash_key, key_matches, new_key
from shared.messages.auth.errors import MalformedCode, MalformedRefreshToken

PART = st.text(min_size=1).filter(lambda text: "." not in text)


@given(PART, PART)
def test_formatted_credentials_parse_to_themselves(id_: str, key: str) -> None:
    assert Code.parse(str(Code(id_, key))) == Code(id_, key)
    assert RefreshTokenString.parse(str(RefreshTokenString(id_, key))) == RefreshTokenString(id_, key)


@given(st.text())
def test_any_text_is_a_code_or_malformed(text: str) -> None:
    parts = text.split(".")
    if len(parts) == 2 and all(parts):
        assert Code.parse(text) == Code(*parts)
    else:
        with pytest.raises(MalformedCode):
            Code.parse(text)


@given(st.text(string.hexdigits + "."))
def test_any_text_is_a_refresh_token_or_malformed(text: str) -> None:
    parts = text.split(".")
    if len(parts) == 3 and all(parts) and parts[0] == "01":
        assert RefreshTokenString.parse(text) == RefreshTokenString(*parts[1:])
    else:
        with pytest.raises(MalformedRefreshToken):
            RefreshTokenString.parse(text)


def test_new_key_has_256_bits_in_hex() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)


@given(st.text(), st.text())
def test_only_the_key_itself_matches_its_hash(key: str, other: str) -> None:
    assert key_matches(key, hash_key(key))
    assert key_matches(other, hash_key(key)) == (other == key)
