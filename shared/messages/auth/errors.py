"""Refusals of auth. Clients rely on the codes, so they never change."""

from shared.errors import Kind, NotFound, Refusal, Unavailable


class ClientNotFound(Refusal):
    """No client has this ID."""

    kind = Kind.NOT_FOUND


class ClientDisabled(Refusal):
    """The client is disabled; nobody can log in through it."""

    kind = Kind.FORBIDDEN


class ClientAlreadyExists(Refusal):
    """A client with this ID exists already."""

    kind = Kind.CONFLICT


class ClientChanged(Refusal):
    """The client has changed since the ``version`` in the request."""

    kind = Kind.CONFLICT


class DeadLetterNotFound(Refusal):
    """No dead letter has this ID, or it has expired."""

    kind = Kind.NOT_FOUND


class InvalidRedirectUri(Refusal):
    """The URI is not one of the client's redirect URIs, or cannot be registered as one."""


class UserNotFound(NotFound):
    """No user has this ID, or the user was erased."""

    code = "not_found"


class IdentifierNotFound(NotFound):
    """No user has this address or number."""

    code = "not_found"


class SessionNotFound(NotFound):
    """No user has this ID, or the user has no live session with this ID."""

    code = "not_found"


class UserProcessNotFound(NotFound):
    """No export or erasure has this ID, or it has expired."""

    code = "not_found"


class UserExportNotFinished(Refusal):
    """The export is still running; ``meta.waits_for`` lists the services that have not finished."""

    kind = Kind.CONFLICT


class InvalidEmail(Refusal):
    """The address cannot receive mail."""


class Throttled(Refusal):
    """A rate limit is exceeded; retry after ``meta.retry_after`` seconds. Not stored for the idempotency key."""

    kind = Kind.THROTTLED


class UnsupportedGrantType(Refusal):
    """``grant_type`` is neither ``authorization_code`` nor ``refresh_token`` (RFC 6749 section 5.2).

    ``meta.grant_type`` repeats it.
    """


class CodeMissing(Refusal):
    """The grant ``authorization_code`` needs ``code``."""


class CodeVerifierMissing(Refusal):
    """The grant ``authorization_code`` needs ``code_verifier``."""


class RedirectUriMissing(Refusal):
    """The grant ``authorization_code`` needs ``redirect_uri``."""


class RefreshTokenMissing(Refusal):
    """The grant ``refresh_token`` needs ``refresh_token``."""


class MalformedCode(Refusal):
    """The code does not have the form ``<id>.<key>``."""


class MalformedRefreshToken(Refusal):
    """The refresh token does not have the form ``01.<id>.<key>``."""


class TokenNotFound(Refusal):
    """No such code or refresh token. The response is the same for an unknown ID and a wrong key."""

    kind = Kind.NOT_FOUND


class TokenUsed(Refusal):
    """The code or refresh token was used before."""

    kind = Kind.CONFLICT


class RefreshTokenStolen(TokenUsed):
    """A used refresh token was used again: its token family is revoked (RFC 9700 section 4.14.2).

    Clients get the code of ``TokenUsed``; the revocation is stored although the message is refused.
    """

    code = "token_used"
    remembered = True


class NoCurrentSession(Refusal):
    """The request has no access token of this user, or the token's session has ended."""


class AuthorizationNotFound(Refusal):
    """The code or refresh token was revoked."""

    kind = Kind.NOT_FOUND


class TokenExpired(Refusal):
    """The code or refresh token has expired."""

    kind = Kind.GONE


class IncorrectClient(Refusal):
    """The code or refresh token was issued to another client."""

    kind = Kind.FORBIDDEN


class IncorrectRedirectUri(Refusal):
    """The code was issued for another redirect URI (RFC 6749 section 4.1.3)."""


class IncorrectCodeVerifier(Refusal):
    """The verifier does not match the code challenge (RFC 7636 section 4.6). Wrong verifiers count."""

    remembered = True


class InvalidToken(Refusal):
    """The JWT has an invalid signature, the wrong type or purpose, or has expired."""

    kind = Kind.UNAUTHENTICATED


class InvalidPhoneNumber(Refusal):
    """The phone number is missing, or not a possible number with country code."""


class PhoneNumberNotAllowed(Refusal):
    """No texts are sent to numbers of this country (``meta.country``) or of this kind (premium rate)."""

    kind = Kind.FORBIDDEN


class PhoneCodeNotFound(Refusal):
    """Code and nonce do not match, are used or have expired; the response does not say which. Wrong codes count."""

    kind = Kind.NOT_FOUND
    remembered = True


class IncorrectPhoneCode(Refusal):
    """Code and nonce do not match, are used or have expired; the response does not say which. Wrong codes count."""

    kind = Kind.UNAUTHENTICATED
    remembered = True


class IncorrectPhoneNumber(Refusal):
    """The code was sent to another number."""


class FirstNameMissing(Refusal):
    """A registration needs ``first_name``."""


class LastNameMissing(Refusal):
    """A registration needs ``last_name``."""


class UserAlreadyRegistered(Refusal):
    """The number's user has a name already. The code stays valid for a login."""

    kind = Kind.CONFLICT


class FieldRefused(Refusal):
    """A field is invalid; ``meta.errors`` has its ``path`` and a ``message``, never the value.

    Args:
        path: name of the field.
        message: what is wrong, without the value.
    """

    kind = Kind.VALIDATION_FAILED
    code = "validation_failed"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(errors=[{"path": path, "message": message}])


class OwnerNotFound(Refusal):
    """No owner has this ID."""

    kind = Kind.NOT_FOUND


class ApplicationNotFound(Refusal):
    """No application has this API key."""

    kind = Kind.NOT_FOUND


class ApplicationUserNotFound(Refusal):
    """The application has no user with this ID."""

    kind = Kind.NOT_FOUND


class EmailTaken(Refusal):
    """Another owner, or another user of the application, has this address."""

    kind = Kind.CONFLICT


class AppnameTaken(Refusal):
    """The owner has another application with this name."""

    kind = Kind.CONFLICT


class MalformedApiKey(Refusal):
    """The API key has an invalid form or checksum."""

    kind = Kind.UNAUTHENTICATED


class WrongCredentials(Refusal):
    """Unknown address or wrong password; the response does not say which. Wrong passwords count."""

    kind = Kind.UNAUTHENTICATED
    remembered = True


class NotLoggedIn(Refusal):
    """The token is invalid, expired or revoked; the response does not say which."""

    kind = Kind.UNAUTHENTICATED


class PasswordRequired(Refusal):
    """The application does not allow logins without a password."""

    kind = Kind.FORBIDDEN


class ApplicationUserNotActive(Refusal):
    """The user is deactivated."""

    kind = Kind.FORBIDDEN


class ApplicationUserEnded(Refusal):
    """The user's end date has passed."""

    kind = Kind.FORBIDDEN


class ApplicationEnded(Refusal):
    """The application's end date has passed."""

    kind = Kind.FORBIDDEN


class NoSigningKey(Unavailable):
    """The signing key was withdrawn, and its successor has not reached this instance yet; takes milliseconds."""

    code = "unavailable"
