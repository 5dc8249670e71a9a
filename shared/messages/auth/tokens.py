"""Access tokens and refresh tokens: issue, reuse and revocation."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.auth import errors
from shared.messages.message import Command, Event, Reply
from shared.messages.types import MaxPlain, Moment, NonEmpty, Sealed, Uri

Credential = Annotated[Sealed, MaxPlain(256)]
"""A code, a code verifier (RFC 7636: 128 characters at most) or a refresh token."""


class TokenView(Reply):
    """An access token and a refresh token (RFC 6749 section 5.1)."""

    access_token: str
    """JWT (RFC 7519) for the header ``authorization: bearer``."""
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 -- the field's standard value
    """Always ``bearer``."""
    expires_in: int
    """Lifetime of the access token in seconds."""
    expires_at: Moment
    """Expiry of the access token."""
    refresh_token: str
    """Token for the next refresh. Works once."""
    user_id: str
    """ID of the user who logged in."""
    client_id: str
    """ID of the client that the tokens were issued to."""


class AuthenticateUser(
    Command,
    wire="auth.authenticate-user",
    reply_sealed=True,
    reply=TokenView,
    refuses=(
        errors.UnsupportedGrantType,
        errors.CodeMissing,
        errors.CodeVerifierMissing,
        errors.RedirectUriMissing,
        errors.RefreshTokenMissing,
        errors.MalformedCode,
        errors.MalformedRefreshToken,
        errors.TokenNotFound,
        errors.TokenUsed,
        errors.AuthorizationNotFound,
        errors.TokenExpired,
        errors.IncorrectClient,
        errors.IncorrectRedirectUri,
        errors.IncorrectCodeVerifier,
        errors.ClientNotFound,
        errors.ClientDisabled,
        errors.Throttled,
    ),
):
    """Exchange a code or a refresh token for new tokens.

    The grant ``authorization_code`` (RFC 6749 section 4.1.3) needs ``code``, ``code_verifier`` and ``redirect_uri``;
    the grant ``refresh_token`` (section 6) needs ``refresh_token``. An empty value counts as missing (section 3.1).

    Both work once. A used refresh token may be repeated while its successor is unused, and returns the same successor;
    any other reuse revokes the whole token family.
    """

    # The fields of a grant are optional here because a missing one has a refusal of its own.
    client_id: NonEmpty
    """ID of the client that the code or the refresh token was issued to."""
    grant_type: Annotated[str, Field(max_length=64)]
    """``authorization_code`` or ``refresh_token``."""
    redirect_uri: Uri | None = None
    """For ``authorization_code``: the ``redirect_uri`` that the link was requested with."""
    code: Credential | None = None
    """For ``authorization_code``: the query parameter ``code`` of the link."""
    code_verifier: Credential | None = None
    """For ``authorization_code``: the PKCE verifier that the code challenge was computed from."""
    refresh_token: Credential | None = None
    """For ``refresh_token``: the latest refresh token. It is used up; the response has its successor."""


class RedeemGrant(
    AuthenticateUser, wire="auth.redeem-grant", refuses=(*AuthenticateUser.refuses, errors.IncorrectCode)
):
    """Exchange a code or a refresh token for new tokens.

    The grant ``authorization_code`` (RFC 6749 section 4.1.3) needs ``code`` and ``code_verifier``, and with the code of
    a link ``redirect_uri``; the grant ``refresh_token`` (section 6) needs ``refresh_token``. An empty value counts as
    missing (section 3.1).

    The code is that of the link, or the six digits that the mail shows beside it. Both redeem the same grant, which
    works once. Typed digits count for the newest request whose code challenge belongs to ``code_verifier``, so only the
    device that requested the mail can type them. Five wrong ones revoke the digits, and so does a newer request for
    the same address and client; the link still works.

    A refresh token works once. A used one may be repeated while its successor is unused, and returns the same
    successor; any other reuse revokes the whole token family.
    """

    redirect_uri: Uri | None = None
    """For ``authorization_code``: the ``redirect_uri`` that the mail was requested with. Optional with typed digits."""
    code: Credential | None = None
    """For ``authorization_code``: the query parameter ``code`` of the link, or the six digits in the mail. White space
    in the digits is ignored, and full-width and Arabic-Indic digits are accepted."""


class UserAuthenticated(Event, wire="auth.user-authenticated"):
    """A user logged in with a code."""

    user_id: str
    client_id: str
    at: Moment


class RefreshTokenReused(Event, wire="auth.refresh-token-reused"):
    """A used refresh token was used again, and its token family was revoked (RFC 9700 section 4.14.2)."""

    user_id: str
    client_id: str
    root_grant: str
    """ID of the authorization that the token family began with."""
    at: Moment


class AccessTokenRevoked(Event, wire="auth.access-token-revoked", topic="auth.revocations"):
    """An access token was revoked; gateways refuse it. The key is its ``jti``; the topic is compacted."""

    token_id: str
    """The token's ``jti``."""
    expires_at: Moment
    """Expiry of the token. Gateways forget the revocation then."""
