import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from services.auth.phone.models import (
    PhoneCode,
    TextPolicy,
    new_code,
    new_nonce,
)
from shared.messages.auth.errors import PhoneNumberNotAllowed
from shared.phone_numbers import PhoneNumber

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)


def phone_code() -> PhoneCode:
    return PhoneCode(
        id="phonecode_1",
        nonce_hash="n",
        code_hash="c",
        phone_number="+41791234567",
        created_at=NOW,
        expires_at=NOW + LIFETIME,
    )


def test_codes_have_six_evenly_distributed_digits() -> None:
    codes = [new_code() for _ in range(5_000)]
    assert all(re.fullmatch(r"[0-9]{6}", code) for code in codes)
    for position in range(6):
        counts = Counter(code[position] for code in codes)
        # 500 of each are expected, with a standard deviation of 21.
        assert len(counts) == 10
        assert all(350 < count < 650 for count in counts.values())


def test_nonces_have_32_hex_characters_and_never_repeat() -> None:
    nonces = {new_nonce() for _ in range(1_000)}
    assert len(nonces) == 1_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", nonce) for nonce in nonces)


def test_code_is_open_until_it_expires() -> None:
    code = phone_code()
    assert code.is_open(max_wrong=5, at=NOW)
    assert code.is_open(max_wrong=5, at=NOW + LIFETIME - timedelta(milliseconds=1))
    assert not code.is_open(max_wrong=5, at=NOW + LIFETIME)


def test_used_code_is_not_open() -> None:
    assert not phone_code().use(at=NOW).is_open(max_wrong=5, at=NOW)


def test_5_wrong_codes_void_the_code() -> None:
    code = phone_code()
    for _ in range(4):
        code = code.count_wrong()
    assert code.is_open(max_wrong=5, at=NOW)
    assert not code.count_wrong().is_open(max_wrong=5, at=NOW)


def test_only_numbers_of_allowed_countries_are_texted() -> None:
    swiss, german = PhoneNumber.parse("+41791234567"), PhoneNumber.parse("+4915112345678")
    TextPolicy({"CH"}).must_allow(swiss)
    with pytest.raises(PhoneNumberNotAllowed) as refused:
        TextPolicy({"CH"}).must_allow(german)
    assert refused.value.meta == {"country": "DE"}
    with pytest.raises(PhoneNumberNotAllowed):
        TextPolicy(frozenset()).must_allow(swiss)
    TextPolicy(None).must_allow(german)


@pytest.mark.parametrize("text", ["+41900123456", "+49 900 1123456", "+1 900 234 5678"])
def test_premium_rate_numbers_are_never_texted(text: str) -> None:
    with pytest.raises(PhoneNumberNotAllowed):
        TextPolicy(None).must_allow(PhoneNumber.parse(text))
