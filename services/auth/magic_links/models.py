"""Authorizations: the permission behind a magic link, for one login of one address to one app within some minutes.

The mail may have a typed code beside the link, for people who read it on another device. It redeems the same
authorization, and only for who has the code verifier (RFC 7636) of the request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self
from urllib.parse import quote

from services.auth.phone.models import CODE_DIGITS
from services.auth.tokens.credentials import Code, hash_key
from shared.documents import stored_as
from shared.ids import derived_message_id
from shared.messages.auth.errors import (
    AuthorizationNotFound,
    IncorrectClient,
    IncorrectCodeVerifier,
    IncorrectRedirectUri,
    TokenExpired,
    TokenUsed,
)
from shared.messages.auth.magic_links import Device, LinkRequest

TYPED_CODE_PURPOSE: Final = "typed codes"
"""Purpose of the key with which typed codes are hashed."""
_CODE_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
"""RFC 7636 section 4.1: 43 to 128 unreserved characters."""
_ZEROS: Final = "0\uff10\u0660\u06f0"
"""The digit zero of each accepted script: ASCII, full-width (Japanese and Chinese keyboards), Arabic-Indic and Extended
Arabic-Indic (Persian and Urdu). In Unicode the digits 1 to 9 follow it."""
_TO_ASCII: Final = {ord(zero) + digit: str(digit) for zero in _ZEROS for digit in range(10)}


def mail_id_of(authorization_id: str) -> str:
    """Message ID of the order of the mail with an authorization's link."""
    return derived_message_id("link", authorization_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCode:
    """The six digits in a mail, as stored.

    Attributes:
        hash: keyed hash of the digits and the authorization's ID. A plain hash of six digits could be reversed by
            trying all.
        wrong: number of wrong codes so far.
        revoked_at: when it was revoked: too many codes were wrong, or the address got a newer code for this app.
    """

    hash: str
    expires_at: datetime
    wrong: int = 0
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The permission behind one magic link.

    Attributes:
        trial: whether its link is one of a trial; None in documents of releases that did not store it.
        typed_code: the code in the mail; None if the mail has only a link.
        key_hash: SHA-256 of the link's key. The key itself exists only in the mail.
        identifier_value: address in normal form.
        revoked_at: when the authorization was revoked: another link of this address and app was redeemed, or too many
            code verifiers were wrong.
    """

    id: str
    key_hash: str = stored_as("key")
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
    trial: bool | None = None
    typed_code: TypedCode | None = None
    version: int = 1

    @classmethod
    def issue(
        cls,
        request: LinkRequest,
        address: str,
        code: Code,
        *,
        lifetime: timedelta,
        at: datetime,
        trial: bool = False,
        typed_code: TypedCode | None = None,
    ) -> Self:
        """A new authorization, with the ID of the code; ``address`` is the requested one in normal form."""
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
            expires_at=at + lifetime,
            trial=trial,
            typed_code=typed_code,
        )

    def redeem(self, *, client_id: str, redirect_uri: str, code_verifier: str, at: datetime) -> Self:
        """Mark the authorization as used.

        Raises:
            TokenUsed: it has been redeemed.
            AuthorizationNotFound: it has been revoked.
            TokenExpired: ``expires_at`` has been reached.
            IncorrectClient, IncorrectRedirectUri: it was issued to another app, or for another redirect URI.
            IncorrectCodeVerifier: the caller did not request the link; the caller must count this as a guess.
        """
        self._must_be_open(client_id=client_id, redirect_uri=redirect_uri, at=at)
        if not verifies(code_verifier, self.code_challenge):
            raise IncorrectCodeVerifier
        return replace(self, used_at=at)

    def open_typed_code(self, *, client_id: str, redirect_uri: str | None, at: datetime) -> TypedCode:
        """The typed code, if it can be redeemed; compare it, then call ``use`` or ``count_wrong_code``.

        ``redirect_uri`` may be left out, since nothing was redirected.

        Raises:
            TokenUsed: the link or the code has been redeemed.
            AuthorizationNotFound: the authorization or the code has been revoked.
            TokenExpired: one of them has expired.
            IncorrectClient, IncorrectRedirectUri: as for ``redeem``.
        """
        self._must_be_open(client_id=client_id, redirect_uri=redirect_uri or self.redirect_uri, at=at)
        if self.typed_code is None or self.typed_code.revoked_at is not None:
            raise AuthorizationNotFound
        if at >= self.typed_code.expires_at:
            raise TokenExpired
        return self.typed_code

    def use(self, *, at: datetime) -> Self:
        """Mark the authorization as used, after its typed code was compared."""
        return replace(self, used_at=at)

    def count_wrong_code(self, *, max_count: int, at: datetime) -> Self:
        """Count a wrong typed code; the last one of ``max_count`` revokes the code. The link still works."""
        if self.typed_code is None:
            return self
        wrong = self.typed_code.wrong + 1
        revoked_at = at if wrong >= max_count else None
        return replace(self, typed_code=replace(self.typed_code, wrong=wrong, revoked_at=revoked_at))

    def revoke_typed_code(self, *, at: datetime) -> Self:
        """Revoke the typed code. The link still works."""
        return self if self.typed_code is None else replace(self, typed_code=replace(self.typed_code, revoked_at=at))

    def _must_be_open(self, *, client_id: str, redirect_uri: str, at: datetime) -> None:
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

    def count_wrong_verifier(self, *, max_count: int, at: datetime) -> Self:
        """Count a wrong code verifier; the last one of ``max_count`` revokes the authorization."""
        count = self.wrong_verifiers + 1
        return replace(self, wrong_verifiers=count, revoked_at=at if count >= max_count else None)

    def competes_with(self, other: Authorization) -> bool:
        """Whether the other authorization could log the same address in to the same app."""
        return (
            self.id != other.id
            and self.client_id == other.client_id
            and self.identifier_type == other.identifier_type
            and self.identifier_value == other.identifier_value
        )

    def revoke(self, *, at: datetime) -> Self:
        """Mark the authorization as revoked."""
        return replace(self, revoked_at=at)


def verifies(code_verifier: str, code_challenge: str) -> bool:
    """Whether a code verifier matches a code challenge (RFC 7636 section 4.6); compared in constant time.

    A challenge in base64url, as the RFC has it, requires a verifier in the RFC's format too. Old clients send hex
    challenges and verifiers of any format.
    """
    return any(hmac.compare_digest(challenge, code_challenge) for challenge in challenges(code_verifier))


def challenges(code_verifier: str) -> list[str]:
    """The code challenges that a verifier matches: in hex and, if the verifier has the RFC's format, in base64url."""
    digest = hashlib.sha256(code_verifier.encode()).digest()
    if not _CODE_VERIFIER.fullmatch(code_verifier):
        return [digest.hex()]
    return [digest.hex(), base64.urlsafe_b64encode(digest).rstrip(b"=").decode()]


def typed_digits(text: str) -> str | None:
    """The six ASCII digits in a code as a person typed or pasted it; None if it is something else.

    White space anywhere in it is ignored. Digits may be ASCII, full-width or Arabic-Indic; nothing else is accepted.
    """
    digits = "".join(text.split()).translate(_TO_ASCII)
    return digits if len(digits) == CODE_DIGITS and digits.isascii() and digits.isdigit() else None


def magic_link(redirect_uri: str, code: Code, state: str, *, flow: str | None = None) -> str:
    """The redirect URI with ``state``, ``flow`` if given, and ``code`` added to its query.

    An existing query is kept character by character in front of them (RFC 6749 section 3.1.2), a fragment after them.
    ``code`` comes last, because mail programs take a ``.``, ``-``, ``_`` or ``~`` at the end of a link, which the
    state may have, for the end of a sentence.
    """
    target, hash_sign, fragment = redirect_uri.partition("#")
    separator = "?" if "?" not in target else "" if target.endswith(("?", "&")) else "&"
    query = f"state={quote(state, safe='')}"
    if flow is not None:
        query += f"&flow={quote(flow, safe='')}"
    query += f"&code={quote(str(code), safe='')}"
    return f"{target}{separator}{query}{hash_sign}{fragment}"
