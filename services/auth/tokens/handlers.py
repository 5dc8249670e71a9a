"""How does somebody log in, and stay logged in? By redeeming a code, then one refresh token after the other."""

from __future__ import annotations

import asyncio
from typing import Final

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.magic_links.models import Authorization
from services.auth.rate_limits.limiter import device_ids
from services.auth.sessions.handlers import end, find_session, network_of, revoke_access_token
from services.auth.tokens.credentials import Code, RefreshTokenString, new_key
from services.auth.tokens.models import ACCESS_TOKEN_LIFETIME, AccessToken, Grant, RefreshToken, Successor, TokenFamily
from services.auth.tokens.signer import access_claims
from services.auth.users.handlers import register, verify
from services.auth.users.models import Identifier
from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages import Sealed
from shared.messages.auth.errors import (
    CodeMissing,
    CodeVerifierMissing,
    IncorrectCodeVerifier,
    RedirectUriMissing,
    RefreshTokenMissing,
    RefreshTokenStolen,
    TokenNotFound,
    TokenUsed,
    UnsupportedGrantType,
)
from shared.messages.auth.tokens import AuthenticateUser, RefreshTokenReused, TokenView, UserAuthenticated
from shared.messages.mailer.mails import PersonVariables, SendMail

SUCCESSORS: Final = "auth.successors"
"""What answers kept for a repeat are sealed for: auth itself, and nothing else of its secrets."""


