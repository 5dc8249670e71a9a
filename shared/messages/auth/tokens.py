"""TODO."""

from typing import Literal

from shared.messages.auth.errors import (
    AuthorizationNotFound,
    ClientDisabled,
    ClientNotFound,
    CodeMissing,
    CodeVerifierMissing,
    IncorrectClient,
    IncorrectCodeVerifier,
    IncorrectRedirectUri,
    MalformedCode,
    MalformedRefreshToken,
    RedirectUriMissing,
    RefreshTokenMissing,
    Throttled,
    TokenExpired,
    TokenNotFound,
    TokenUsed,
    UnsupportedGrantType,
)
from shared.messages.message import Command, Event, Moment, NonEmpty, Reply, Sealed


class TokenView(Reply):
    """An access token and what renews it (RFC 6749 section 5.1)."""

    access_token: str
    """A JWT (RFC 7519), for ``authorization: bearer``."""
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 -- the field's standard value
    expires_in: int
    """Seconds."""
    expires_at: Moment
    refresh_token: str
    """Good for one use."""
    user_id: str
    client_id: str


class AuthenticateUser(
    Command,
    wire="auth.authenticate-user",
    reply_sealed=True,
    reply=TokenView,
    refuses=(
        UnsupportedGrantType,
        CodeMissing,
        CodeVerifierMissing,
        RedirectUriMissing,
        RefreshTokenMissing,
        MalformedCode,
        MalformedRefreshToken,
        TokenNotFound,
        TokenUsed,
        AuthorizationNotFound,
        TokenExpired,
        IncorrectClient,
        IncorrectRedirectUri,
        IncorrectCodeVerifier,
        ClientNotFound,
        ClientDisabled,
        Throttled,
    ),
):
    """Redeem a code (RFC 6749 section 4.1.3) or a refresh token (section 6).

    What the grant needs and lacks is refused by name (``code_missing``), hence nothing of it is required here; an
    empty
    value counts as missing (RFC 6749 section 3.1).
    """

    client_id: NonEmpty
    """The app's that the code or the token was made for."""
    grant_type: str
    """``authorization_code`` or ``refresh_token``."""
    redirect_uri: str | None = None
    """With a code: the one that its link was ordered with."""
    code: Sealed | None = None
    """From the link in the mail."""
    code_verifier: Sealed | None = None
    """With a code: what the challenge was made of."""
    refresh_token: Sealed | None = None
    """Used up by this; the answer has its successor."""


class UserAuthenticated(Event, wire="auth.user-authenticated"):
    """Somebody logged in with a code."""

    user_id: str
    client_id: str
    at: Moment


class RefreshTokenReused(Event, wire="auth.refresh-token-reused"):
    """A used refresh token came back: the whole chain was revoked (RFC 9700 section 4.14.2)."""

    user_id: str
    client_id: str
    root_grant: str
    at: Moment


class AccessTokenRevoked(Event, wire="auth.access-token-revoked", topic="auth.revocations"):
    """An access token that gateways must refuse from now on. ``key`` is its id; the topic is compacted."""

    token_id: str
    """The token's ``jti``."""
    expires_at: Moment
    """When the token would have expired; it need not be remembered any longer."""
