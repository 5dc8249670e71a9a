import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.phone.models import COUNTRIES, PhoneCode, PhoneNumber, TextPolicy, new_code, new_nonce
from shared.messages.auth.errors import InvalidPhoneNumber, PhoneNumberNotAllowed

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


@pytest.mark.parametrize(
    "text",
    [
        "+41791234567",
        "41791234567",
        "+41 79 123 45 67",
        "41 79 123 45 67",
        " +41 (79) 123-45.67 ",
        "+41\u00a079\u00a0123\u00a045\u00a067",
        "+41 (0)79 123 45 67",
    ],
)
def test_all_notations_of_a_number_parse_to_it(text: str) -> None:
    assert PhoneNumber.parse(text) == PhoneNumber("+41791234567", "CH", expensive=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "0791234567",
        "+4179123456",
        "+417912345678901",
        "++41791234567",
        "+41791234567 ext. 5",
        "tel:+41791234567",
        "+1800FLOWERS",
        "+999 123 456 789",
        "+1 555 555 5555",
        "٤١٧٩١٢٣٤٥٦٧",
        "+41791234567\n",
        "+41791234567\x00",
        "+41 79 123 45 67, +41 79 123 45 68",
        "4" * 10_000,
    ],
)
def test_invalid_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidPhoneNumber):
        PhoneNumber.parse(text)


@given(st.sampled_from(sorted(COUNTRIES)), st.booleans(), st.sampled_from(["E164", "INTERNATIONAL"]))
def test_example_number_of_every_country_parses(country: str, plus: bool, form: str) -> None:  # noqa: FBT001
    example = phonenumbers.example_number_for_type(country, phonenumbers.PhoneNumberType.MOBILE)
    if example is None:
        return
    text = phonenumbers.format_number(example, getattr(phonenumbers.PhoneNumberFormat, form))
    number = PhoneNumber.parse(text if plus else text.removeprefix("+"))
    assert number.e164 == phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    assert number.country == phonenumbers.region_code_for_number(example)


@given(st.text())
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        number = PhoneNumber.parse(text)
    except InvalidPhoneNumber:
        return
    assert PhoneNumber.parse(number.e164) == number


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
