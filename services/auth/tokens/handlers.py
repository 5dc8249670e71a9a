"""Handler of ``authenticate_user``: login with a code, and refresh of a token family."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.login_steps import login_step
from services.auth.magic_links.models import TYPED_CODE_PURPOSE, Authorization, typed_digits
from services.auth.rate_limits.known_devices import device_ids
from services.auth.rate_limits.limiter import Quota
from services.auth.rate_limits.models import LimitName
from services.auth.sessions.handlers import end_session, find_session, network_of, revoke_access_tokens
from services.auth.tokens.credentials import Code, RefreshTokenString, new_key
from services.auth.tokens.models import ACCESS_TOKEN_LIFETIME, AccessToken, Grant, RefreshToken, TokenFamily
from services.auth.tokens.signer import access_claims
from services.auth.users.handlers import create_user, verify_identifier
from services.auth.users.models import Identifier
from shared.bus.handling import without_search
from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages import Sealed
from shared.messages.auth.errors import (
    CodeMissing,
    CodeVerifierMissing,
    IncorrectCode,
    IncorrectCodeVerifier,
    RedirectUriMissing,
    RefreshTokenMissing,
    RefreshTokenStolen,
    TokenNotFound,
    TokenUsed,
    UnsupportedGrantType,
)
from shared.messages.auth.magic_links import Device
from shared.messages.auth.tokens import AuthenticateUser, RedeemGrant, RefreshTokenReused, TokenView, UserAuthenticated
from shared.messages.billing.trials import RedeemTrial
from shared.messages.mailer.mails import PersonVariables, SendMail
from shared.sealing import CannotUnseal

Claims = Mapping[str, Any]
SUCCESSORS: Final = "auth.successors"
"""Sealing purpose of the replies stored for repeated requests; no other secret of auth is sealed for it."""


@without_search
@audited("authenticate_user")
async def authenticate_user(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Exchange the code of a link or a refresh token for an access token and a refresh token.

    Raises:
        Refusal: as for ``_exchange``.
    """
    return await _exchange(command, work, auth)


@without_search
@audited("authenticate_user")
async def redeem_grant(command: RedeemGrant, work: Work, auth: Auth) -> TokenView:
    """Exchange the code of a link, a typed code or a refresh token for an access token and a refresh token.

    Raises:
        Refusal: as for ``_exchange``.
    """
    return await _exchange(command, work, auth)


