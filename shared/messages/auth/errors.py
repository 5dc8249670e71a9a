"""Refusals of auth. Clients rely on the codes, so they never change."""

from shared.errors import Kind, NotFound, Refusal, Unavailable


class ClientNotFound(Refusal, kind=Kind.NOT_FOUND):
    """No client has this ID."""


class ClientDisabled(Refusal, kind=Kind.FORBIDDEN):
    """The client is disabled; nobody can log in through it."""


class ClientAlreadyExists(Refusal, kind=Kind.CONFLICT):
    """A client with this ID exists already."""


class ClientChanged(Refusal, kind=Kind.CONFLICT):
    """The client has changed since the ``version`` in the request."""


class DeadLetterNotFound(Refusal, kind=Kind.NOT_FOUND):
    """No dead letter has this ID, or it has expired."""


class PartitionNotPaused(Refusal, kind=Kind.NOT_FOUND):
    """The service has not paused this partition."""


class InvalidRedirectUri(Refusal):
    """The URI is not one of the client's redirect URIs, or cannot be registered as one.

    It must be https, http on loopback, or have a scheme such as `com.example.app`, without user name, password and
    fragment (RFC 8252 section 7).
    """


class UserNotFound(NotFound, code="not_found"):
    """No user has this ID, or the user was erased."""


class IdentifierNotFound(NotFound, code="not_found"):
    """No user has this address or number."""


class NoOpenMagicLink(NotFound):
    """The user has no magic link that can still be redeemed. Only the app can request another one."""


class PartialSearchDisabled(Refusal, kind=Kind.FORBIDDEN):
    """The search is for a part of an address, which ``NEST_USER_SEARCH`` does not allow. Search for a whole one."""


class SessionNotFound(NotFound, code="not_found"):
    """No user has this ID, or the user has no live session with this ID."""


class UserProcessNotFound(NotFound, code="not_found"):
    """No export or erasure has this ID, or it has expired."""


class UserExportNotFinished(Refusal, kind=Kind.CONFLICT):
    """The export is still running; ``meta.waits_for`` lists the services that have not finished."""


class InvalidEmail(Refusal):
    """The address cannot receive mail."""


class Throttled(Refusal, kind=Kind.THROTTLED):
    """A rate limit is exceeded; retry after ``meta.retry_after`` seconds. Not stored for the idempotency key."""


class UnsupportedGrantType(Refusal):
    """``grant_type`` is neither ``authorization_code`` nor ``refresh_token`` (RFC 6749 section 5.2)."""


class CodeMissing(Refusal):
    """The grant ``authorization_code`` needs ``code``."""


class CodeVerifierMissing(Refusal):
    """The grant ``authorization_code`` needs ``code_verifier``."""


class RedirectUriMissing(Refusal):
    """The grant ``authorization_code`` needs ``redirect_uri``."""


class RefreshTokenMissing(Refusal):
    """The grant ``refresh_token`` needs ``refresh_token``."""


class MalformedCode(Refusal):
    """The code does not have the form ``<id>.<key>``, nor is it a typed code of six digits."""


class MalformedRefreshToken(Refusal):
    """The refresh token does not have the form ``01.<id>.<key>``."""


class TokenNotFound(Refusal, kind=Kind.NOT_FOUND):
    """No such code or refresh token. The response is the same for an unknown ID and a wrong key."""


class IncorrectCode(Refusal, remembered=True):
    """The typed code is wrong; ``meta.guesses_left`` more may be typed before a new mail is needed."""


class TokenUsed(Refusal, kind=Kind.CONFLICT):
    """The code or refresh token was used before."""


class RefreshTokenStolen(TokenUsed, code="token_used", remembered=True):
    """A used refresh token was used again: its token family is revoked (RFC 9700 section 4.14.2).

    Clients get the code of ``TokenUsed``; the revocation is stored although the message is refused.
    """


class NoCurrentSession(Refusal):
    """The request has no access token of this user, or the token's session has ended."""


class AuthorizationNotFound(Refusal, kind=Kind.NOT_FOUND):
    """The code or refresh token was revoked."""


