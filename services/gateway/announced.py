"""What has auth announced? The keys that sign tokens, the clients that have some, and the tokens that are revoked."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jwt import PyJWK
from jwt.exceptions import PyJWTError
from pydantic import ValidationError

from shared.bus.envelope import Record
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.telemetry import log

ALGORITHMS: Final = {("EC", "P-256"): "ES256", ("EC", "P-521"): "ES512", ("OKP", "Ed25519"): "EdDSA"}
"""What a key of a type and curve signs with, and nothing else (RFC 8725 section 3.1)."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the one algorithm it is good for."""

    key: PyJWK
    algorithm: str


class SigningKeys:
    """The public keys by ``kid``, as the topic ``auth.keys`` tells them."""

    def __init__(self) -> None:
        self._keys: dict[str, VerificationKey] = {}
        self._jwks: dict[str, dict[str, str]] = {}
        self.jwks = b'{"keys": []}'
        """All of them as a JWK set (RFC 7517 section 5)."""

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str) -> VerificationKey | None:
        """The key of that id, if it is in use."""
        return self._keys.get(kid)

    def take(self, record: Record) -> None:
        """Learn a key, or, from a record without a value, forget one."""
        if record.value is None:
            self._forget((record.key or b"").decode(errors="replace"))
            return
        try:
            published = SigningKeyPublished.model_validate_json(record.value)
            self._learn(published)
        except (ValidationError, PyJWTError, ValueError, KeyError) as wrong:
            # Never the record itself: should a private key be in it, the log is no place for it.
            log.error("signing key refused", offset=record.offset, error=type(wrong).__name__)

    def _learn(self, published: SigningKeyPublished) -> None:
        jwk = published.jwk
        algorithm = ALGORITHMS[jwk["kty"], jwk["crv"]]
        if "d" in jwk or jwk.get("alg", algorithm) != algorithm or jwk.get("kid", published.kid) != published.kid:
            raise ValueError("not the public half of a signing key of ours")
        self._keys[published.kid] = VerificationKey(PyJWK(dict(jwk), algorithm), algorithm)
        self._jwks[published.kid] = {**jwk, "kid": published.kid, "alg": algorithm, "use": "sig"}
        self._write()

    def _forget(self, kid: str) -> None:
        self._keys.pop(kid, None)
        self._jwks.pop(kid, None)
        self._write()

    def _write(self) -> None:
        self.jwks = json.dumps({"keys": list(self._jwks.values())}).encode()


class Clients:
    """The clients whose tokens are taken, as the topic ``auth.clients`` tells them."""

    def __init__(self) -> None:
        self._enabled: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self._enabled)

    def enabled(self, client_id: str) -> bool:
        """Whether there is such a client, and it may have people logged in."""
        return self._enabled.get(client_id, False)

    def take(self, record: Record) -> None:
        """Learn of a client, or, from a record without a value, forget one."""
        if record.value is None:
            self._enabled.pop((record.key or b"").decode(errors="replace"), None)
            return
        try:
            announced = ClientAnnounced.model_validate_json(record.value)
        except ValidationError as wrong:
            log.error("client not understood", offset=record.offset, error=type(wrong).__name__)
            return
        self._enabled[announced.client_id] = not announced.disabled


class Revocations:
    """The access tokens that are refused although they have not expired, as ``auth.revocations`` tells them.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._revoked: set[str] = set()
        self._by_expiry: list[tuple[float, str]] = []

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._revoked

    def __len__(self) -> int:
        return len(self._revoked)

    def take(self, record: Record) -> None:
        """Learn a revocation; those whose tokens have expired by now are forgotten."""
        if record.value is None:
            return
        now = self._clock()
        while self._by_expiry and self._by_expiry[0][0] <= now:
            self._revoked.discard(heapq.heappop(self._by_expiry)[1])
        try:
            revoked = AccessTokenRevoked.model_validate_json(record.value)
            expires_at = revoked.expires_at.timestamp()
        except (ValidationError, ValueError, OverflowError) as wrong:
            log.error("revocation not understood", offset=record.offset, error=type(wrong).__name__)
            return
        if expires_at > now and revoked.token_id not in self._revoked:
            self._revoked.add(revoked.token_id)
            heapq.heappush(self._by_expiry, (expires_at, revoked.token_id))
