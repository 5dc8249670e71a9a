from datetime import UTC, datetime, timedelta

import pytest

from services.auth.sessions.models import Session, Which, chosen, sessions_of
from services.auth.tokens.credentials import RefreshTokenString
from services.auth.tokens.models import (
    ACCESS_TOKEN_LIFETIME,
    FAMILY_LIFETIME,
    REFRESH_TOKEN_LIFETIME,
    AccessToken,
    Grant,
    RefreshToken,
    TokenFamily,
)
from shared.errors import NotFound
from shared.messages.auth.errors import NoCurrentSession

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def chain(name: str, *, platform: str | None = "mac") -> TokenFamily:
    return TokenFamily(
        root_grant=name,
        client_id="client_one",
        user_id="user_1",
        began_at=NOW,
        ends_at=NOW + FAMILY_LIFETIME,
        platform=platform,  # type: ignore[arg-type]
    )


def access(
    name: str, at: datetime = NOW, network: str | None = None, life: timedelta = ACCESS_TOKEN_LIFETIME
) -> AccessToken:
    grant = Grant("phone_code", name)
    return AccessToken.issue(chain(name), grant, id=f"acstok_{name}", at=at, network=network, life=life)


def refresh(name: str, at: datetime = NOW, network: str | None = None) -> RefreshToken:
    text = RefreshTokenString(f"reftok_{name}", "key")
    grant = Grant("refresh_token", "reftok_0")
    return RefreshToken.issue(chain(name), grant, text, access_token=access(name, at, network), at=at)


def session(name: str, at: datetime = NOW) -> Session:
    return Session.of([refresh(name, at)], [access(name, at)])


def test_a_session_tells_when_it_began_where_it_was_used_last_and_when_it_ends() -> None:
    later = NOW + timedelta(days=3)
    [found] = sessions_of([refresh("a", later, "2001:db8::/64")], [access("a", later, "2001:db8::/64")])
    assert (found.id, found.client_id, found.user_id, found.platform) == ("a", "client_one", "user_1", "mac")
    assert (found.began_at, found.last_used_at, found.network) == (NOW, later, "2001:db8::/64")
    assert found.expires_at == later + REFRESH_TOKEN_LIFETIME


def test_a_login_that_nothing_renews_is_a_session_of_one_token() -> None:
    [found] = sessions_of([], [access("nonce", network="203.0.113.0/24", life=timedelta(hours=24))])
    assert (found.id, found.platform, found.network) == ("nonce", None, "203.0.113.0/24")
    assert (found.began_at, found.last_used_at, found.expires_at) == (NOW, NOW, NOW + timedelta(hours=24))


def test_a_session_whose_access_token_has_long_expired_lives_on_its_refresh_token() -> None:
    found = session("a")
    assert found.is_live(at=NOW + REFRESH_TOKEN_LIFETIME - timedelta(milliseconds=1))
    assert not found.is_live(at=NOW + REFRESH_TOKEN_LIFETIME)


def test_the_session_used_last_comes_first() -> None:
    hour = timedelta(hours=1)
    found = sessions_of([refresh("a", NOW), refresh("b", NOW + 2 * hour)], [access("c", NOW + hour)])
    assert [each.id for each in found] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("session_id", "which", "ended"),
    [
        ("a", None, ["a"]),
        (None, "current", ["b"]),
        (None, "others", ["a", "over"]),
        (None, "all", ["a", "b", "over"]),
        (None, None, ["a", "b", "over"]),
    ],
)
def test_one_ends_those_one_has_chosen(session_id: str | None, which: Which | None, ended: list[str]) -> None:
    sessions = [session("a"), session("b"), session("over", NOW - REFRESH_TOKEN_LIFETIME)]
    found = chosen(sessions, session_id=session_id, which=which, current="b", at=NOW)
    assert [each.id for each in found] == ended


@pytest.mark.parametrize("session_id", ["unknown", "over"])
def test_a_session_that_is_over_or_nobodys_is_not_found(session_id: str) -> None:
    sessions = [session("a"), session("over", NOW - REFRESH_TOKEN_LIFETIME)]
    with pytest.raises(NotFound):
        chosen(sessions, session_id=session_id, which=None, current="a", at=NOW)


@pytest.mark.parametrize("which", ["others", "current"])
@pytest.mark.parametrize("current", [None, "ended"])
def test_without_a_current_session_nothing_is_seen_from_it(which: Which, current: str | None) -> None:
    with pytest.raises(NoCurrentSession):
        chosen([session("a")], session_id=None, which=which, current=current, at=NOW)
