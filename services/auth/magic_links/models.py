"""What is a magic link good for? An authorization: one login, of one address, to one app, for some minutes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self
from urllib.parse import quote

from services.auth.tokens.credentials import Code, hash_key
from shared.messages.auth.errors import (
    AuthorizationNotFound,
    IncorrectClient,
    IncorrectCodeVerifier,
    IncorrectRedirectUri,
    TokenExpired,
    TokenUsed,
)
from shared.messages.auth.magic_links import Device, LinkRequest

HEX_CHALLENGE_LENGTH: Final = 64
_RFC_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The permission behind one magic link.

    Attributes:
        key_hash: SHA-256 of the link's key; the key itself is only in the mail.
        identifier_value: the address, in normal form.
        used_at: when it was redeemed.
        revoked_at: when it was voided: another link of this address and app was used, or too many verifiers were wrong.
        wrong_verifiers: how many were tried.
    """

    id: str
    key_hash: str
    client_id: str
    state: str
    code_challenge_method: Literal["S256"]
    code_challenge: str
    redirect_uri: str
    identifier_type: Literal["email"]
    identifier_value: str
    device: Device | None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    wrong_verifiers: int = 0
    version: int = 1

    @classmethod
    def open(cls, request: LinkRequest, address: str, code: Code, *, life: timedelta, at: datetime) -> Self:
        """A new one, for whoever reads the mail to this address.

        Args:
            request: what the app asked for.
            address: its ``identifier_value`` in normal form.
            code: what the link will carry; its id becomes the authorization's.
            life: how long it may be redeemed.
            at: now.
        """
        return cls(
            id=code.id,
            key_hash=hash_key(code.key),
            client_id=request.client_id,
            state=request.state,
            code_challenge_method=request.code_challenge_method,
            code_challenge=request.code_challenge,
            redirect_uri=request.redirect_uri,
            identifier_type=request.identifier_type,
            identifier_value=address,
            device=request.device,
            created_at=at,
            expires_at=at + life,
        )

    def redeem(self, *, client_id: str, redirect_uri: str, code_verifier: str, at: datetime) -> Self:
        """The same, used up.

        Raises:
            TokenUsed, AuthorizationNotFound, TokenExpired: it is not open (any more); an expired one is refused from
                its last moment on.
            IncorrectClient, IncorrectRedirectUri: it was made for another app, or to lead elsewhere.
            IncorrectCodeVerifier: whoever asks is not who ordered the link; count it.
        """
        if self.used_at is not None:
            raise TokenUsed
        if self.revoked_at is not None:
            raise AuthorizationNotFound
        if at >= self.expires_at:
            raise TokenExpired
        if client_id != self.client_id:
            raise IncorrectClient
        if redirect_uri != self.redirect_uri:
            raise IncorrectRedirectUri
        if not verifies(code_verifier, self.code_challenge):
            raise IncorrectCodeVerifier
        return replace(self, used_at=at)

    def count_wrong_verifier(self, *, most: int, at: datetime) -> Self:
        """The same with one more wrong verifier, which voids it if it is the last of ``most``."""
        count = self.wrong_verifiers + 1
        return replace(self, wrong_verifiers=count, revoked_at=at if count >= most else None)

    def rivals(self, other: Authorization) -> bool:
        """Whether both could log the same address in to the same app."""
        return (
            self.id != other.id
            and self.client_id == other.client_id
            and self.identifier_type == other.identifier_type
            and self.identifier_value == other.identifier_value
        )

    def revoke(self, *, at: datetime) -> Self:
        """The same, voided."""
        return replace(self, revoked_at=at)


def verifies(code_verifier: str, code_challenge: str) -> bool:
    """Whether a verifier hashes to a challenge (RFC 7636 section 4.6), compared in constant time.

    A challenge in the RFC's form asks for a verifier in the RFC's form (section 4.1: 43 to 128 unreserved characters).
    Old clients, whose challenges are hex, never promised one.
    """
    digest = hashlib.sha256(code_verifier.encode()).digest()
    if len(code_challenge) == HEX_CHALLENGE_LENGTH:
        return hmac.compare_digest(digest.hex(), code_challenge)
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(expected, code_challenge) and _RFC_VERIFIER.fullmatch(code_verifier) is not None


def link(redirect_uri: str, code: Code, state: str, *, flow: str | None = None) -> str:
    """The magic link: the redirect URI with ``code``, ``state`` and, where there is one, ``flow`` in its query.

    A query that the URI has already stays in front, character by character (RFC 6749 section 3.1.2); a fragment stays
    behind.
    """
    target, hash_sign, fragment = redirect_uri.partition("#")
    joint = "?" if "?" not in target else "" if target.endswith(("?", "&")) else "&"
    query = f"code={quote(str(code), safe='')}&state={quote(state, safe='')}"
    if flow is not None:
        query += f"&flow={quote(flow, safe='')}"
    return f"{target}{joint}{query}{hash_sign}{fragment}"
