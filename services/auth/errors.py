"""How auth says no. Every code is stable and read by clients."""

from shared.errors import Kind, Refusal


class ClientNotFound(Refusal):
    """No app is registered under this id."""

    kind = Kind.NOT_FOUND


class ClientDisabled(Refusal):
    """The app may not log people in any more."""

    kind = Kind.FORBIDDEN


class ClientAlreadyExists(Refusal):
    """An app is registered under this id."""

    kind = Kind.CONFLICT


class InvalidRedirectUri(Refusal):
    """Not one of the app's redirect URIs, or at its registration one that can't be."""


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
