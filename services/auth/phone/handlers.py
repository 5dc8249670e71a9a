"""How does somebody log in by phone number? A code comes by text, and whoever ordered it uses it up."""

from __future__ import annotations

import asyncio

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.phone.models import TOKEN_LIFE, PhoneCode, PhoneNumber, new_code, new_nonce
from services.auth.rate_limits.limiter import network_ids
from services.auth.sessions.handlers import network_of
from services.auth.tokens.credentials import hash_key
from services.auth.tokens.models import AccessToken, Grant, TokenFamily
from services.auth.tokens.signer import access_claims
from services.auth.users.handlers import register, verify
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

HASHED = "phone codes"
"""What the key behind the codes' hashes is for."""


@audited("send_phone_code")
async def send_phone_code(command: SendPhoneCode, work: Work, auth: Auth) -> NonceView:
    """Text a code to a number, and give what it is redeemed with.

    Whether the number is known is not even looked up, so nothing about it shows.

    Raises:
        InvalidPhoneNumber, PhoneNumberNotAllowed: as spoken.
        Throttled: too many texts, to this number or from this address.
    """
    number = PhoneNumber.parse(command.phone_number)
    auth.texted.must_include(number)
    client_ip = work.caller.client_ip
    room = await auth.limits.room(
        {"texts-per-number": number.e164, "texts-per-prefix": client_ip}, work, traits=network_ids(client_ip)
    )
    room.take()
    code, nonce = new_code(), new_nonce()
    phone_code = PhoneCode.send(
        id=work.new_id("phonecode"),
        nonce_hash=hash_key(nonce),
        code_hash=auth.sealer.keyed_hash(HASHED, *_bound(code, nonce, number.e164)),
        phone_number=number.e164,
        life=auth.phone_code_lifetime,
        at=work.now,
    )
    auth.phone_codes.add(phone_code, work)
    work.annotate(session_id=phone_code.id)
    variables = LoginCodeVariables(code=code, minutes=int(auth.phone_code_lifetime.total_seconds()) // 60)
    work.publish(
        SendText(
            template="login-code",
            to=Sealed.of(number.e164),
            variables=Sealed.of(variables.model_dump_json()),
            ordered_at=work.now,
            expires_at=phone_code.expires_at,
            locale=command.locales[0] if command.locales else None,
            other_locales=command.locales[1:],
        )
    )
    return NonceView(nonce=nonce)


@audited("verify_phone_code")
async def verify_phone_code(command: VerifyPhoneCode, work: Work, auth: Auth) -> PhoneTokenView:
    """Log in whoever got the text and ordered it; the first time, make the user.

    Raises:
        ClientDisabled: as spoken; the code is not touched.
        PhoneCodeNotFound: no such code, or not any more.
        Throttled: too many wrong codes for the number.
    """
    client, found = await asyncio.gather(
        auth.clients.find(command.clientid), auth.phone_codes.find(auth.unseal(command.nonce))
    )
    # Any name will do for an app that only reads its token. As a bearer here it needs a registered one.
    if client is not None:
        work.annotate(client_id=client.id)
        client.must_be_enabled()
    used = await _redeem(found, command, work, auth, refusal=PhoneCodeNotFound)
    identifier = await auth.identifiers.find("phone", used.phone_number)

    auth.phone_codes.save(used, work)
    if identifier is None:
        identifier = register(used.phone_number, work, auth, verified=True, identifier_type="phone")
    else:
        verify(identifier, work, auth)
    return _log_in(identifier.user_id, command.clientid, Grant("phone_code", used.id), work, auth)


@audited("register_phone_user")
async def register_phone_user(command: RegisterPhoneUser, work: Work, auth: Auth) -> PhoneUserView:
    """Give a name to the user of a number, made if need be.

    Raises:
        FirstNameMissing, LastNameMissing, InvalidPhoneNumber: as spoken; the code is not touched.
        IncorrectPhoneCode: no such code, or not any more.
        Throttled: too many wrong codes for the number.
        IncorrectPhoneNumber: the code was sent to another number; it stays good.
        UserAlreadyRegistered: the number's user has a name; the code stays good.
    """
    first_name, last_name = command.first_name.strip(), command.last_name.strip()
    if not first_name:
        raise FirstNameMissing
    if not last_name:
        raise LastNameMissing
    number = None if command.phone_number is None else PhoneNumber.parse(command.phone_number)
    found = await auth.phone_codes.find(auth.unseal(command.nonce))
    used = await _redeem(found, command, work, auth, refusal=IncorrectPhoneCode)
    if number is not None and number.e164 != used.phone_number:
        raise IncorrectPhoneNumber
    identifier = await auth.identifiers.find("phone", used.phone_number)

    auth.phone_codes.save(used, work)
    if identifier is None:
        identifier = register(
            used.phone_number,
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
        auth.users.save(user.introduce(first_name, last_name), work)
        verify(identifier, work, auth)
    return PhoneUserView(
        id=identifier.user_id, first_name=first_name, last_name=last_name, phone_number=used.phone_number
    )


@audited("log_in_for_testing")
async def log_in_for_testing(command: LogInForTesting, work: Work, auth: Auth) -> PhoneTokenView:
    """Log a user in because somebody says so.

    Raises:
        UserNotFound: there is no such user, or the settings don't allow this.
        ClientDisabled: as spoken.
    """
    if not auth.test_login:
        raise UserNotFound
    client, user = await asyncio.gather(auth.clients.find(command.clientid), auth.users.get(command.userid))
    work.annotate(user_id=user.id)
    if client is not None:
        work.annotate(client_id=client.id)
        client.must_be_enabled()
    auth.users.require_unchanged(user, work)
    return _log_in(user.id, command.clientid, Grant("test_login", work.id), work, auth)


async def _redeem(
    found: PhoneCode | None,
    command: VerifyPhoneCode | RegisterPhoneUser,
    work: Work,
    auth: Auth,
    *,
    refusal: type[Refusal],
) -> PhoneCode:
    """The code that was ordered with this nonce, used up; a wrong one is counted, for its nonce and for its number.

    Each nonce has one try whatever was guessed at other codes of the number. Else whoever orders codes for a stranger's
    number and guesses at them would lock that person out.

    Raises:
        Refusal: the one given, whatever is wrong.
        Throttled: too many wrong codes for the number.
    """
    if found is not None:
        work.annotate(session_id=found.id)
    if found is None or not found.is_open(most_wrong=auth.guesses_per_code, at=work.now):
        raise refusal
    traits = network_ids(work.caller.client_ip)
    room, acquaintance = await asyncio.gather(
        auth.limits.room({"guesses-per-identifier": found.phone_number}, work, traits=traits),
        auth.limits.acquaintance(found.phone_number, traits),
    )
    if found.wrong_codes:
        room.judge()
    parts = _bound(auth.unseal(command.code), auth.unseal(command.nonce), found.phone_number)
    if not auth.sealer.matches(HASHED, found.code_hash, *parts):
        auth.phone_codes.save(found.count_wrong(), work)
        room.count()
        raise refusal
    acquaintance.remember(work)
    return found.use(at=work.now)


def _bound(code: str, nonce: str, phone_number: str) -> tuple[bytes, bytes, bytes]:
    """What a code's hash is made of: of two people who hold the same six digits, each has another hash."""
    return code.encode(), nonce.encode(), phone_number.encode()


def _log_in(user_id: str, client_id: str, grant: Grant, work: Work, auth: Auth) -> PhoneTokenView:
    """A token for a day, which nothing renews."""
    chain = TokenFamily(
        root_grant=grant.value, client_id=client_id, user_id=user_id, began_at=work.now, ends_at=work.now + TOKEN_LIFE
    )
    token = AccessToken.issue(
        chain, grant, id=work.new_id("acstok"), at=work.now, network=network_of(work), life=TOKEN_LIFE
    )
    auth.access_tokens.add(token, work)
    work.annotate(user_id=user_id, session_id=chain.root_grant)
    work.publish(UserAuthenticated(key=user_id, user_id=user_id, client_id=client_id, at=work.now))
    # Phone-first apps read the first two; the others are those of every access token.
    claims = {"userid": user_id, "clientid": client_id, **access_claims(token)}
    return PhoneTokenView(token=auth.signer.sign(claims))
