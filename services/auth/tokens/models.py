"""Token families: the access tokens and refresh tokens of one login.

Each refresh uses up one refresh token and issues its successor, until the family ends after a year.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from services.auth.magic_links.models import Authorization
from services.auth.tokens.credentials import RefreshTokenString, hash_key, key_matches
from shared.documents import stored_as
from shared.messages.auth.errors import AuthorizationNotFound, IncorrectClient, TokenExpired
from shared.messages.auth.magic_links import Platform

ACCESS_TOKEN_LIFETIME: Final = timedelta(hours=1)
REFRESH_TOKEN_LIFETIME: Final = timedelta(days=60)
"""An unused refresh token expires after this time."""
FAMILY_LIFETIME: Final = timedelta(days=365)
"""Counted from the login; afterwards the user has to log in again."""
GRACE_PERIOD: Final = timedelta(seconds=30)
"""How long a repeated request gets exactly the reply of the first one; later ``expires_in`` is what is left by then."""
AccessTokenType = Literal["JWT", "at+jwt"]
"""Header ``typ`` of access tokens: that of RFC 7519 section 5.1, or that of RFC 9068 section 2.1. Each other kind of
token has its own value, so that no token is accepted as another kind (RFC 8725 section 3.11)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token was issued for.

    Attributes:
        type: ``grant_type`` of the request; ``phone_code`` and ``test_login`` for logins of phone-first apps.
        value: ID of the redeemed authorization, refresh token or phone code.
    """

    type: Literal["authorization_code", "refresh_token", "phone_code", "test_login"]
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFamily:
    """Properties shared by all tokens of one login.

    Attributes:
        root_grant: what the family began with. Its value is the ID that users see as the session's ID.
        began_at: when the user logged in.
        ends_at: when the last refresh token expires, however often it is refreshed.
        platform: operating system of the device, as named in the request for the link.
    """

    root_grant: Grant
    client_id: str
    user_id: str
    began_at: datetime
    ends_at: datetime
    platform: Platform | None = None

    @classmethod
    def begin(cls, authorization: Authorization, user_id: str, *, at: datetime) -> Self:
        """The family of a login at this time."""
        device = authorization.device
        return cls(
            root_grant=Grant("authorization_code", authorization.id),
            client_id=authorization.client_id,
            user_id=user_id,
            began_at=at,
            ends_at=at + FAMILY_LIFETIME,
            platform=None if device is None else device.platform,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """Stored state of a token of either kind.

    Attributes:
        cidr_blocks: the prefix of the IP address that the token was issued to; empty if unknown. It restricts nothing.
        revoked_at: when the token was revoked before its expiry.
    """

    id: str
    client_id: str
    user_id: str
    grant: Grant
    root_grant: Grant
    cidr_blocks: tuple[str, ...] = ()
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    version: int = 1

    def revoke(self, *, at: datetime) -> Self:
        """Mark the token as revoked."""
        return replace(self, revoked_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken(_Token):
    """State of an access token; the ID is the token's ``jti``.

    It is stored with the refresh token that was issued with it, or else, after a login by phone, as a document.
    """

    @classmethod
    def issue(
        cls,
        family: TokenFamily,
        grant: Grant,
        *,
        id: str,  # noqa: A002 -- the field's name
        at: datetime,
        network: str | None = None,
        lifetime: timedelta = ACCESS_TOKEN_LIFETIME,
    ) -> Self:
        """A new access token of a family."""
        return cls(
            id=id,
            client_id=family.client_id,
            user_id=family.user_id,
            grant=grant,
            root_grant=family.root_grant,
            cidr_blocks=() if network is None else (network,),
            created_at=at,
            expires_at=at + lifetime,
        )


@dataclass(frozen=True, slots=True)
class Successor:
    """What a used refresh token of before 2026-11-30 was exchanged for: the ID of the next one.

    ``sealed`` is the ``sealed_reply`` of the next one in documents of before 2026-11-29; empty in newer ones.
    """

    id: str
    sealed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken(_Token):
    """Stored state of the newest refresh token of a family, by which used ones are recognized too.

    Before 2026-11-30 each token of a family was a document of its own, which stays as it is once the token is used.

    Attributes:
        key_hash: SHA-256 of its key.
        previous_key_hash: that of the token that was exchanged for this one; None in the first token of a family.
        family_key_hash: that of the family key; None in the first token of a family, before which none was used.
        family_began_at: ``TokenFamily.began_at``; likewise ``family_ends_at`` and ``platform``.
        access_token_id: the access token issued with it, which is revoked with this token. None in documents that are
            older than the field.
        access_token_expires_at: when that access token expires. None in documents of before 2026-11-29, whose access
            token is a document of its own.
        previous_access_token_id: the one that was issued before; gateways accept it for a second after it was revoked.
        used_at: when it was exchanged for its successor, in documents of before 2026-11-30; with ``revoked_at``.
        successor: what it was exchanged for, in such documents.
        sealed_reply: the complete reply to the refresh that issued it, for repeats of that request, sealed for auth.
            The token's key is stored nowhere else. None once it is revoked, and in the first token of a family.
    """

    key_hash: str = stored_as("key")
    previous_key_hash: str | None = stored_as("previousKey", default=None)
    family_key_hash: str | None = stored_as("chainKey", default=None)
    family_began_at: datetime = stored_as("chainBeganAt")
    family_ends_at: datetime = stored_as("chainEndsAt")
    platform: Platform | None = None
    access_token_id: str | None = None
    access_token_expires_at: datetime | None = None
    previous_access_token_id: str | None = None
    used_at: datetime | None = None
    successor: Successor | None = None
    sealed_reply: str | None = None

    @classmethod
    def issue(cls, family: TokenFamily, string: RefreshTokenString, access_token: AccessToken, *, at: datetime) -> Self:
        """The first refresh token of a family, with the ID of the string that the client gets."""
        return cls(
            id=string.id,
            key_hash=hash_key(string.key),
            client_id=family.client_id,
            user_id=family.user_id,
            grant=access_token.grant,
            root_grant=family.root_grant,
            created_at=at,
            expires_at=min(at + REFRESH_TOKEN_LIFETIME, family.ends_at),
            family_began_at=family.began_at,
            family_ends_at=family.ends_at,
            platform=family.platform,
            cidr_blocks=access_token.cidr_blocks,
            access_token_id=access_token.id,
            access_token_expires_at=access_token.expires_at,
        )

    @property
    def access_token(self) -> AccessToken | None:
        """The access token that was issued with it; None if that is a document of its own."""
        if self.access_token_id is None or self.access_token_expires_at is None:
            return None
        return AccessToken(
            id=self.access_token_id,
            client_id=self.client_id,
            user_id=self.user_id,
            grant=self.grant,
            root_grant=self.root_grant,
            cidr_blocks=self.cidr_blocks,
            created_at=self.access_token_expires_at - ACCESS_TOKEN_LIFETIME,
            expires_at=self.access_token_expires_at,
            revoked_at=self.revoked_at,
        )

    @property
    def family(self) -> TokenFamily:
        """The family of the token."""
        return TokenFamily(
            root_grant=self.root_grant,
            client_id=self.client_id,
            user_id=self.user_id,
            began_at=self.family_began_at,
            ends_at=self.family_ends_at,
            platform=self.platform,
        )

    def recognizes(self, string: RefreshTokenString) -> bool:
        """Whether the string is a token of this family, used or not."""
        parts = (
            (string.key, self.key_hash),
            (string.key, self.previous_key_hash),
            (string.family_key, self.family_key_hash),
        )
        return any(key_hash is not None and key_matches(part, key_hash) for part, key_hash in parts)

    def is_unused(self, string: RefreshTokenString) -> bool:
        """Whether a token of this family has not been exchanged yet."""
        return self.used_at is None and key_matches(string.key, self.key_hash)

    def must_be_open(self, *, client_id: str, at: datetime) -> None:
        """Check that an unused token can be exchanged.

        Raises:
            AuthorizationNotFound: it was revoked.
            TokenExpired: it has expired.
            IncorrectClient: it was issued to another app.
        """
        if self.revoked_at is not None:
            raise AuthorizationNotFound
        if at >= self.expires_at:
            raise TokenExpired
        if client_id != self.client_id:
            raise IncorrectClient

    def revoke(self, *, at: datetime) -> Self:
        """Mark the token as revoked; no repeat gets its reply any more."""
        return replace(self, revoked_at=at, sealed_reply=None)

    def exchange(
        self, following: RefreshTokenString, access_token: AccessToken, sealed_reply: str, *, at: datetime
    ) -> Self:
        """The next token of the family; a repeat of the exchange gets the reply again."""
        return replace(
            self,
            key_hash=hash_key(following.key),
            previous_key_hash=self.key_hash,
            family_key_hash=hash_key(following.family_key),
            grant=access_token.grant,
            created_at=at,
            expires_at=min(at + REFRESH_TOKEN_LIFETIME, self.family_ends_at),
        ).renew(access_token, sealed_reply)

    def renew(self, access_token: AccessToken, sealed_reply: str) -> Self:
        """Replace the access token that was issued with this one, and the reply."""
        return replace(
            self,
            access_token_id=access_token.id,
            access_token_expires_at=access_token.expires_at,
            previous_access_token_id=self.access_token_id,
            cidr_blocks=access_token.cidr_blocks,
            sealed_reply=sealed_reply,
        )

    def is_recent(self, *, at: datetime) -> bool:
        """Whether the token was issued less than ``GRACE_PERIOD`` ago."""
        return at - self.created_at <= GRACE_PERIOD

    def may_repeat(self, string: RefreshTokenString, *, client_id: str) -> bool:
        """Whether a used token of this family may be exchanged for this one again, because that is not theft.

        Phones end apps between the response and the write to their key store, and browsers refresh in two tabs. So
        while this one is unused, the exchange for it may be repeated. If both were used, one of them may be stolen.
        """
        return (
            self.used_at is None
            and self.revoked_at is None
            and self.previous_key_hash is not None
            and key_matches(string.key, self.previous_key_hash)
            and client_id == self.client_id
        )
