from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.tokens.credentials import RefreshTokenString
from services.auth.tokens.models import (
    FAMILY_LIFETIME,
    GRACE_PERIOD,
    REFRESH_TOKEN_LIFETIME,
    AccessToken,
    Grant,
    RefreshToken,
    TokenFamily,
)
from shared.errors import Refusal
from shared.messages.auth.errors import AuthorizationNotFound, IncorrectClient, TokenExpired

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
GRANT = Grant("authorization_code", "authzcode_1")
FAMILY = TokenFamily(
    root_grant=GRANT,
    client_id="client_one",
    user_id="user_1",
    began_at=NOW,
    ends_at=NOW + FAMILY_LIFETIME,
    platform="mac",
)


def access_token(number: int = 1, at: datetime = NOW) -> AccessToken:
    return AccessToken.issue(FAMILY, GRANT, id=f"acstok_{number}", at=at, network="203.0.113.0/24")


STRING = RefreshTokenString("reftok_1", "0123456789abcdef" * 4)
NEXT = STRING.successor()


def refresh_token(at: datetime = NOW) -> RefreshToken:
    return RefreshToken.issue(FAMILY, STRING, access_token(at=at), at=at)


def exchanged(at: datetime = NOW) -> RefreshToken:
    return refresh_token().exchange(NEXT, access_token(2, at), "sealed", at=at)


def test_refresh_token_has_its_family() -> None:
    assert refresh_token().family == FAMILY


def test_access_token_expires_after_an_hour() -> None:
    assert access_token().expires_at == NOW + timedelta(hours=1)


def test_refresh_token_has_access_token_and_network() -> None:
    for number, issued in ((1, refresh_token()), (2, exchanged())):
        assert (issued.access_token_id, issued.cidr_blocks) == (f"acstok_{number}", ("203.0.113.0/24",))


@given(st.timedeltas(timedelta(0), FAMILY_LIFETIME))
def test_no_refresh_token_outlives_its_family(after: timedelta) -> None:
    for issued in (refresh_token(at=NOW + after), exchanged(at=NOW + after)):
        assert issued.expires_at == min(FAMILY.ends_at, NOW + after + REFRESH_TOKEN_LIFETIME)
        assert issued.created_at == NOW + after


@pytest.mark.parametrize(
    ("changed", "arguments", "refusal"),
    [
        ({"revoked_at": NOW}, {}, AuthorizationNotFound),
        ({}, {"at": NOW + REFRESH_TOKEN_LIFETIME}, TokenExpired),
        ({}, {"client_id": "client_two"}, IncorrectClient),
        ({"revoked_at": NOW}, {"at": NOW + REFRESH_TOKEN_LIFETIME, "client_id": "client_two"}, AuthorizationNotFound),
        ({}, {"at": NOW + REFRESH_TOKEN_LIFETIME, "client_id": "client_two"}, TokenExpired),
    ],
)
def test_exchange_is_refused(changed: dict[str, Any], arguments: dict[str, Any], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        replace(refresh_token(), **changed).must_be_open(**{"client_id": "client_one", "at": NOW, **arguments})


def test_refresh_token_is_open_until_it_expires() -> None:
    refresh_token().must_be_open(client_id="client_one", at=NOW + REFRESH_TOKEN_LIFETIME - timedelta(milliseconds=1))


OTHER_KEY = RefreshTokenString("reftok_1", "f" * 64)


@pytest.mark.parametrize(
    ("token", "string", "client_id", "repeats"),
    [
        (exchanged(), STRING, "client_one", True),
        (exchanged(), STRING, "client_two", False),
        (exchanged(), NEXT, "client_one", False),
        (exchanged(), STRING.successor(), "client_one", False),
        (exchanged().exchange(NEXT.successor(), access_token(3), "", at=NOW), STRING, "client_one", False),
        (exchanged().revoke(at=NOW), STRING, "client_one", False),
        (replace(exchanged(), used_at=NOW), STRING, "client_one", False),
        (refresh_token(), STRING, "client_one", False),
    ],
)
def test_only_the_token_before_an_unused_one_may_be_repeated(
    token: RefreshToken,
    string: RefreshTokenString,
    client_id: str,
    repeats: bool,  # noqa: FBT001
) -> None:
    assert token.may_repeat(string, client_id=client_id) == repeats


def test_all_tokens_of_a_family_are_recognized_and_one_is_unused() -> None:
    strings, token = [STRING], refresh_token()
    for number in range(2, 6):
        strings.append(strings[-1].successor())
        token = token.exchange(strings[-1], access_token(number), "", at=NOW)
    assert [token.is_unused(string) for string in strings] == [False] * 4 + [True]
    assert all(token.recognizes(string) for string in strings)
    assert not token.recognizes(OTHER_KEY)
    assert not refresh_token().recognizes(NEXT)


def test_token_of_before_is_not_unused_once_it_was_used() -> None:
    token = replace(refresh_token(), used_at=NOW, revoked_at=NOW)
    assert (token.recognizes(STRING), token.is_unused(STRING)) == (True, False)


def test_token_is_recent_for_the_grace_period() -> None:
    # The clock of another instance may be behind.
    for after in (-timedelta(seconds=1), timedelta(0), GRACE_PERIOD):
        assert exchanged().is_recent(at=NOW + after)
    assert not exchanged().is_recent(at=NOW + GRACE_PERIOD + timedelta(milliseconds=1))
