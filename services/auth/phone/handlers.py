"""Handlers of login and registration by phone number, with a texted code."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Counter

from services.auth.audit.recorder import audited
from services.auth.clients.models import Client
from services.auth.context import Auth
from services.auth.login_steps import login_step
from services.auth.phone.models import TOKEN_LIFETIME, PhoneCode, new_code, new_nonce
from services.auth.rate_limits.known_devices import network_ids
from services.auth.rate_limits.models import LimitName
from services.auth.sessions.handlers import network_of
from services.auth.tokens.credentials import hash_key
from services.auth.tokens.models import AccessToken, Grant, TokenFamily
from services.auth.tokens.signer import PHONE_TYPE, access_claims
from services.auth.users.handlers import create_user, verify_identifier
from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages import Sealed
from shared.messages.auth.errors import (
    FirstNameMissing,
    IncorrectPhoneCode,
    IncorrectPhoneNumber,
    LastNameMissing,
    PhoneCodeNotFound,
    UserNotFound,
)
from shared.messages.auth.phone import (
    LogInForTesting,
    NonceView,
    PhoneTokenView,
    PhoneUserView,
    RegisterPhoneUser,
    SendPhoneCode,
    VerifyPhoneCode,
)
from shared.messages.auth.tokens import UserAuthenticated
from shared.messages.mailer.texts import LoginCodeVariables, SendText
from shared.phone_numbers import PhoneNumber

TEXTS: Final = Counter("nest_auth_texts", "Ordered texts by country of the number (ISO 3166-1).", ["country"])
CODE_HASH_PURPOSE: Final = "phone codes"
"""Purpose of the key with which codes are hashed."""


@login_step("phone", "asked")
@audited("send_phone_code")
async def send_phone_code(command: SendPhoneCode, work: Work, auth: Auth) -> NonceView:
    """Text a code to a number, and return the nonce with which it can be redeemed.

    The number is not looked up, so neither the reply nor its timing shows whether it has a user.

    Raises:
        InvalidPhoneNumber, PhoneNumberNotAllowed: the number can't be texted.
        Throttled: too many texts to this number, from this network, to this country or of this deployment.
        Unavailable: the text would arrive too late.
    """
    number = PhoneNumber.parse(command.phone_number)
    auth.text_policy.must_allow(number)
    auth.mail_backlog.must_be_short(auth.phone_code_lifetime)
    client_ip = work.caller.client_ip
    subjects: dict[LimitName, str | None] = {
        "texts-per-number": number.e164,
        "texts-per-prefix": client_ip,
        "texts-per-country": number.country,
        "texts-per-deployment": "",
    }
    quota = await auth.rate_limits.quota(subjects, work, device_ids=network_ids(client_ip))
    quota.take()
    TEXTS.labels(number.country).inc()
    code, nonce = new_code(), new_nonce()
    phone_code = PhoneCode(
        id=work.new_id("phonecode"),
        nonce_hash=hash_key(nonce),
        code_hash=auth.sealer.keyed_hash(CODE_HASH_PURPOSE, *_hashed_parts(code, nonce, number.e164)),
        phone_number=number.e164,
        created_at=work.now,
        expires_at=work.now + auth.phone_code_lifetime,
    )
    auth.phone_codes.add(phone_code, work)
    work.annotate(session_id=phone_code.id)
    variables = LoginCodeVariables(code=code, minutes=int(auth.phone_code_lifetime.total_seconds()) // 60)
    work.publish(
        SendText(
            template="login-code",
            to=Sealed.of(number.e164),
            variables=Sealed.of_json(variables),
            ordered_at=work.now,
            expires_at=phone_code.expires_at,
            locale=command.locales[0] if command.locales else None,
            other_locales=command.locales[1:],
        )
    )
    return NonceView(nonce=nonce)


@login_step("phone", "redeemed")
@audited("verify_phone_code")
async def verify_phone_code(command: VerifyPhoneCode, work: Work, auth: Auth) -> PhoneTokenView:
    """Log in the person who requested the code and received it; create the user at the first login.

    Raises:
        ClientDisabled: the app is disabled; the code stays open.
        PhoneCodeNotFound: the code is wrong, or there is no open code for this nonce.
        Throttled: too many wrong codes for the number.
    """
    client_id = command.clientid or ""
    client, phone_code = await asyncio.gather(
        auth.clients.find(client_id), auth.phone_codes.find(auth.unseal(command.nonce))
    )
    # Apps that only read the token's claims may use any name, or none. To call Nest with the token, an app needs the ID
    # of a registered client.
    if client is not None:
        work.annotate(client_id=client.id)
        client.must_be_enabled()
    redeemed = await _redeem(phone_code, command, work, auth, refusal=PhoneCodeNotFound)
    identifier = await auth.identifiers.find_by_value("phone", redeemed.phone_number)

    auth.phone_codes.save(redeemed, work)
    if identifier is None:
        identifier = create_user(redeemed.phone_number, work, auth, verified=True, identifier_type="phone")
    else:
        verify_identifier(identifier, work, auth)
    return await _log_in(identifier.user_id, client_id, Grant("phone_code", redeemed.id), work, auth, client=client)


@audited("register_phone_user")
async def register_phone_user(command: RegisterPhoneUser, work: Work, auth: Auth) -> PhoneUserView:
    """Set the name of the user of a number; create the user if there is none.

    Raises:
        FirstNameMissing, LastNameMissing, InvalidPhoneNumber: the request is invalid; the code stays open.
        IncorrectPhoneCode: the code is wrong, or there is no open code for this nonce.
        Throttled: too many wrong codes for the number.
        IncorrectPhoneNumber: the code was texted to another number; it stays open.
        UserAlreadyRegistered: the user of the number has a name; the code stays open.
    """
    first_name, last_name = command.first_name.strip(), command.last_name.strip()
    if not first_name:
        raise FirstNameMissing
    if not last_name:
        raise LastNameMissing
    number = None if command.phone_number is None else PhoneNumber.parse(command.phone_number)
    phone_code = await auth.phone_codes.find(auth.unseal(command.nonce))
    redeemed = await _redeem(phone_code, command, work, auth, refusal=IncorrectPhoneCode)
    if number is not None and number.e164 != redeemed.phone_number:
        raise IncorrectPhoneNumber
    identifier = await auth.identifiers.find_by_value("phone", redeemed.phone_number)

    auth.phone_codes.save(redeemed, work)
    if identifier is None:
        identifier = create_user(
            redeemed.phone_number,
            work,
            auth,
            verified=True,
            identifier_type="phone",
            first_name=first_name,
            last_name=last_name,
        )
    else:
        user = await auth.users.get(identifier.user_id)
        work.annotate(user_id=user.id)
        auth.users.save(user.set_name(first_name, last_name), work)
        verify_identifier(identifier, work, auth)
    return PhoneUserView(
        id=identifier.user_id, first_name=first_name, last_name=last_name, phone_number=redeemed.phone_number
    )


@audited("log_in_for_testing")
async def log_in_for_testing(command: LogInForTesting, work: Work, auth: Auth) -> PhoneTokenView:
    """Log a user in without a code.

    Raises:
        UserNotFound: there is no such user, or ``NEST_TEST_LOGIN`` is off.
        ClientDisabled: the app is disabled.
    """
    if not auth.test_login:
        raise UserNotFound
    client, user = await asyncio.gather(auth.clients.find(command.clientid), auth.users.get(command.userid))
    work.annotate(user_id=user.id)
    if client is not None:
        work.annotate(client_id=client.id)
        client.must_be_enabled()
    auth.users.require_unchanged(user, work)
    return await _log_in(user.id, command.clientid, Grant("test_login", work.id), work, auth, client=client)


async def _redeem(
    phone_code: PhoneCode | None,
    command: VerifyPhoneCode | RegisterPhoneUser,
    work: Work,
    auth: Auth,
    *,
    refusal: type[Refusal],
) -> PhoneCode:
    """Mark the code as redeemed if the command contains the right one; count a wrong one for its nonce and number.

    The first try with a nonce is compared even if the number's limit is reached. Otherwise a stranger who requests
    codes for somebody's number and guesses at them could lock that person out.

    Raises:
        Refusal: ``refusal``, for any fault of the code.
        Throttled: too many wrong codes for the number.
    """
    if phone_code is not None:
        work.annotate(session_id=phone_code.id)
    if phone_code is None or not phone_code.is_open(max_wrong=auth.guesses_per_code, at=work.now):
        raise refusal
    device_ids = network_ids(work.caller.client_ip)
    quota, recognition = await asyncio.gather(
        auth.rate_limits.quota({"guesses-per-identifier": phone_code.phone_number}, work, device_ids=device_ids),
        auth.rate_limits.recognize(phone_code.phone_number, device_ids),
    )
    if phone_code.wrong_codes:
        quota.require()
    parts = _hashed_parts(auth.unseal(command.code), auth.unseal(command.nonce), phone_code.phone_number)
    if not auth.sealer.matches(CODE_HASH_PURPOSE, phone_code.code_hash, *parts):
        auth.phone_codes.save(phone_code.count_wrong(), work)
        quota.count()
        raise refusal
    if phone_code.wrong_codes:
        quota.hold()
    recognition.remember(work)
    return phone_code.use(at=work.now)


def _hashed_parts(code: str, nonce: str, phone_number: str) -> tuple[bytes, bytes, bytes]:
    """Input of a code's keyed hash. With nonce and number in it, equal codes of two people have different hashes."""
    return code.encode(), nonce.encode(), phone_number.encode()


