"""Login by phone: a code in a text, then an access token or a registration."""

from typing import Annotated, Final

from pydantic import Field

from shared.messages.auth import errors
from shared.messages.message import Command, Reply
from shared.messages.types import Locale, MaxPlain, Sealed, TypedNumber, UserId

MAX_NAME_LENGTH: Final = 200
"""Maximum length of a first or last name, in characters."""
Name = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
MAX_LOCALES: Final = 10
PhoneSecret = Annotated[Sealed, MaxPlain(128)]
"""A code or a nonce."""
AppName = Annotated[str, Field(max_length=200)]


class NonceView(Reply):
    """The nonce that belongs to a code."""

    nonce: str
    """Nonce to send together with the code: 32 hex digits."""


class SendPhoneCode(
    Command,
    wire="auth.send-phone-code",
    reply_sealed=True,
    personal=True,
    reply=NonceView,
    refuses=(errors.InvalidPhoneNumber, errors.PhoneNumberNotAllowed, errors.Throttled),
):
    """Text a login code to a phone number.

    The code has six digits and works once, for ten minutes, together with the nonce in the response.
    """

    phone_number: TypedNumber
    """International number with country code, with or without ``+`` and separators."""
    locales: Annotated[tuple[Locale, ...], Field(max_length=MAX_LOCALES)] = ()
    """Languages of the recipient by preference, from the request's header ``accept-language``."""


class PhoneTokenView(Reply):
    """A token from a login by phone."""

    token: str
    """JWT, valid for 24 hours. An access token if the app is a registered client; otherwise its header ``typ`` is
    ``phone+jwt``, and it is no bearer token of this API."""


class VerifyPhoneCode(
    Command,
    wire="auth.verify-phone-code",
    reply_sealed=True,
    reply=PhoneTokenView,
    refuses=(errors.PhoneCodeNotFound, errors.ClientDisabled, errors.Throttled),
):
    """Exchange a code for a token. Uses up the code, and creates the user if the number is new."""

    clientid: AppName | None = None
    """Name of the app, which becomes the token's ``aud``. With the ID of a registered client the token is an access
    token for the whole API. With any other name its ``typ`` is ``phone+jwt``, and no method takes it. If the name is
    null, empty or omitted, the claims ``clientid`` and ``aud`` are empty."""

    code: PhoneSecret
    """Code from the text."""
    nonce: PhoneSecret
    """Nonce from ``/init``."""


class PhoneUserView(Reply):
    """A user who registered by phone."""

    id: str
    """ID of the user."""
    first_name: str
    """First name."""
    last_name: str
    """Last name."""
    phone_number: str
    """Phone number in E.164: ``+41791234567``."""


class RegisterPhoneUser(
    Command,
    wire="auth.register-phone-user",
    personal=True,
    reply=PhoneUserView,
    refuses=(
        errors.FirstNameMissing,
        errors.LastNameMissing,
        errors.IncorrectPhoneCode,
        errors.InvalidPhoneNumber,
        errors.IncorrectPhoneNumber,
        errors.UserAlreadyRegistered,
        errors.Throttled,
    ),
):
    """Register the user of a phone number.

    Uses up the code, creates the user if the number is new, and stores the name.
    """

    code: PhoneSecret
    """Code from the text."""
    nonce: PhoneSecret
    """Nonce from ``/init``."""
    first_name: Name = ""
    """First name, at most 200 characters. White space around it is removed; an empty name counts as missing."""
    last_name: Name = ""
    """Last name, at most 200 characters. White space around it is removed; an empty name counts as missing."""
    phone_number: TypedNumber | None = None
    """Number that the code was sent to; another number is refused."""


class LogInForTesting(
    Command,
    wire="auth.log-in-for-testing",
    reply_sealed=True,
    reply=PhoneTokenView,
    refuses=(errors.UserNotFound, errors.ClientDisabled),
):
    """Log in any user without a code, for tests."""

    clientid: Annotated[AppName, Field(min_length=1)]
    """Name of the app, as for ``/verify``."""

    userid: UserId
