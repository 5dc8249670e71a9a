"""What auth is ordered about logins by phone number: a code by text, then a token or a registration."""

from typing import Annotated, Final

from pydantic import Field

from shared.errors import NotFound
from shared.messages.auth.errors import (
    ClientDisabled,
    FirstNameMissing,
    IncorrectPhoneCode,
    IncorrectPhoneNumber,
    InvalidPhoneNumber,
    LastNameMissing,
    PhoneCodeNotFound,
    PhoneNumberNotAllowed,
    Throttled,
    UserAlreadyRegistered,
)
from shared.messages.message import Command, Locale, NonEmpty, Reply, Sealed

MAX_NAME_LENGTH: Final = 200
"""Characters of a first or a last name."""
ClientId = Annotated[str, Field(min_length=1, max_length=200)]
"""What an app calls itself: the id of a registered client, or any other name."""
Name = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]


class NonceView(Reply):
    """What a code is redeemed with: only who ordered it knows."""

    nonce: str
    """32 hex characters."""


class SendPhoneCode(
    Command,
    wire="auth.send-phone-code",
    reply_sealed=True,
    personal=True,
    reply=NonceView,
    refuses=(
        InvalidPhoneNumber,
        PhoneNumberNotAllowed,
        Throttled,
    ),
):
    """Text a code of six digits to a number."""

    phone_number: str
    """International, with or without ``+``, with spaces or not."""
    locales: tuple[Locale, ...] = ()
    """The languages that whoever orders it understands, the dearest first, as their phone says beside the body."""


class PhoneTokenView(Reply):
    """What a login by phone gives."""

    token: str
    """An access token, valid for a day."""


class VerifyPhoneCode(
    Command,
    wire="auth.verify-phone-code",
    reply_sealed=True,
    reply=PhoneTokenView,
    refuses=(
        PhoneCodeNotFound,
        ClientDisabled,
        Throttled,
    ),
):
    """Use a code up to log in; the number's user is made if there is none."""

    code: Sealed
    nonce: Sealed
    clientid: ClientId


class PhoneUserView(Reply):
    """A user as a phone-first app knows them."""

    id: str
    first_name: str
    last_name: str
    phone_number: str
    """E.164: ``+41791234567``."""


class RegisterPhoneUser(
    Command,
    wire="auth.register-phone-user",
    personal=True,
    reply=PhoneUserView,
    refuses=(
        FirstNameMissing,
        LastNameMissing,
        IncorrectPhoneCode,
        InvalidPhoneNumber,
        IncorrectPhoneNumber,
        UserAlreadyRegistered,
        Throttled,
    ),
):
    """Use a code up to give the number's user a name; the user is made if there is none."""

    code: Sealed
    nonce: Sealed
    first_name: Name = ""
    """An empty one is missing."""
    last_name: Name = ""
    """Likewise."""
    phone_number: str | None = None
    """If it is given, it must be the one that the code was sent to."""


class LogInForTesting(
    Command,
    wire="auth.log-in-for-testing",
    reply_sealed=True,
    reply=PhoneTokenView,
    refuses=(
        NotFound,
        ClientDisabled,
    ),
):
    """Log anybody in, without any code; only where the settings allow it."""

    userid: NonEmpty
    clientid: ClientId