async def _exchange(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Exchange a grant for tokens.

    Raises:
        UnsupportedGrantType: ``grant_type`` is neither ``authorization_code`` nor ``refresh_token``.
        Throttled: too many unknown codes and refresh tokens from this network.
        Refusal: as for ``_redeem_code`` and ``_refresh``.
    """
    try:
        match command.grant_type:
            case "authorization_code":
                return await _redeem_code(command, work, auth)
            case "refresh_token":
                return await _refresh(command, work, auth)
            case _:
                raise UnsupportedGrantType
    except TokenNotFound:
        # Counted by network and not by the ID in the code: IDs can be guessed, so strangers could void any code.
        (await auth.rate_limits.quota({"wrong-keys-per-prefix": work.caller.client_ip}, work)).take()
        raise


@login_step("mail", "redeemed")
@audited("log_in")
async def _redeem_code(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Log a user in with a code from a mail and the verifier of its request; create the user at the first login.

    The code of a link names its authorization. A typed code has too few digits for that: the verifier names it, which
    only the device has that requested the mail.

    Raises:
        CodeMissing, CodeVerifierMissing, RedirectUriMissing, MalformedCode: the request is incomplete.
        TokenNotFound: the code, or the verifier of a typed code, is unknown.
        Refusal: as for ``_redeem_link``, ``_redeem_typed_code`` and ``Client.must_be_enabled``.
    """
    code = _required(command.code, CodeMissing, auth)
    code_verifier = _required(command.code_verifier, CodeVerifierMissing, auth)
    digits = typed_digits(code) if isinstance(command, RedeemGrant) else None
    if digits is None and isinstance(command, RedeemGrant):
        # Mistyped digits are no code of a link, for which alone a redirect URI is needed.
        Code.parse(code)
    if digits is None and not command.redirect_uri:
        raise RedirectUriMissing
    authorization = await (
        auth.authorizations.get_by_code(Code.parse(code))
        if digits is None
        else auth.authorizations.get_by_verifier(code_verifier)
    )
    work.annotate(client_id=authorization.client_id, session_id=authorization.id)
    address, known = authorization.identifier_value, device_ids(authorization.device)
    # Apart from each other: a stranger can order a code for an address and guess at it, but has no link to do so.
    limits: dict[LimitName, str | None] = (
        {"guesses-per-identifier": address}
        if digits is None
        else {"typed-codes-per-address": address, "wrong-keys-per-prefix": work.caller.client_ip}
    )
    # Apart from the gathered reads, since it hardly ever reads anything, and a task costs more than that.
    client = await auth.clients.get_recent(authorization.client_id)
    identifier, others, guesses, recognition = await asyncio.gather(
        auth.identifiers.find_by_value(authorization.identifier_type, address),
        auth.authorizations.open_others(authorization, at=work.now),
        auth.rate_limits.quota(limits, work, device_ids=() if digits is None else known),
        auth.rate_limits.recognize(address, known),
    )
    redeemed = (
        _redeem_link(authorization, others, command, work, auth, verifier=code_verifier, guesses=guesses)
        if digits is None
        else _redeem_typed_code(authorization, command, work, auth, digits=digits, guesses=guesses)
    )
    client.must_be_enabled()

    auth.authorizations.save(redeemed, work)
    for other in others:
        if other.competes_with(authorization):
            auth.authorizations.save(other.revoke(at=work.now), work)
    recognition.remember(work)
    user_id = _verified_user(redeemed, identifier, work, auth)
    work.annotate(user_id=user_id)
    work.publish(UserAuthenticated(key=user_id, user_id=user_id, client_id=client.id, at=work.now))
    if redeemed.trial is not False:
        _redeem_trial(redeemed, user_id, work)
    family = TokenFamily.begin(redeemed, user_id, at=work.now)
    claims = await auth.entitlements.claims(client, user_id)
    access_token = _issue_access_token(family, family.root_grant, work)
    string = RefreshTokenString(work.new_id("reftok"), new_key())
    token = RefreshToken.issue(family, string, access_token, at=work.now)
    auth.refresh_tokens.add(token, work)
    return _view(access_token, string, auth, claims=claims)


def _redeem_link(
    authorization: Authorization,
    others: Sequence[Authorization],
    command: AuthenticateUser,
    work: Work,
    auth: Auth,
    *,
    verifier: str,
    guesses: Quota,
) -> Authorization:
    """Mark the authorization as used if the verifier is right; count a wrong one.

    A wrong one changes the versions of all open authorizations of the address, ``others`` being those beside this one.
    So if a right one is handled at the same time, it is compared again, after the wrong one is counted. A right one
    needs no write for that.

    Raises:
        Throttled: too many wrong code verifiers for the codes of this address.
        Refusal: as for ``Authorization.redeem``.
    """
    guesses.require()
    try:
        return authorization.redeem(
            client_id=command.client_id,
            redirect_uri=command.redirect_uri or "",
            code_verifier=verifier,
            at=work.now,
        )
    except IncorrectCodeVerifier:
        guesses.take()
        wrong = authorization.count_wrong_verifier(max_count=auth.guesses_per_code, at=work.now)
        auth.authorizations.save(wrong, work)
        for other in others:
            auth.authorizations.save(other, work)
        raise


def _redeem_typed_code(
    authorization: Authorization, command: AuthenticateUser, work: Work, auth: Auth, *, digits: str, guesses: Quota
) -> Authorization:
    """Mark the authorization as used if the digits are right; count wrong ones.

    Right digits and wrong ones write the same version of the authorization. So of parallel guesses each is compared
    after those before it are counted.

    The first guess at a code is compared even if a limit is reached. Otherwise a stranger who orders codes for
    somebody's address and guesses at them could lock that person out.

    Raises:
        IncorrectCode: the digits are wrong.
        Throttled: too many wrong codes for this address or from this network.
        Refusal: as for ``Authorization.open_typed_code``.
    """
    typed_code = authorization.open_typed_code(
        client_id=command.client_id, redirect_uri=command.redirect_uri, at=work.now
    )
    if typed_code.wrong:
        guesses.require()
    if not auth.sealer.matches(TYPED_CODE_PURPOSE, typed_code.hash, digits.encode(), authorization.id.encode()):
        guesses.count()
        wrong = authorization.count_wrong_code(max_count=auth.guesses_per_code, at=work.now)
        auth.authorizations.save(wrong, work)
        raise IncorrectCode(guesses_left=max(0, auth.guesses_per_code - typed_code.wrong - 1))
    guesses.hold()
    return authorization.use(at=work.now)


def _redeem_trial(authorization: Authorization, user_id: str, work: Work) -> None:
    device = authorization.device or Device()
    work.publish(
        RedeemTrial(
            key=user_id,
            user_id=user_id,
            email=authorization.identifier_value,
            beak_id=device.beak_id,
            fingerprint=device.fingerprint,
            # A link of an earlier release may be one of a trial or not.
            starts=authorization.trial is not None,
        )
    )


def _verified_user(authorization: Authorization, identifier: Identifier | None, work: Work, auth: Auth) -> str:
    """Mark the address as verified, creating its user if there is none, and return the user's ID."""
    if identifier is None:
        identifier = create_user(authorization.identifier_value, work, auth, verified=True)
    else:
        verify_identifier(identifier, work, auth)
    return identifier.user_id


@audited("refresh")
async def _refresh(command: AuthenticateUser, work: Work, auth: Auth) -> TokenView:
    """Exchange a refresh token for its successor, and revoke the access token that was issued with it.

    Raises:
        RefreshTokenMissing, MalformedRefreshToken: the request is incomplete.
        TokenNotFound: the refresh token is unknown.
        RefreshTokenStolen, TokenUsed: it was used before, and so was its successor.
        Refusal: as for ``RefreshToken.must_be_open`` and ``Client.must_be_enabled``.
    """
    string = RefreshTokenString.parse(_required(command.refresh_token, RefreshTokenMissing, auth))
    token = await auth.refresh_tokens.get_by_string(string)
    work.annotate(user_id=token.user_id, client_id=token.client_id, session_id=token.root_grant.value)
    if not token.is_unused(string):
        return await _repeat_or_revoke(token, string, command, work, auth)
    token.must_be_open(client_id=command.client_id, at=work.now)
    client = await auth.clients.get_recent(token.client_id)
    client.must_be_enabled()
    older = await auth.access_tokens.issued_with(token)
    claims = await auth.entitlements.claims(client, token.user_id)

    revoke_access_tokens(token, older, work, auth)
    access_token = _issue_access_token(token.family, Grant("refresh_token", token.id), work)
    following = string.successor()
    view = _view(access_token, following, auth, claims=claims)
    auth.refresh_tokens.save(token.exchange(following, access_token, _sealed(view, auth), at=work.now), work)
    return view


async def _repeat_or_revoke(
    token: RefreshToken, string: RefreshTokenString, command: AuthenticateUser, work: Work, auth: Auth
) -> TokenView:
    """Return the same successor again while it is unused; treat any other use of a used token as theft.

    Raises:
        RefreshTokenStolen: the token was stolen.
        TokenUsed: the theft was reported before, or the reply can't be unsealed.
        TokenExpired: the successor has expired.
        Refusal: as for ``Client.must_be_enabled``.
    """
    successor = await auth.refresh_tokens.issued_for(token)
    if successor is None or not successor.may_repeat(string, client_id=command.client_id):
        await _revoke_stolen_family(token, work, auth)
        raise RefreshTokenStolen
    successor.must_be_open(client_id=command.client_id, at=work.now)
    client = await auth.clients.get_recent(token.client_id)
    client.must_be_enabled()
    view = _reply_of(successor, auth)
    if successor.is_recent(at=work.now):
        return view
    if work.now < view.expires_at:
        return view.model_copy(update={"expires_in": int((view.expires_at - work.now).total_seconds())})
    claims = await auth.entitlements.claims(client, token.user_id)
    following = RefreshTokenString.parse(view.refresh_token)
    return await _renew_access_token(successor, following, work, auth, claims=claims)


async def _renew_access_token(
    token: RefreshToken, string: RefreshTokenString, work: Work, auth: Auth, *, claims: Claims
) -> TokenView:
    """Issue another access token with an unused refresh token, since the first one expired before it was used."""
    revoke_access_tokens(token, await auth.access_tokens.issued_with(token), work, auth)
    access_token = _issue_access_token(token.family, token.grant, work)
    view = _view(access_token, string, auth, claims=claims)
    auth.refresh_tokens.save(token.renew(access_token, _sealed(view, auth)), work)
    return view


async def _revoke_stolen_family(token: RefreshToken, work: Work, auth: Auth) -> None:
    """Revoke all tokens of a family, and mail a warning to the user.

    Thief and owner both had the token, and nothing shows which of them sent it.

    Raises:
        TokenUsed: all tokens of the family are already revoked, so the theft or the logout was reported before.
    """
    session, identifiers = await asyncio.gather(
        find_session(token.user_id, token.root_grant.value, auth), auth.identifiers.of_user(token.user_id)
    )
    if session is None:
        raise TokenUsed
    end_session(session, work, auth)
    auth.audit.record(work, "end_stolen_chain")
    work.publish(
        RefreshTokenReused(
            key=token.user_id,
            user_id=token.user_id,
            client_id=token.client_id,
            root_grant=token.root_grant.value,
            at=work.now,
        )
    )
    for identifier in identifiers:
        if identifier.is_verified_email:
            work.publish(
                SendMail(
                    template="session-theft",
                    to=Sealed.of(identifier.identifier_value),
                    variables=Sealed.of_json(PersonVariables()),
                    client_id=token.client_id,
                )
            )


def _issue_access_token(family: TokenFamily, grant: Grant, work: Work) -> AccessToken:
    return AccessToken.issue(family, grant, id=work.new_id("acstok"), at=work.now, network=network_of(work))


def _view(access_token: AccessToken, string: RefreshTokenString, auth: Auth, *, claims: Claims) -> TokenView:
    return TokenView(
        access_token=auth.signer.sign_access({**access_claims(access_token), **claims}),
        expires_in=int(ACCESS_TOKEN_LIFETIME.total_seconds()),
        expires_at=access_token.expires_at,
        refresh_token=str(string),
        user_id=access_token.user_id,
        client_id=access_token.client_id,
    )


def _sealed(view: TokenView, auth: Auth) -> str:
    return auth.sealer.seal(SUCCESSORS, view.model_dump_json().encode())


def _reply_of(token: RefreshToken, auth: Auth) -> TokenView:
    """The reply to the refresh that issued this token.

    Raises:
        TokenUsed: the sealing key is no longer held, so the person has to log in again.
    """
    try:
        return TokenView.model_validate_json(auth.sealer.unseal(SUCCESSORS, token.sealed_reply or ""))
    except CannotUnseal:
        raise TokenUsed from None


def _required(secret: Sealed | None, missing: type[Refusal], auth: Auth) -> str:
    """Unseal a field that this grant requires; an empty value counts as missing (RFC 6749 section 3.1)."""
    text = "" if secret is None else auth.unseal(secret)
    if not text:
        raise missing
    return text