@audited("authenticate_user")
async def authenticate_user(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Exchange a code or a refresh token for an access token and a refresh token.

    Raises:
        UnsupportedGrantType: neither of the two.
        Throttled: too many that don't exist, from where this one came.
        Refusal: as ``_redeem_code`` and ``_refresh`` say.
    """
    try:
        match command.grant_type:
            case "authorization_code":
                return await _redeem_code(command, work, auth)
            case "refresh_token":
                return await _refresh(command, work, auth)
            case other:
                raise UnsupportedGrantType(grant_type=other)
    except TokenNotFound:
        # Keys can't be guessed, and ids can: were wrong keys counted against what they name, anybody could void it.
        await auth.limits.take("wrong-keys-per-prefix", work.caller.client_ip, work)
        raise


@audited("log_in")
async def _redeem_code(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Log in whoever holds the link and ordered it; the first time, make the user.

    Raises:
        CodeMissing, CodeVerifierMissing, RedirectUriMissing, MalformedCode: the request is incomplete.
        TokenNotFound: no such code.
        Throttled: too many wrong verifiers, for this or other codes of its address.
        Refusal: as ``Authorization.redeem`` and ``Client.must_be_enabled`` say.
    """
    code = _required(command.code, CodeMissing, auth)
    code_verifier = _required(command.code_verifier, CodeVerifierMissing, auth)
    if not command.redirect_uri:
        raise RedirectUriMissing
    authorization = await auth.authorizations.get(Code.parse(code))
    work.annotate(client_id=authorization.client_id, session_id=authorization.id)
    client, identifier, others, guesses, acquaintance = await asyncio.gather(
        auth.clients.get(authorization.client_id),
        auth.identifiers.find(authorization.identifier_type, authorization.identifier_value),
        auth.authorizations.others_open(authorization, at=work.now),
        auth.limits.room({"guesses-per-identifier": authorization.identifier_value}, work),
        auth.limits.acquaintance(authorization.identifier_value, device_ids(authorization.device)),
    )
    guesses.judge()
    try:
        used = authorization.redeem(
            client_id=command.client_id,
            redirect_uri=command.redirect_uri,
            code_verifier=code_verifier,
            at=work.now,
        )
    except IncorrectCodeVerifier:
        guesses.take()
        auth.authorizations.save(authorization.count_wrong_verifier(most=auth.guesses_per_code, at=work.now), work)
        raise
    client.must_be_enabled()

    auth.authorizations.save(used, work)
    for other in others:
        auth.authorizations.save(other.revoke(at=work.now), work)
    acquaintance.remember(work)
    user_id = _arrive(used, identifier, work, auth)
    work.annotate(user_id=user_id)
    work.publish(UserAuthenticated(key=user_id, user_id=user_id, client_id=client.id, at=work.now))
    chain = TokenFamily.begin(used, user_id, at=work.now)
    view, _ = _issue(chain, Grant("authorization_code", used.id), work, auth)
    return view


def _arrive(authorization: Authorization, identifier: Identifier | None, work: Work, auth: Auth) -> str:
    """The user whose address has just been shown to be theirs."""
    if identifier is None:
        identifier = register(authorization.identifier_value, work, auth, verified=True)
    else:
        verify(identifier, work, auth)
    return identifier.user_id


@audited("refresh")
async def _refresh(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Use up a refresh token and give its successor, in one step; the chain's older tokens end.

    Raises:
        RefreshTokenMissing, MalformedRefreshToken: the request is incomplete.
        TokenNotFound: no such refresh token.
        TokenUsed: it was used before, and this is no repeat: the chain is over.
        Refusal: as ``RefreshToken.must_be_open`` and ``Client.must_be_enabled`` say.
    """
    text = RefreshTokenString.parse(_required(command.refresh_token, RefreshTokenMissing, auth))
    token = await auth.refresh_tokens.get(text)
    work.annotate(user_id=token.user_id, client_id=token.client_id, session_id=token.root_grant)
    if token.used_at is not None:
        return await _answer_again(token, command, work, auth)
    token.must_be_open(client_id=command.client_id, at=work.now)
    client, access_tokens = await asyncio.gather(auth.clients.get(token.client_id), auth.access_tokens.beside(token))
    client.must_be_enabled()

    for access_token in access_tokens:
        revoke_access_token(access_token, work, auth)
    view, successor = _issue(token.chain, Grant("refresh_token", token.id), work, auth)
    sealed = auth.sealer.seal(SUCCESSORS, view.model_dump_json().encode())
    auth.refresh_tokens.save(token.use(Successor(successor.id, sealed), at=work.now), work)
    return view


async def _answer_again(token: RefreshToken, command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Answer a repeat as the first time; any other use of a used token is theft.

    Raises:
        TokenUsed: theft.
        Refusal: as ``Client.must_be_enabled`` says.
    """
    if token.successor is not None:
        successor, client = await asyncio.gather(
            auth.refresh_tokens.find(token.successor.id), auth.clients.get(token.client_id)
        )
        if token.may_repeat(successor, client_id=command.client_id, at=work.now):
            client.must_be_enabled()
            return TokenView.model_validate_json(auth.sealer.unseal(SUCCESSORS, token.successor.sealed))
    await _end_stolen_chain(token, work, auth)
    raise RefreshTokenStolen


async def _end_stolen_chain(token: RefreshToken, work: Work, auth: Auth) -> None:
    """Revoke all that lives of a chain, since a thief or the owner holds it and we can't tell who; tell the owner.

    Raises:
        TokenUsed: nothing lives of it any more; its end was told when it came.
    """
    session, identifiers = await asyncio.gather(
        find_session(token.user_id, token.root_grant, auth), auth.identifiers.of_user(token.user_id)
    )
    if session is None:
        raise TokenUsed
    end(session, work, auth)
    auth.audit.record(work, "end_stolen_chain")
    work.publish(
        RefreshTokenReused(
            key=token.user_id,
            user_id=token.user_id,
            client_id=token.client_id,
            root_grant=token.root_grant,
            at=work.now,
        )
    )
    for identifier in identifiers:
        if identifier.is_proven_email:
            work.publish(
                SendMail(
                    template="session-theft",
                    to=Sealed.of(identifier.identifier_value),
                    variables=Sealed.of(PersonVariables().model_dump_json()),
                    client_id=token.client_id,
                )
            )


def _issue(chain: TokenFamily, grant: Grant, work: Work, auth: Auth) -> tuple[TokenView, RefreshToken]:
    """The next access and refresh token of a chain, stored, and as the app gets them."""
    access_token = AccessToken.issue(chain, grant, id=work.new_id("acstok"), at=work.now, network=network_of(work))
    text = RefreshTokenString(work.new_id("reftok"), new_key())
    refresh_token = RefreshToken.issue(chain, grant, text, access_token=access_token, at=work.now)
    auth.access_tokens.add(access_token, work)
    auth.refresh_tokens.add(refresh_token, work)
    view = TokenView(
        access_token=auth.signer.sign(access_claims(access_token)),
        expires_in=int(ACCESS_TOKEN_LIFETIME.total_seconds()),
        expires_at=access_token.expires_at,
        refresh_token=str(text),
        user_id=chain.user_id,
        client_id=chain.client_id,
    )
    return view, refresh_token


def _required(secret: Sealed | None, missing: type[Refusal], auth: Auth) -> str:
    """The plain text of a field that this grant needs; an empty one is missing (RFC 6749 section 3.1)."""
    text = "" if secret is None else auth.unseal(secret)
    if not text:
        raise missing
    return text