async def _log_in(
    user_id: str, client_id: str, grant: Grant, work: Work, auth: Auth, *, client: Client | None
) -> PhoneTokenView:
    """Issue a token for a day, without a refresh token.

    It is an access token if the app is a registered client. Otherwise its ``typ`` is ``phone+jwt`` (RFC 8725 section
    3.11), so that no API takes it as a bearer token, even if a client is registered under the app's name later.
    """
    family = TokenFamily(
        root_grant=grant,
        client_id=client_id,
        user_id=user_id,
        began_at=work.now,
        ends_at=work.now + TOKEN_LIFETIME,
    )
    token = AccessToken.issue(
        family, grant, id=work.new_id("acstok"), at=work.now, network=network_of(work), lifetime=TOKEN_LIFETIME
    )
    auth.access_tokens.add(token, work)
    work.annotate(user_id=user_id, session_id=grant.value)
    work.publish(UserAuthenticated(key=user_id, user_id=user_id, client_id=client_id, at=work.now))
    # Phone-first apps read ``userid`` and ``clientid``; the other claims are those of every access token.
    entitlements = await auth.entitlements.claims(client, user_id)
    claims = {"userid": user_id, "clientid": client_id, **access_claims(token), **entitlements}
    if client is None:
        return PhoneTokenView(token=auth.signer.sign(claims, typ=PHONE_TYPE))
    return PhoneTokenView(token=auth.signer.sign_access(claims))
