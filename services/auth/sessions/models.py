"""Where is somebody logged in? In sessions: what is left of a login, be it a chain of tokens or one token alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from services.auth.tokens.models import AccessToken, RefreshToken
from shared.messages.auth.errors import NoCurrentSession, SessionNotFound
from shared.messages.auth.magic_links import Platform

Which = Literal["all", "others", "current"]
"""Sessions as seen from one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login of a user, by its tokens that are not revoked.

    Attributes:
        id: the root grant of its chain.
        platform: what the device runs, where it was told.
        began_at: when the person logged in.
        last_used_at: when its newest token was issued, by the login or by a refresh.
        network: the prefix of the address that token was issued to, if that was known.
        expires_at: when the last of its tokens does, unless it is used before.
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
        """The session that tokens of one chain make up; there must be one."""
        tokens: list[AccessToken | RefreshToken] = [*refresh_tokens, *access_tokens]
        newest = max(tokens, key=lambda token: token.created_at)
        chain = refresh_tokens[0].chain if refresh_tokens else None
        return cls(
            id=newest.root_grant,
            user_id=newest.user_id,
            client_id=newest.client_id,
            platform=None if chain is None else chain.platform,
            # What nothing renews is as old as its login.
            began_at=min(token.created_at for token in tokens) if chain is None else chain.began_at,
            last_used_at=newest.created_at,
            network=newest.network,
            expires_at=max(token.expires_at for token in tokens),
            refresh_tokens=tuple(refresh_tokens),
            access_tokens=tuple(access_tokens),
        )

    def is_live(self, *, at: datetime) -> bool:
        """Whether one of its tokens still lets somebody in."""
        return at < self.expires_at


def sessions_of(refresh_tokens: Iterable[RefreshToken], access_tokens: Iterable[AccessToken]) -> list[Session]:
    """The sessions that unrevoked tokens make up, the one used last first."""
    chains: dict[str, tuple[list[RefreshToken], list[AccessToken]]] = defaultdict(lambda: ([], []))
    for refresh_token in refresh_tokens:
        chains[refresh_token.root_grant][0].append(refresh_token)
    for access_token in access_tokens:
        chains[access_token.root_grant][1].append(access_token)
    sessions = [Session.of(*tokens) for tokens in chains.values()]
    return sorted(sessions, key=lambda session: (session.last_used_at, session.id), reverse=True)


def chosen(
    sessions: Sequence[Session], *, session_id: str | None, which: Which | None, current: str | None, at: datetime
) -> list[Session]:
    """The sessions that somebody wants to end.

    Of "all" and "others" also those whose time is over: by the clock of another instance they may not be.

    Args:
        sessions: all of the user's.
        session_id: one of them.
        which: or some of them; neither means all.
        current: the id of the session that asks, if one does.
        at: now.

    Raises:
        SessionNotFound: the user has no such session (any more).
        NoCurrentSession: ``which`` speaks of the current one, and none of these asks.
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
