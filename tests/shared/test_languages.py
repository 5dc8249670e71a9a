import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.messages.languages import TAG_PATTERN, best_locale, language_tag
from shared.messages.types import Locale, PreferredLocale

READABLE = [
    # BCP 47 (RFC 5646 section 2.1), in any case.
    ("de", "de"),
    ("DE_at", "DE-at"),
    ("zh-Hant-TW", "zh-Hant-TW"),
    ("es-419", "es-419"),
    ("sl-rozaj-biske-1994", "sl-rozaj-biske-1994"),
    ("zh-cmn-Hans-CN", "zh-cmn-Hans-CN"),
    ("zh-cmn-Hans-CN-pinyin", "zh-cmn-Hans-CN"),
    (" de-CH\t", "de-CH"),
    # Extensions (RFC 5646 section 2.2.6, RFC 6067, RFC 6497) and private use (section 2.2.7).
    ("de-AT-u-mu-celsius", "de-AT"),
    ("en-US-u-va-posix", "en-US"),
    ("de-Latn-DE-1996-u-co-phonebk-t-en-m0-din-x-team", "de-Latn-DE-1996"),
    ("en-x-team", "en"),
    # Grandfathered tags (RFC 5646 section 2.2.8).
    ("i-klingon", "tlh"),
    ("I-LUX", "lb"),
    ("en-GB-oed", "en-GB-oed"),
    ("zh-min-nan", "zh-min-nan"),
    ("sgn-BE-FR", "sgn-BE-FR"),
    # POSIX (IEEE Std 1003.1 section 8.2).
    ("de_AT", "de-AT"),
    ("zh_Hans_CN", "zh-Hans-CN"),
    ("de_DE.UTF-8@euro", "de-DE"),
    ("de_DE.ISO8859-15", "de-DE"),
    ("ca_ES@valencia", "ca-ES"),
    ("en_US_POSIX", "en-US-POSIX"),
    # Java's Locale.toString().
    ("zh_TW_#Hant", "zh-Hant-TW"),
    ("zh__#Hans", "zh-Hans"),
    ("th_TH_TH_#u-nu-thai", "th-TH-TH"),
    ("de__POSIX", "de-POSIX"),
    ("de_", "de"),
]
UNREADABLE = [
    *("", " ", "*", "*-CH", "-", "_", "-de", "C", "C.UTF-8", "POSIX", "und", "und-DE", "x-team", "i-default"),
    *("German", "null", "undefined", "d", "12", "\u00e4\u00f6", "de\0", "de DE", "de;q=1", "de-muchtoolong"),
    *("<script>", "../de", "de-" * 1000, "de-u-" + "ca-" * 1000, "a" * 100_000),
]


@pytest.mark.parametrize(("text", "tag"), READABLE)
def test_languages_are_read_in_every_common_form(text: str, tag: str) -> None:
    assert language_tag(text) == tag


@pytest.mark.parametrize("text", UNREADABLE)
def test_other_texts_name_no_language(text: str) -> None:
    assert language_tag(text) is None


@given(st.text(max_size=60) | st.lists(st.sampled_from([*"aZ09-_#@.*ux "]), max_size=60).map("".join))
def test_a_tag_in_normal_form_is_read_as_itself(text: str) -> None:
    tag = language_tag(text)
    if tag is not None:
        assert re.match(TAG_PATTERN, tag)
        assert language_tag(tag) == tag


@pytest.mark.parametrize(
    ("value", "preferred"), [*READABLE[:3], ("de_AT", "de-AT"), ("German", None), ("x" * 60_000, None), (None, None)]
)
def test_an_unreadable_preference_counts_as_null(value: str | None, preferred: str | None) -> None:
    assert TypeAdapter(PreferredLocale).validate_python(value, strict=True) == preferred


@pytest.mark.parametrize("value", ["German", "", "C", 5, None])
def test_an_unreadable_locale_of_an_operator_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Locale).validate_python(value, strict=True)
    assert TypeAdapter(Locale).validate_python("de_AT", strict=True) == "de-AT"


@pytest.mark.parametrize(
    ("preferred", "locale"),
    [
        (["zh-Hant-TW"], "zh-hant"),
        (["DE_at"], "de"),
        (["de-x-private"], "de"),
        (["pt", "fr"], "fr"),
        ([None, ""], "en"),
        (["x"], "en"),
    ],
)
def test_the_best_available_locale_is_chosen(preferred: list[str | None], locale: str) -> None:
    assert best_locale(preferred, {"en", "de", "fr", "zh-hant"}) == locale
