import string
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import email_addresses
from shared.email_addresses import normal_email
from shared.messages.auth.errors import InvalidEmail
from shared.messages.types import trimmed_address


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ana@example.com", "ana@example.com"),
        ("Ana.Lopez+Beak@EXAMPLE.com", "ana.lopez+beak@example.com"),
        ("ana@bücher.example", "ana@xn--bcher-kva.example"),
        ("ana@XN--bcher-kva.example", "ana@xn--bcher-kva.example"),
        ("o'neil@example.com", "o'neil@example.com"),
        ("ana@nest.test", "ana@nest.test"),
        # White space around it, and line breaks in it: HTML, value sanitization of <input type=email>.
        (" ana@example.com", "ana@example.com"),
        ("ana@example.com ", "ana@example.com"),
        ("\t ana@example.com\r\n", "ana@example.com"),
        ("ana@exam\nple.com", "ana@example.com"),
        ("\u00a0ana@example.com\u3000", "ana@example.com"),
        (" ana@b\u00fccher.example\n", "ana@xn--bcher-kva.example"),
        # Invisible characters around an address that was copied from a page or an address book.
        ("\ufeffana@example.com", "ana@example.com"),
        ("\u200bana@example.com\u200b ", "ana@example.com"),
        ("\u202aana@example.com\u202c", "ana@example.com"),
        ("\u2068ana@example.com\u2069\u200e", "ana@example.com"),
    ],
)
def test_address_has_one_normal_form(text: str, normal: str) -> None:
    assert normal_email(text, test_domains=True) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ana",
        "@example.com",
        "ana@",
        "ana@localhost",
        "ana@nest.local",
        "ana@nest.invalid",
        "ana@[127.0.0.1]",
        "ana@example..com",
        "ana@-example.com",
        '"ana lopez"@example.com',
        "Ana <ana@example.com>",
        " ",
        "ana @example.com",
        "ana@ example.com",
        # A dot-atom has no dot at its ends and no two together (RFC 5321 section 4.1.2).
        "taro.@docomo.ne.jp",
        "ta..ro@docomo.ne.jp",
        ".taro@docomo.ne.jp",
        "taro...@ezweb.ne.jp",
        "ana@example.com.",
        "ana@example.com\r\nBcc: bo@example.com",
        "ana\x00@example.com",
        "ana\u200b@example.com",
        "ana@exam\u200bple.com",
        "strauß@example.com",
        "ana@example.com,bo@example.com",
        "a" * 65 + "@example.com",
        "ana@" + "a" * 300 + ".com",
        "ana@" + "\u00fc" * 300 + ".example",
        "a" * 60_000 + "@example.com",
    ],
)
def test_text_that_is_no_mail_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidEmail):
        normal_email(text, test_domains=True)


def test_address_in_a_test_domain_is_refused_in_production() -> None:
    with pytest.raises(InvalidEmail):
        normal_email("ana@nest.test", test_domains=False)


LOCAL_PARTS = st.from_regex(r"[a-zA-Z0-9_.+!'-]{1,70}", fullmatch=True)
DOMAINS = st.sampled_from(
    ["example.com", "BÜCHER.example", "nest.test", "-a.com", "", "a@b.com", "a..b", "example.com ", "[127.0.0.1]"]
) | st.from_regex(r"([a-zA-Z0-9ü-]{1,63}\.){1,4}[a-z]{2,5}", fullmatch=True)


@given(LOCAL_PARTS, DOMAINS)
def test_fast_path_agrees_with_full_validation(local: str, domain: str) -> None:
    def result(normal: Callable[..., str]) -> str:
        try:
            return normal(trimmed_address(f"{local}@{domain}"), test_domains=True)
        except InvalidEmail:
            return "invalid"

    assert result(normal_email) == result(email_addresses._validated)


@given(st.text() | st.from_regex(r"[!-~]{1,20}@[a-zA-Z0-9ü-]{1,10}\.[a-z]{2,5}", fullmatch=True))
def test_normal_form_is_stable_lower_case_ascii(text: str) -> None:
    with suppress(InvalidEmail):
        normal = normal_email(text, test_domains=True)
        assert normal.isascii()
        assert normal == normal.lower()
        assert not set(normal) & set(string.whitespace)
        assert normal_email(normal, test_domains=True) == normal
