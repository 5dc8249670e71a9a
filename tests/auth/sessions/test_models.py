from datetime import UTC, datetime, timedelta

import pytest

from services.auth.sessions.models import Selection, Session, select, sessions_of
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


def family(name: str, *, platform: str | None = "mac") -> TokenFamily:
    return TokenFamily(
        root_grant=Grant("authorization_code", name),
        client_id="client_one",
        user_id="user_1",
        began_at=NOW,
        ends_at=NOW + FAMILY_LIFETIME,
        platform=platform,  # type: ignore[arg-type]
    )


def access_token(
    name: str, at: datetime = NOW, network: str | None = None, lifetime: timedelta = ACCESS_TOKEN_LIFETIME
) -> AccessToken:
    grant = Grant("phone_code", name)
    return AccessToken.issue(family(name), grant, id=f"acstok_{name}", at=at, network=network, lifetime=lifetime)


def refresh_token(name: str, at: datetime = NOW, network: str | None = None) -> RefreshToken:
    string = RefreshTokenString(f"reftok_{name}", "key")
    return RefreshToken.issue(family(name), string, access_token(name, at, network), at=at)


def session(name: str, at: datetime = NOW) -> Session:
    return Session.of([refresh_token(name, at)], [access_token(name, at)])


def test_session_has_times_and_last_network() -> None:
    later = NOW + timedelta(days=3)
    [found] = sessions_of([refresh_token("a", later, "2001:db8::/64")], [access_token("a", later, "2001:db8::/64")])
    assert (found.id, found.client_id, found.user_id, found.platform) == ("a", "client_one", "user_1", "mac")
    assert (found.began_at, found.last_used_at, found.network) == (NOW, later, "2001:db8::/64")
    assert found.expires_at == later + REFRESH_TOKEN_LIFETIME


def test_access_token_without_refresh_token_is_a_session() -> None:
    [found] = sessions_of([], [access_token("nonce", network="203.0.113.0/24", lifetime=timedelta(hours=24))])
    assert (found.id, found.platform, found.network) == ("nonce", None, "203.0.113.0/24")
    assert (found.began_at, found.last_used_at, found.expires_at) == (NOW, NOW, NOW + timedelta(hours=24))


def test_session_is_live_until_its_refresh_token_expires() -> None:
    found = session("a")
    assert found.is_live(at=NOW + REFRESH_TOKEN_LIFETIME - timedelta(milliseconds=1))
    assert not found.is_live(at=NOW + REFRESH_TOKEN_LIFETIME)


def test_most_recently_used_session_comes_first() -> None:
    hour = timedelta(hours=1)
    found = sessions_of([refresh_token("a", NOW), refresh_token("b", NOW + 2 * hour)], [access_token("c", NOW + hour)])
    assert [each.id for each in found] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("session_id", "which", "selected"),
    [
        ("a", None, ["a"]),
        (None, "current", ["b"]),
        (None, "others", ["a", "expired"]),
        (None, "all", ["a", "b", "expired"]),
        (None, None, ["a", "b", "expired"]),
    ],
)
def test_sessions_are_selected(session_id: str | None, which: Selection | None, selected: list[str]) -> None:
    sessions = [session("a"), session("b"), session("expired", NOW - REFRESH_TOKEN_LIFETIME)]
    found = select(sessions, session_id=session_id, which=which, current="b", at=NOW)
    assert [each.id for each in found] == selected


@pytest.mark.parametrize("session_id", ["unknown", "expired"])
def test_expired_or_unknown_session_is_not_found(session_id: str) -> None:
    sessions = [session("a"), session("expired", NOW - REFRESH_TOKEN_LIFETIME)]
    with pytest.raises(NotFound):
        select(sessions, session_id=session_id, which=None, current="a", at=NOW)


@pytest.mark.parametrize("which", ["others", "current"])
@pytest.mark.parametrize("current", [None, "ended"])
def test_selection_relative_to_no_current_session_is_refused(which: Selection, current: str | None) -> None:
    with pytest.raises(NoCurrentSession):
        select([session("a")], session_id=None, which=which, current=current, at=NOW)
