import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages.auth.errors import InvalidPhoneNumber
from shared.phone_numbers import COUNTRIES, PhoneNumber, number_spellings


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
        "(+41) 79 123 45 67",
        "+41/79/1234567",
        "[+41] 79~123.45.67",
        "0041 79 123 45 67",
        "00 41 (0)79 123 45 67",
        # Spaces: no-break, figure, narrow no-break, ideographic, tab and line feed.
        "+41\u00a079\u2007123\u202f45\u300067\t\n",
        # Dashes: hyphen, non-breaking hyphen, figure dash, en dash, em dash, minus, full-width hyphen, wave dash.
        "+41\u201079\u20111\u20122\u20133\u20144\u22125\uff0d6\u301c7",
        # Bidirectional marks, as in a number copied from an address book, and other format characters.
        "\u202a+41 79 123 45 67\u202c",
        "\u2066\u200e+41\u206979\u200f123\u200b45\u2060\u00ad67\ufeff",
        # Full-width characters, and digits of other scripts.
        "\uff0b\uff14\uff11\uff08\uff10\uff09\uff17\uff19 \uff11\uff12\uff13\uff0f\uff14\uff15\uff0e\uff16\uff17",
        "\u0664\u0661\u0667\u0669\u0661\u0662\u0663\u0664\u0665\u0666\u0667",
        "\u096a\u0967\u096d\u096f\u0967\u0968\u0969\u096a\u096b\u096c\u096d",
    ],
)
def test_all_notations_of_a_number_parse_to_it(text: str) -> None:
    assert PhoneNumber.parse(text) == PhoneNumber("+41791234567", "CH", expensive=False)


@pytest.mark.parametrize(
    ("text", "e164"),
    [
        # Mexico's numbering plan of 2019 has no 1 for mobile phones and no 01, 02, 044 and 045.
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+52 55 1234 5678", "+525512345678"),
        ("0052 (1) 55-1234-5678", "+525512345678"),
        ("+52 044 55 1234 5678", "+525512345678"),
        ("+52 045 55 1234 5678", "+525512345678"),
        ("+52 01 55 1234 5678", "+525512345678"),
        # In Argentina 9 distinguishes a mobile phone; within the country it is dialled as 15.
        ("+54 9 11 2345 6789", "+5491123456789"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        ("+54 11 2345 6789", "+541123456789"),
        # "(0)" is part of an Italian number, but not of a Spanish or North American one.
        ("+39 (0)6 1234 5678", "+390612345678"),
        ("+34 (0)612 34 56 78", "+34612345678"),
        ("+1 (0) 212 555 1212", "+12125551212"),
        ("+44 (0)20 7946 0958", "+442079460958"),
    ],
)
def test_national_prefixes_are_dropped_as_each_country_has_them(text: str, e164: str) -> None:
    assert PhoneNumber.parse(text).e164 == e164


@pytest.mark.parametrize(
    ("stored", "spellings"),
    [
        ("+525512345678", ("+525512345678", "+5215512345678")),
        ("+5215512345678", ("+525512345678", "+5215512345678")),
        ("+5491123456789", ("+5491123456789",)),
        ("+541123456789", ("+541123456789",)),
        ("+41791234567", ("+41791234567",)),
    ],
)
def test_only_mexican_numbers_have_a_former_spelling(stored: str, spellings: tuple[str, ...]) -> None:
    assert number_spellings(stored) == spellings


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
        "+41\u00b279\u00b91234567",
        "+41 79 123 45 67 # 5",
        "4\u202a" * 300,
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
