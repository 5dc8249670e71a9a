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
    Successor,
    TokenFamily,
)
from shared.errors import Refusal
from shared.messages.auth.errors import AuthorizationNotFound, IncorrectClient, TokenExpired

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
GRANT = Grant("authorization_code", "authzcode_1")
CHAIN = TokenFamily(
    root_grant="authzcode_1",
    client_id="client_one",
    user_id="user_1",
    began_at=NOW,
    ends_at=NOW + FAMILY_LIFETIME,
    platform="mac",
)


def access_token(number: int = 1, at: datetime = NOW) -> AccessToken:
    return AccessToken.issue(CHAIN, GRANT, id=f"acstok_{number}", at=at, network="203.0.113.0/24")


def token(number: int = 1, at: datetime = NOW) -> RefreshToken:
    return RefreshToken.issue(
        CHAIN, GRANT, RefreshTokenString(f"reftok_{number}", "k"), access_token=access_token(number, at), at=at
    )


def used(at: datetime = NOW) -> RefreshToken:
    return token().use(Successor("reftok_2", "sealed"), at=at)


def test_a_token_knows_its_chain() -> None:
    assert token().chain == CHAIN


def test_an_access_token_lives_an_hour() -> None:
    assert access_token().expires_at == NOW + timedelta(hours=1)


def test_a_refresh_token_knows_its_access_token_and_where_both_were_issued() -> None:
    issued = token(2)
    assert (issued.access_token_id, issued.network) == ("acstok_2", "203.0.113.0/24")


@given(st.timedeltas(timedelta(0), FAMILY_LIFETIME))
def test_no_refresh_token_outlives_its_chain(after: timedelta) -> None:
    issued = token(at=NOW + after)
    assert issued.expires_at <= CHAIN.ends_at
    assert issued.expires_at - issued.created_at <= REFRESH_TOKEN_LIFETIME


@pytest.mark.parametrize(
    ("changed", "asked", "refusal"),
    [
        ({"revoked_at": NOW}, {}, AuthorizationNotFound),
        ({}, {"at": NOW + REFRESH_TOKEN_LIFETIME}, TokenExpired),
        ({}, {"client_id": "client_two"}, IncorrectClient),
        ({"revoked_at": NOW}, {"at": NOW + REFRESH_TOKEN_LIFETIME, "client_id": "client_two"}, AuthorizationNotFound),
        ({}, {"at": NOW + REFRESH_TOKEN_LIFETIME, "client_id": "client_two"}, TokenExpired),
    ],
)
def test_an_exchange_is_refused_for(changed: dict[str, Any], asked: dict[str, Any], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        replace(token(), **changed).must_be_open(**{"client_id": "client_one", "at": NOW, **asked})


def test_an_exchange_is_open_until_its_last_moment() -> None:
    token().must_be_open(client_id="client_one", at=NOW + REFRESH_TOKEN_LIFETIME - timedelta(milliseconds=1))


@pytest.mark.parametrize(
    ("successor", "client_id", "after", "repeats"),
    [
        (token(2), "client_one", timedelta(0), True),
        (token(2), "client_one", GRACE_PERIOD, True),
        # Another instance's clock, a little behind.
        (token(2), "client_one", -timedelta(seconds=1), True),
        (token(2), "client_one", GRACE_PERIOD + timedelta(milliseconds=1), False),
        (token(2), "client_two", timedelta(0), False),
        (token(2).use(Successor("reftok_3", "sealed"), at=NOW), "client_one", timedelta(0), False),
        (token(2).revoke(at=NOW), "client_one", timedelta(0), False),
        (None, "client_one", timedelta(0), False),
    ],
)
def test_a_repeat_is_one_only_within_grace_and_while_the_successor_is_unused(
    successor: RefreshToken | None,
    client_id: str,
    after: timedelta,
    repeats: bool,  # noqa: FBT001
) -> None:
    assert used().may_repeat(successor, client_id=client_id, at=NOW + after) == repeats


def test_an_unused_token_has_nothing_to_repeat() -> None:
    assert not token().may_repeat(token(2), client_id="client_one", at=NOW)
