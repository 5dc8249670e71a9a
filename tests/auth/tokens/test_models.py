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


def refresh_token(number: int = 1, at: datetime = NOW) -> RefreshToken:
    return RefreshToken.issue(
        FAMILY, GRANT, RefreshTokenString(f"reftok_{number}", "k"), access_token=access_token(number, at), at=at
    )


def used_token(at: datetime = NOW) -> RefreshToken:
    return refresh_token().use(refresh_token(2), at=at)


def test_refresh_token_has_its_family() -> None:
    assert refresh_token().family == FAMILY


def test_access_token_expires_after_an_hour() -> None:
    assert access_token().expires_at == NOW + timedelta(hours=1)


def test_refresh_token_has_access_token_and_network() -> None:
    issued = refresh_token(2)
    assert (issued.access_token_id, issued.cidr_blocks) == ("acstok_2", ("203.0.113.0/24",))


@given(st.timedeltas(timedelta(0), FAMILY_LIFETIME))
def test_no_refresh_token_outlives_its_family(after: timedelta) -> None:
    issued = refresh_token(at=NOW + after)
    assert issued.expires_at <= FAMILY.ends_at
    assert issued.expires_at - issued.created_at <= REFRESH_TOKEN_LIFETIME


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


@pytest.mark.parametrize(
    ("successor", "client_id", "repeats"),
    [
        (refresh_token(2), "client_one", True),
        (refresh_token(2), "client_two", False),
        (refresh_token(2).use(refresh_token(3), at=NOW), "client_one", False),
        (refresh_token(2).revoke(at=NOW), "client_one", False),
        (None, "client_one", False),
    ],
)
def test_repeat_needs_an_unused_successor(
    successor: RefreshToken | None,
    client_id: str,
    repeats: bool,  # noqa: FBT001
) -> None:
    assert used_token().may_repeat(successor, client_id=client_id) == repeats


def test_use_of_an_unused_token_is_no_repeat() -> None:
    assert not refresh_token().may_repeat(refresh_token(2), client_id="client_one")


def test_use_is_recent_for_the_grace_period() -> None:
    # The clock of another instance may be behind.
    for after in (-timedelta(seconds=1), timedelta(0), GRACE_PERIOD):
        assert used_token().is_recent(at=NOW + after)
    assert not used_token().is_recent(at=NOW + GRACE_PERIOD + timedelta(milliseconds=1))
    assert not refresh_token().is_recent(at=NOW)
