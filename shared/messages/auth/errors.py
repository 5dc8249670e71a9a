"""How auth says no. Every code is stable and read by clients."""

from shared.errors import Kind, Refusal, Unavailable


class ClientNotFound(Refusal):
    """No app is registered under this id."""

    kind = Kind.NOT_FOUND


class ClientDisabled(Refusal):
    """The app may not log people in any more."""

    kind = Kind.FORBIDDEN


class ClientAlreadyExists(Refusal):
    """An app is registered under this id."""

    kind = Kind.CONFLICT


class ClientChanged(Refusal):
    """Somebody has changed the app since it was read."""

    kind = Kind.CONFLICT


class DeadLetterNotFound(Refusal):
    """There is no such letter, or not any more."""

    kind = Kind.NOT_FOUND


class InvalidCursor(Refusal):
    """No page of ours ended with it."""


class InvalidRedirectUri(Refusal):
    """Not one of the app's redirect URIs, or at its registration one that can't be."""


class UserExportNotFinished(Refusal):
    """The document is not whole yet: ``meta.waits_for`` names the services that it waits for."""

    kind = Kind.CONFLICT


class InvalidEmail(Refusal):
    """An address that can't receive mail."""


class Throttled(Refusal):
    """Too often: ``meta.retry_after`` says after how many seconds there is room again. Not kept as an answer."""

    kind = Kind.THROTTLED


class UnsupportedGrantType(Refusal):
    """Neither a code nor a refresh token; ``meta.grant_type`` says what was asked for (RFC 6749 section 5.2)."""


class CodeMissing(Refusal):
    """The grant ``authorization_code`` needs ``code``."""


class CodeVerifierMissing(Refusal):
    """The grant ``authorization_code`` needs ``code_verifier``."""


class RedirectUriMissing(Refusal):
    """The grant ``authorization_code`` needs ``redirect_uri``."""


class RefreshTokenMissing(Refusal):
    """The grant ``refresh_token`` needs ``refresh_token``."""


class MalformedCode(Refusal):
    """A code is ``<id>.<key>``."""


class MalformedRefreshToken(Refusal):
    """A refresh token is ``01.<id>.<key>``."""


class TokenNotFound(Refusal):
    """No code or refresh token has this id, or its key is another one: which of the two is not told."""

    kind = Kind.NOT_FOUND


class TokenUsed(Refusal):
    """A code or refresh token is good for one use."""

    kind = Kind.CONFLICT


class RefreshTokenStolen(TokenUsed):
    """A used refresh token came back: refused as used, and the end of its chain is stored (RFC 9700 section 4.14.2)."""

    code = "token_used"
    remembered = True


class NoCurrentSession(Refusal):
    """The caller has no session of that user: it shows no access token of theirs, or its session has been ended."""


class AuthorizationNotFound(Refusal):
    """The code or refresh token was revoked."""

    kind = Kind.NOT_FOUND


class TokenExpired(Refusal):
    """The code or refresh token is past its time."""

    kind = Kind.GONE


class IncorrectClient(Refusal):
    """The code or refresh token was made for another app."""

    kind = Kind.FORBIDDEN


class IncorrectRedirectUri(Refusal):
    """The code was asked for with another redirect URI (RFC 6749 section 4.1.3)."""


class IncorrectCodeVerifier(Refusal):
    """The verifier does not hash to the challenge (RFC 7636 section 4.6); counted, so that guessing comes to an end."""

    remembered = True


class InvalidToken(Refusal):
    """A JWT that we have not signed, or not for this, or whose time is over: which of it is not told."""

    kind = Kind.UNAUTHENTICATED


class InvalidPhoneNumber(Refusal):
    """Not a number that anybody could have, with its country code in front."""


class PhoneNumberNotAllowed(Refusal):
    """We text no numbers of this country, ``meta.country``, or none whose owner may earn by it."""

    kind = Kind.FORBIDDEN


class PhoneCodeNotFound(Refusal):
    """Code and nonce don't belong together, are used up or are out of time: which of it is not told; a guess counts."""

    kind = Kind.NOT_FOUND
    remembered = True


class IncorrectPhoneCode(Refusal):
    """The same, said to who registers."""

    kind = Kind.UNAUTHENTICATED
    remembered = True


class IncorrectPhoneNumber(Refusal):
    """The code was sent to another number."""


class FirstNameMissing(Refusal):
    """A registration needs ``first_name``."""


class LastNameMissing(Refusal):
    """A registration needs ``last_name``."""


class UserAlreadyRegistered(Refusal):
    """The number's user has a name already; the code is still good, for logging in."""

    kind = Kind.CONFLICT


class FieldRefused(Refusal):
    """A field says what it can't: an address that receives no mail, a password that is too easy to guess.

    Args:
        path: the field's name.
        message: what is wrong, without what was found there.
    """

    kind = Kind.VALIDATION_FAILED
    code = "validation_failed"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(errors=[{"path": path, "message": message}])


class OwnerNotFound(Refusal):
    """No owner has this id."""

    kind = Kind.NOT_FOUND


class ApplicationNotFound(Refusal):
    """No application has this API key."""

    kind = Kind.NOT_FOUND


class ApplicationUserNotFound(Refusal):
    """No user of the application has this id."""

    kind = Kind.NOT_FOUND


class EmailTaken(Refusal):
    """Another owner, or another user of the application, has this address."""

    kind = Kind.CONFLICT


class AppnameTaken(Refusal):
    """The owner has another application of this name."""

    kind = Kind.CONFLICT


class MalformedApiKey(Refusal):
    """An API key that nobody can have; nothing was looked up."""

    kind = Kind.UNAUTHENTICATED


class WrongCredentials(Refusal):
    """No such address, or another password: which of the two is not told. Counted, so that guessing comes to an end."""

    kind = Kind.UNAUTHENTICATED
    remembered = True


class NotLoggedIn(Refusal):
    """The token of an application's user is not ours, or its time is over, or it was ended: which of it is not told."""

    kind = Kind.UNAUTHENTICATED


class PasswordRequired(Refusal):
    """The application was not made for logging in without a password."""

    kind = Kind.FORBIDDEN


class ApplicationUserNotActive(Refusal):
    """The user has been deactivated."""

    kind = Kind.FORBIDDEN


class ApplicationUserEnded(Refusal):
    """The user's end date has passed."""

    kind = Kind.FORBIDDEN


class ApplicationEnded(Refusal):
    """The application's end date has passed."""

    kind = Kind.FORBIDDEN


class NoSigningKey(Unavailable):
    """The key that signed is withdrawn, and the next one not known here yet: a matter of milliseconds."""

    code = "unavailable"
