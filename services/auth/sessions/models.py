"""Sessions: the logins of a user, derived from the tokens that are not revoked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from services.auth.tokens.models import AccessToken, RefreshToken
from shared.messages.auth.errors import NoCurrentSession, SessionNotFound
from shared.messages.auth.magic_links import Platform

Selection = Literal["all", "others", "current"]
"""Which sessions to end, relative to the caller's session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login of a user, with its unrevoked tokens. ``access_tokens`` are those that are documents of their own.

    Attributes:
        id: root grant of its token family.
        platform: operating system of the device, if the app named it.
        last_used_at: when the newest token was issued, at the login or by a refresh.
        network: prefix of the IP address that the newest token was issued to, if known.
        expires_at: when the last token expires, unless the session is used before.
    """

    id: str
    user_id: str
    client_id: str
    platform: Platform | None
    began_at: datetime
    last_used_at: datetime
    network: str | None
    expires_at: datetime
    refresh_tokens: tuple[RefreshToken, ...]
    access_tokens: tuple[AccessToken, ...]

    @classmethod
    def of(cls, refresh_tokens: Sequence[RefreshToken], access_tokens: Sequence[AccessToken]) -> Self:
        """The session of the tokens of one family; there must be at least one token."""
        issued = [token.access_token for token in refresh_tokens if token.access_token is not None]
        tokens: list[AccessToken | RefreshToken] = [*refresh_tokens, *issued, *access_tokens]
        newest = max(tokens, key=lambda token: token.created_at)
        family = refresh_tokens[0].family if refresh_tokens else None
        return cls(
            id=newest.root_grant.value,
            user_id=newest.user_id,
            client_id=newest.client_id,
            platform=None if family is None else family.platform,
            # Without refresh tokens nothing renews the session, so its oldest token is as old as the login.
            began_at=min(token.created_at for token in tokens) if family is None else family.began_at,
            last_used_at=newest.created_at,
            network=newest.cidr_blocks[0] if newest.cidr_blocks else None,
            expires_at=max(token.expires_at for token in tokens),
            refresh_tokens=tuple(refresh_tokens),
            access_tokens=tuple(access_tokens),
        )

    def holds(self, access_token_id: str) -> bool:
        """Whether an access token of it has this ID.

        That may be one which a refresh has just replaced and of whose revocation the gateway does not know yet.
        """
        return any(
            access_token_id in {token.access_token_id, token.previous_access_token_id} for token in self.refresh_tokens
        ) or any(token.id == access_token_id for token in self.access_tokens)

    def is_live(self, *, at: datetime) -> bool:
        """Whether one of its tokens has not expired."""
        return at < self.expires_at


def sessions_of(refresh_tokens: Iterable[RefreshToken], access_tokens: Iterable[AccessToken]) -> list[Session]:
    """The sessions of unrevoked tokens, the most recently used first."""
    families: dict[str, tuple[list[RefreshToken], list[AccessToken]]] = defaultdict(lambda: ([], []))
    for refresh_token in refresh_tokens:
        families[refresh_token.root_grant.value][0].append(refresh_token)
    for access_token in access_tokens:
        families[access_token.root_grant.value][1].append(access_token)
    sessions = [Session.of(*tokens) for tokens in families.values()]
    return sorted(sessions, key=lambda session: (session.last_used_at, session.id), reverse=True)


def select(
    sessions: Sequence[Session], *, session_id: str | None, which: Selection | None, current: str | None, at: datetime
) -> list[Session]:
    """Select the sessions to end: the one with ``session_id``, or those of ``which``; all if both are None.

    "all" and "others" include expired sessions: by the clock of another instance they may not have expired yet.
    ``sessions`` are all sessions of the user, ``current`` is the ID of the caller's session.

    Raises:
        SessionNotFound: the user has no live session with this ID.
        NoCurrentSession: ``which`` needs the current session, and the caller has none of this user.
    """
    if session_id is not None:
        found = [session for session in sessions if session.id == session_id and session.is_live(at=at)]
        if not found:
            raise SessionNotFound
        return found
    if which in {None, "all"}:
        return list(sessions)
    if not any(session.id == current for session in sessions):
        raise NoCurrentSession
    return [session for session in sessions if (session.id == current) == (which == "current")]
