import string
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.users import models
from services.auth.users.models import Identifier, User, normal_email
from shared.messages.auth.errors import InvalidEmail

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
USER = User(id="user_1", created_at=NOW)


def email(*, verified: bool) -> Identifier:
    return Identifier.of_new(USER, "email", "ana@example.com", id="userident_1", verified=verified, at=NOW)


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("ana@example.com", "ana@example.com"),
        ("Ana.Lopez+Beak@EXAMPLE.com", "ana.lopez+beak@example.com"),
        ("ana@bücher.example", "ana@xn--bcher-kva.example"),
        ("ana@XN--bcher-kva.example", "ana@xn--bcher-kva.example"),
        ("o'neil@example.com", "o'neil@example.com"),
        ("ana@nest.test", "ana@nest.test"),
    ],
)
def test_an_address_has_one_form(typed: str, normal: str) -> None:
    assert normal_email(typed, test_domains=True) == normal


@pytest.mark.parametrize(
    "typed",
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
        " ana@example.com",
        "ana@example.com ",
        "ana@example.com\r\nBcc: bo@example.com",
        "ana\x00@example.com",
        "strauß@example.com",
        "ana@example.com,bo@example.com",
        "a" * 65 + "@example.com",
        "ana@" + "a" * 300 + ".com",
    ],
)
def test_what_can_receive_no_mail_is_refused(typed: str) -> None:
    with pytest.raises(InvalidEmail):
        normal_email(typed, test_domains=True)


def test_a_test_domain_is_refused_in_production() -> None:
    with pytest.raises(InvalidEmail):
        normal_email("ana@nest.test", test_domains=False)


LOCALS = st.from_regex(r"[a-zA-Z0-9_.+!'-]{1,70}", fullmatch=True)
DOMAINS = st.sampled_from(
    ["example.com", "BÜCHER.example", "nest.test", "-a.com", "", "a@b.com", "a..b", "example.com ", "[127.0.0.1]"]
) | st.from_regex(r"([a-zA-Z0-9ü-]{1,63}\.){1,4}[a-z]{2,5}", fullmatch=True)


@given(LOCALS, DOMAINS)
def test_the_short_way_for_plain_addresses_says_what_the_long_one_does(local: str, domain: str) -> None:
    def said(normal: Callable[..., str]) -> str:
        try:
            return normal(f"{local}@{domain}", test_domains=True)
        except InvalidEmail:
            return "invalid"

    assert said(normal_email) == said(models._validated)


@given(st.text() | st.from_regex(r"[!-~]{1,20}@[a-zA-Z0-9ü-]{1,10}\.[a-z]{2,5}", fullmatch=True))
def test_any_text_has_a_stable_lower_case_ascii_form_or_none(typed: str) -> None:
    with suppress(InvalidEmail):
        normal = normal_email(typed, test_domains=True)
        assert normal.isascii()
        assert normal == normal.lower()
        assert not set(normal) & set(string.whitespace)
        assert normal_email(normal, test_domains=True) == normal


def test_an_identifier_is_proven_from_its_verification_to_its_removal() -> None:
    unproven = email(verified=False)
    assert not unproven.is_proven_email
    later = NOW + timedelta(days=1)
    proven = unproven.verify(at=later)
    assert (proven.verified_at, proven.updated_at, proven.created_at) == (later, later, NOW)
    assert proven.is_proven_email
    assert not replace(proven, removed_at=later).is_proven_email
    assert not replace(proven, identifier_type="phone").is_proven_email


def test_a_first_identifier_that_has_just_been_shown_is_verified() -> None:
    assert email(verified=True).verified_at == NOW
