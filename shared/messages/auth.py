"""What auth is ordered and asked, and what it announces: users, magic links, tokens."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.locales import Locale
from shared.messages.message import Command, Event, Moment, Part, Query, Reply, Sealed

NonEmpty = Annotated[str, Field(min_length=1)]
"""Ids that clients send are opaque: any non-empty one is looked up."""
CodeChallenge = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_-]{43}|[0-9a-f]{64})$")]
"""SHA-256 of the verifier in web-safe base64 without padding (RFC 7636 section 4.2), or in hex for old clients."""

Platform = Literal["mac", "windows", "linux"]
"""What a device runs."""


class Device(Part):
    """The device a login or a trial is asked from."""

    platform: Platform | None = None
    beak_id: str | None = None
    """The app's own installation id."""
    fingerprint: str | None = None
    """A stable hash of the hardware, made by the app."""


class LinkRequest(Command):
    """What every order of a magic link says (RFC 7636 for the code challenge)."""

    client_id: NonEmpty
    """The app's."""
    redirect_uri: str
    """One of the app's, character by character: where the link leads."""
    state: str
    """Comes back in the link, URL-encoded."""
    code_challenge_method: Literal["S256"]
    code_challenge: CodeChallenge
    identifier_type: Literal["email"]
    identifier_value: str
    """The address."""
    device: Device | None = None
    locale: Locale | None = None
    """The language that the mail is to be written in; one that there is not, or none: the app's."""


# Not ``personal``: rows keep nothing of it but a hash, and its challenge makes that one hard to guess.
class SendMagicLink(LinkRequest, wire="auth.send-magic-link"):
    """Mail a link that logs this address in. No reply body.

    Whether the address is known changes nothing, in the answer or in its time. Refused: ``client_not_found``,
    ``client_disabled``, ``invalid_redirect_uri``, ``invalid_email``, ``throttled``.
    """


class CreateTrialAndMagicLink(LinkRequest, wire="auth.create-trial-and-magic-link", personal=True):
    """Start a trial for this address and device, then mail its magic link. No reply body.

    The user is made if need be. Refused: as SendMagicLink, ``already_subscribed``, ``trial_already_used``.
    """

    device: Device


class SendTrialMagicLink(LinkRequest, wire="auth.send-trial-magic-link", personal=True):
    """Mail the magic link of a trial that has been started. No reply body."""


class AuthenticateUser(Command, wire="auth.authenticate-user", reply_sealed=True):
    """Redeem a code (RFC 6749 section 4.1.3) or a refresh token (section 6). Reply: TokenView.

    What the grant needs and lacks is refused by name (``code_missing``), hence nothing of it is required here; an empty
    value counts as missing (RFC 6749 section 3.1). Refused: ``unsupported_grant_type``, ``code_missing``,
    ``code_verifier_missing``, ``redirect_uri_missing``, ``refresh_token_missing``, ``malformed_code``,
    ``malformed_refresh_token``, ``token_not_found``, ``token_used``, ``authorization_not_found``, ``token_expired``,
    ``incorrect_client``, ``incorrect_redirect_uri``, ``incorrect_code_verifier``, ``client_not_found``,
    ``client_disabled``, ``throttled``.
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


class GetUser(Query, wire="auth.get-user", audited=True):
    """Who a user is, and how they are known. Reply: UserView. Refused: ``not_found``."""

    user_id: NonEmpty


class IdentifierView(Part):
    """An address or a number that is, or was, a user's."""

    id: str
    identifier_type: Literal["email", "phone"]
    identifier_value: str
    created_at: Moment
    updated_at: Moment
    verified_at: Moment | None
    """When somebody showed that it is theirs; null while nobody has."""
    removed_at: Moment | None
    """When it was taken from the user; null while it is theirs."""


class UserView(Reply):
    """A user with all identifiers."""

    id: str
    created_at: Moment
    identifiers: tuple[IdentifierView, ...]


class EnsureUser(Command, wire="auth.ensure-user", personal=True):
    """Find or make the user of an address; answered by UserEnsured. For other services; no reply body."""

    reference: str
    """Whatever the asking service wants to find in UserEnsured."""
    email: str


class SetMarketingConsent(Command, wire="auth.set-marketing-consent", audited=True):
    """Say which mails a user wants beside those that they need. No reply body. Refused: ``not_found``."""

    user_id: NonEmpty
    level: Literal["general", "none"]


class CreateClient(Command, wire="auth.create-client"):
    """Register an app that may log people in. Reply: ClientView.

    Refused: ``invalid_redirect_uri``, ``client_already_exists``.
    """

    name: NonEmpty
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)]
    """Matched exactly (RFC 9700 section 4.1.3)."""
    id: NonEmpty | None = None
    """An id of the operator's choice; made up when left out."""


class ClientView(Reply):
    """An app that may log people in."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    disabled: bool
    created_at: Moment
    updated_at: Moment
    version: int = 1
    """Counts the changes, from 1."""


class ClientCreated(Event, wire="auth.client-created"):
    """An app was registered. ``key`` is the client's id."""

    client_id: str


class AnnounceClient(Command, wire="auth.announce-client"):
    """Tell the gateways about an app, as it is now. ``key`` is its id. No reply body."""

    client_id: str


class ClientAnnounced(Event, wire="auth.client-announced", topic="auth.clients"):
    """An app whose access tokens gateways may take. ``key`` is its id; the topic is compacted."""

    client_id: str
    name: str
    disabled: bool
    """Then its tokens are refused."""


class UserCreated(Event, wire="auth.user-created"):
    """A user was made."""

    user_id: str
    at: Moment


class IdentifierVerified(Event, wire="auth.identifier-verified", personal=True):
    """A user has shown that an address or a number is theirs."""

    user_id: str
    identifier_id: str
    identifier_type: Literal["email", "phone"]
    identifier_value: str
    at: Moment


class UserEnsured(Event, wire="auth.user-ensured"):
    """The answer to EnsureUser."""

    reference: str
    user_id: str


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