class TokenExpired(Refusal, kind=Kind.GONE):
    """The code or refresh token has expired."""


class IncorrectClient(Refusal, kind=Kind.FORBIDDEN):
    """The code or refresh token was issued to another client."""


class IncorrectRedirectUri(Refusal):
    """The code was issued for another redirect URI (RFC 6749 section 4.1.3)."""


class IncorrectCodeVerifier(Refusal, remembered=True):
    """The verifier does not match the code challenge (RFC 7636 section 4.6). Wrong verifiers count."""


class InvalidToken(Refusal, kind=Kind.UNAUTHENTICATED):
    """The JWT has an invalid signature, the wrong type or purpose, or has expired."""


class InvalidPhoneNumber(Refusal):
    """The phone number is missing, or not a possible number with country code."""


class PhoneNumberNotAllowed(Refusal, kind=Kind.FORBIDDEN):
    """No texts are sent to numbers of this country (``meta.country``) or of this kind (premium rate)."""


class PhoneCodeNotFound(Refusal, kind=Kind.NOT_FOUND, remembered=True):
    """Code and nonce do not match, are used or have expired; the response does not say which. Wrong codes count."""


class IncorrectPhoneCode(Refusal, kind=Kind.UNAUTHENTICATED, remembered=True):
    """Code and nonce do not match, are used or have expired; the response does not say which. Wrong codes count."""


class IncorrectPhoneNumber(Refusal):
    """The code was sent to another number."""


class FirstNameMissing(Refusal):
    """A registration needs ``first_name``."""


class LastNameMissing(Refusal):
    """A registration needs ``last_name``."""


class UserAlreadyRegistered(Refusal, kind=Kind.CONFLICT):
    """The number's user has a name already. The code stays valid for a login."""


class FieldRefused(Refusal, kind=Kind.VALIDATION_FAILED, code="validation_failed"):
    """A field is invalid; ``meta.errors`` has its ``path`` and a ``message``, never the value.

    Args:
        path: name of the field.
        message: error in words, without the value.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(errors=[{"path": path, "message": message}])


class OwnerNotFound(Refusal, kind=Kind.NOT_FOUND):
    """No owner has this ID."""


class ApplicationNotFound(Refusal, kind=Kind.NOT_FOUND):
    """No application has this API key."""


class ApplicationUserNotFound(Refusal, kind=Kind.NOT_FOUND):
    """The application has no user with this ID."""


class EmailTaken(Refusal, kind=Kind.CONFLICT):
    """Another owner, or another user of the application, has this address."""


class AppnameTaken(Refusal, kind=Kind.CONFLICT):
    """The owner has another application with this name."""


class MalformedApiKey(Refusal, kind=Kind.UNAUTHENTICATED):
    """The API key has an invalid form or checksum."""


class WrongCredentials(Refusal, kind=Kind.UNAUTHENTICATED, remembered=True):
    """Unknown address or wrong password; the response does not say which. Wrong passwords count."""


class NotLoggedIn(Refusal, kind=Kind.UNAUTHENTICATED):
    """The token is missing, invalid, expired or revoked; the response does not say which."""


class LinkNotValid(Refusal, kind=Kind.UNAUTHENTICATED):
    """The mailed link is malformed, unknown, used or expired; the response does not say which."""


class AddressNotVerified(Refusal, kind=Kind.FORBIDDEN):
    """The application lets in only users whose address is proven."""


class PasswordRequired(Refusal, kind=Kind.FORBIDDEN):
    """The application does not allow logins without a password, or the user has changed the password."""


class ApplicationUserNotActive(Refusal, kind=Kind.FORBIDDEN):
    """The user is deactivated."""


class ApplicationUserEnded(Refusal, kind=Kind.FORBIDDEN):
    """The user's end date has passed."""


class ApplicationEnded(Refusal, kind=Kind.FORBIDDEN):
    """The application's end date has passed."""


class NoSigningKey(Unavailable, code="unavailable"):
    """The signing key was withdrawn, and its successor has not reached this instance yet; takes milliseconds."""
