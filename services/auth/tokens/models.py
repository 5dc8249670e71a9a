"""How long does a login last? As a chain of tokens: each refresh uses one up and makes its successor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from services.auth.magic_links.models import Authorization
from services.auth.tokens.credentials import RefreshTokenString, hash_key
from shared.messages.auth.errors import AuthorizationNotFound, IncorrectClient, TokenExpired
from shared.messages.auth.magic_links import Platform

ACCESS_TOKEN_LIFETIME: Final = timedelta(hours=1)
REFRESH_TOKEN_LIFETIME: Final = timedelta(days=60)
"""How long a refresh token may lie unused."""
FAMILY_LIFETIME: Final = timedelta(days=365)
"""From the login on; then the person logs in anew."""
GRACE_PERIOD: Final = timedelta(seconds=30)
"""How long a used refresh token still answers with its successor: an app may lose an answer, or refresh in two tabs."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token was given for.

    Attributes:
        type: as ``grant_type`` of the request; ``phone_code`` and ``test_login`` for the logins of a phone-first app.
        value: the id of the authorization, the refresh token or the phone code that was redeemed.
    """

    type: Literal["authorization_code", "refresh_token", "phone_code", "test_login"]
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFamily:
    """What all tokens of one login share.

    Attributes:
        root_grant: the id of the authorization that began it; to the user, the session's id.
        began_at: when the person logged in.
        ends_at: when its last refresh token expires, however often it is refreshed.
        platform: what the device runs, as it said when it ordered the link.
    """

    root_grant: str
    client_id: str
    user_id: str
    began_at: datetime
    ends_at: datetime
    platform: Platform | None = None

    @classmethod
    def begin(cls, authorization: Authorization, user_id: str, *, at: datetime) -> Self:
        """The chain of a login that happens now."""
        device = authorization.device
        return cls(
            root_grant=authorization.id,
            client_id=authorization.client_id,
            user_id=user_id,
            began_at=at,
            ends_at=at + FAMILY_LIFETIME,
            platform=None if device is None else device.platform,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What stands behind an access token: its id is the token's ``jti``.

    Attributes:
        cidr_blocks: the networks it may be used from; empty for any.
        revoked_at: since when it is refused, though its time is not over.
        network: the prefix of the address it was issued to, if that was known.
    """

    id: str
    client_id: str
    user_id: str
    grant: Grant
    root_grant: str
    cidr_blocks: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    network: str | None = None
    version: int = 1

    @classmethod
    def issue(
        cls,
        chain: TokenFamily,
        grant: Grant,
        *,
        id: str,  # noqa: A002 -- the field's name
        at: datetime,
        network: str | None = None,
        life: timedelta = ACCESS_TOKEN_LIFETIME,
    ) -> Self:
        """A new one of a chain."""
        return cls(
            id=id,
            client_id=chain.client_id,
            user_id=chain.user_id,
            grant=grant,
            root_grant=chain.root_grant,
            cidr_blocks=(),
            created_at=at,
            expires_at=at + life,
            network=network,
        )

    def revoke(self, *, at: datetime) -> Self:
        """The same, refused from now on."""
        return replace(self, revoked_at=at)


@dataclass(frozen=True, slots=True)
class Successor:
    """What a used refresh token was exchanged for.

    Attributes:
        id: of the refresh token that followed.
        sealed: the whole answer, closed for auth itself: the key in it is stored nowhere else.
    """

    id: str
    sealed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """What stands behind a refresh token.

    Attributes:
        key_hash: SHA-256 of its key.
        family_began_at: ``TokenFamily.began_at``.
        family_ends_at: ``TokenFamily.ends_at``.
        platform: ``TokenFamily.platform``.
        network: the prefix of the address it was issued to, if that was known.
        access_token_id: the access token that was issued with it, and ends when it is used. None for those stored
            before this was kept.
        used_at: when it was exchanged for its successor. From then on it is revoked as well.
        successor: what it was exchanged for.
    """

    id: str
    key_hash: str
    client_id: str
    user_id: str
    grant: Grant
    root_grant: str
    cidr_blocks: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    family_began_at: datetime
    family_ends_at: datetime
    platform: Platform | None = None
    network: str | None = None
    access_token_id: str | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    successor: Successor | None = None
    version: int = 1

    @classmethod
    def issue(
        cls, chain: TokenFamily, grant: Grant, text: RefreshTokenString, *, access_token: AccessToken, at: datetime
    ) -> Self:
        """A new one of a chain, beside its access token; ``text`` is what the app will hold, its id the token's."""
        return cls(
            id=text.id,
            key_hash=hash_key(text.key),
            client_id=chain.client_id,
            user_id=chain.user_id,
            grant=grant,
            root_grant=chain.root_grant,
            cidr_blocks=(),
            created_at=at,
            expires_at=min(at + REFRESH_TOKEN_LIFETIME, chain.ends_at),
            family_began_at=chain.began_at,
            family_ends_at=chain.ends_at,
            platform=chain.platform,
            network=access_token.network,
            access_token_id=access_token.id,
        )

    @property
    def chain(self) -> TokenFamily:
        """The chain it belongs to."""
        return TokenFamily(
            root_grant=self.root_grant,
            client_id=self.client_id,
            user_id=self.user_id,
            began_at=self.family_began_at,
            ends_at=self.family_ends_at,
            platform=self.platform,
        )

    def must_be_open(self, *, client_id: str, at: datetime) -> None:
        """Let an unused token be exchanged.

        Raises:
            AuthorizationNotFound: it was revoked.
            TokenExpired: its time is over.
            IncorrectClient: it was made for another app.
        """
        if self.revoked_at is not None:
            raise AuthorizationNotFound
        if at >= self.expires_at:
            raise TokenExpired
        if client_id != self.client_id:
            raise IncorrectClient

    def use(self, successor: Successor, *, at: datetime) -> Self:
        """The same, exchanged for its successor."""
        return replace(self, used_at=at, revoked_at=at, successor=successor)

    def revoke(self, *, at: datetime) -> Self:
        """The same, refused from now on."""
        return replace(self, revoked_at=at)

    def may_repeat(self, successor: RefreshToken | None, *, client_id: str, at: datetime) -> bool:
        """Whether this use of a used token is a repeat, to be answered as the first time, and not theft.

        Args:
            successor: what it was exchanged for, as that is now.
            client_id: who asks.
            at: now.
        """
        return (
            self.used_at is not None
            and at - self.used_at <= GRACE_PERIOD
            and client_id == self.client_id
            and successor is not None
            and successor.used_at is None
            and successor.revoked_at is None
        )
