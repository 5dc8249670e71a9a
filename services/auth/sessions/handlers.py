"""Handlers that list and end the sessions of a user, and find the last one for the mailer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.magic_links.models import mail_id_of
from services.auth.sessions.models import Session, select, sessions_of
from services.auth.tokens.models import AccessToken, RefreshToken
from shared.bus.work import Work
from shared.email_addresses import comparable
from shared.messages.auth.sessions import (
    EndedView,
    FindLastLogin,
    ListSessions,
    RevokeSessions,
    SessionDevice,
    SessionList,
    SessionPlace,
    SessionRevoked,
    SessionView,
)
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.messages.mailer.mails import LastLogin
from shared.networks import prefix

MAX_LISTED: Final = 200
"""Sessions in one reply; a user with more can still end all of them."""
MAX_REMOVED: Final = 500
"""Tokens of each kind that one message deletes."""


async def list_sessions(query: ListSessions, work: Work, auth: Auth) -> SessionList:
    """List the live sessions of a user, the most recently used first.

    Raises:
        UserNotFound: no user has this ID.
    """
    _, sessions = await asyncio.gather(auth.users.get(query.user_id), _sessions(query.user_id, auth))
    current = _current_session_id(sessions, work)
    work.annotate(user_id=query.user_id)
    live = [session for session in sessions if session.is_live(at=work.now)]
    return SessionList(tuple(_view(session, current, auth) for session in live[:MAX_LISTED]))


async def find_last_login(command: FindLastLogin, work: Work, auth: Auth) -> None:
    """Order a mail of the mailer again, with the last login of its recipient."""
    identifier = await auth.identifiers.find_by_value("email", comparable(auth.unseal(command.address)))
    family = None if identifier is None else await auth.refresh_tokens.last_login(identifier.user_id)
    login = LastLogin()
    if family is not None:
        login = LastLogin(order_id=mail_id_of(family.root_grant.value), at=family.began_at)
    work.publish(command.mail.model_copy(update={"key": work.key, "last_login": login}))


@audited("revoke_sessions")
async def revoke_sessions(command: RevokeSessions, work: Work, auth: Auth) -> EndedView:
    """Log a user out of one or more sessions.

    Raises:
        UserNotFound, SessionNotFound: no user has this ID, or the user has no such live session.
        NoCurrentSession: the command needs the current session, and the caller has none of this user.
    """
    _, sessions = await asyncio.gather(auth.users.get(command.user_id), _sessions(command.user_id, auth))
    current = _current_session_id(sessions, work)
    work.annotate(user_id=command.user_id)
    ending = select(sessions, session_id=command.session_id, which=command.which, current=current, at=work.now)
    live = [session for session in ending if session.is_live(at=work.now)]
    for session in ending:
        end_session(session, work, auth)
    for session in live:
        auth.audit.record(work, "end_session", session_id=session.id, client_id=session.client_id)
        work.publish(
            SessionRevoked(
                key=session.user_id,
                user_id=session.user_id,
                client_id=session.client_id,
                session_id=session.id,
                by=work.caller.kind,
                at=work.now,
            )
        )
    return EndedView(ended=len(live))


async def remove_sessions(user_id: str, work: Work, auth: Auth) -> bool:
    """End the sessions of a user, and delete all tokens, for an erasure.

    Returns:
        Whether tokens may be left, since one message deletes a bounded number; another message must continue.
    """
    refresh_tokens, access_tokens = await asyncio.gather(
        auth.refresh_tokens.some_of_user(user_id, MAX_REMOVED), auth.access_tokens.some_of_user(user_id, MAX_REMOVED)
    )
    for refresh_token in refresh_tokens:
        auth.refresh_tokens.remove(refresh_token, work)
        _publish_revocation(refresh_token.access_token, work)
    for access_token in access_tokens:
        auth.access_tokens.remove(access_token, work)
        _publish_revocation(access_token, work)
    return MAX_REMOVED in {len(refresh_tokens), len(access_tokens)}


async def find_session(user_id: str, root_grant: str, auth: Auth) -> Session | None:
    """The session that began with this grant; None if all of its tokens are revoked."""
    return next((session for session in await _sessions(user_id, auth) if session.id == root_grant), None)


def end_session(session: Session, work: Work, auth: Auth) -> None:
    """Revoke all tokens of a session."""
    for refresh_token in session.refresh_tokens:
        auth.refresh_tokens.save(refresh_token.revoke(at=work.now), work)
        _publish_revocation(refresh_token.access_token, work)
    _revoke_documents(session.access_tokens, work, auth)


def revoke_access_tokens(token: RefreshToken, documents: Iterable[AccessToken], work: Work, auth: Auth) -> None:
    """Revoke the access token that was issued with a refresh token, which the caller saves, and ``documents``."""
    _publish_revocation(token.access_token, work)
    _revoke_documents(documents, work, auth)


def network_of(work: Work) -> str | None:
    """Prefix of the caller's IP address, as stored with tokens."""
    return None if work.caller.client_ip is None else prefix(work.caller.client_ip)


def _revoke_documents(access_tokens: Iterable[AccessToken], work: Work, auth: Auth) -> None:
    for access_token in access_tokens:
        auth.access_tokens.save(access_token.revoke(at=work.now), work)
        _publish_revocation(access_token, work)


def _publish_revocation(access_token: AccessToken | None, work: Work) -> None:
    """Notify the gateways of an access token that was open until now."""
    if access_token is not None and access_token.revoked_at is None and work.now < access_token.expires_at:
        work.publish(
            AccessTokenRevoked(key=access_token.id, token_id=access_token.id, expires_at=access_token.expires_at)
        )


async def _sessions(user_id: str, auth: Auth) -> list[Session]:
    """All sessions of a user, including expired ones."""
    return sessions_of(
        *await asyncio.gather(auth.refresh_tokens.unrevoked(user_id), auth.access_tokens.unrevoked(user_id))
    )


def _current_session_id(sessions: Iterable[Session], work: Work) -> str | None:
    """ID of the caller's session; None if it is none of ``sessions``."""
    token_id = work.caller.token_id
    return next((session.id for session in sessions if token_id is not None and session.holds(token_id)), None)


def _view(session: Session, current: str | None, auth: Auth) -> SessionView:
    place = None
    if session.network is not None:
        location = auth.geoip.find(session.network)
        place = SessionPlace(network=session.network, country=location.country, city=location.city)
    return SessionView(
        id=session.id,
        client_id=session.client_id,
        device=None if session.platform is None else SessionDevice(platform=session.platform),
        created_at=session.began_at,
        last_used_at=session.last_used_at,
        expires_at=session.expires_at,
        place=place,
        current=session.id == current,
    )
