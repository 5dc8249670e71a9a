"""State that auth publishes: public signing keys, registered clients and revoked access tokens.

An invalid record is logged and ignored. The topic readers have checked the records' MACs, which a copy of an old record
keeps. These topics have no inbox that recognizes it, so an older state than the known one is ignored too, by the header
``time``.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable
from typing import Final

from jwt import PyJWK
from jwt.exceptions import PyJWTError
from pydantic import ValidationError

from shared.bus.envelope import MAX_DIGITS, Record
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.telemetry import log

ALGORITHMS: Final = {("EC", "P-256"): "ES256", ("EC", "P-521"): "ES512", ("OKP", "Ed25519"): "EdDSA"}
"""The only algorithm of each accepted key type and curve (RFC 8725 section 3.1)."""
SKEW_MILLISECONDS: Final = 60_000
"""By how much the clocks of two running processes may differ."""


class SigningKeys:
    """Public keys by key ID, from the topic ``auth.keys``."""

    def __init__(self) -> None:
        self._keys: dict[str, PyJWK] = {}
        self._jwks: dict[str, dict[str, str]] = {}
        self._withdrawn: dict[str, int] = {}
        """When each withdrawn key was withdrawn, Unix milliseconds."""
        self.jwks = b'{"keys": []}'
        """All keys as a JWK set (RFC 7517 section 5)."""

    def find(self, kid: str) -> PyJWK | None:
        """Key with this ID, which also fixes the algorithm; or None."""
        return self._keys.get(kid)

    def apply(self, record: Record) -> None:
        """Add the record's key; remove it if the record has no value."""
        try:
            if record.value is not None:
                self._add(SigningKeyPublished.model_validate_json(record.value), _time(record))
            else:
                kid = _deleted_id(record)
                self._keys.pop(kid, None)
                self._jwks.pop(kid, None)
                self._withdrawn[kid] = max(_time(record), self._withdrawn.get(kid, 0))
        except (ValidationError, PyJWTError, ValueError, KeyError) as invalid:
            # The record itself is not logged: by mistake it could contain a private key.
            log.error("invalid signing key", offset=record.offset, error=type(invalid).__name__)
        self.jwks = json.dumps({"keys": list(self._jwks.values())}).encode()

    def _add(self, published: SigningKeyPublished, at: int) -> None:
        if at < self._withdrawn.get(published.kid, 0):
            # A key that has leaked must not return. auth publishes one anew only after a restore of its database.
            raise ValueError("published before it was withdrawn")
        jwk = published.jwk
        algorithm = ALGORITHMS[jwk["kty"], jwk["crv"]]
        if "d" in jwk or jwk.get("alg", algorithm) != algorithm or jwk.get("kid", published.kid) != published.kid:
            raise ValueError("not a public key, or its algorithm or ID does not match")
        self._keys[published.kid] = PyJWK(dict(jwk), algorithm)
        self._jwks[published.kid] = {**jwk, "kid": published.kid, "alg": algorithm, "use": "sig"}


class Clients:
    """Registered clients, from the topic ``auth.clients``."""

    def __init__(self) -> None:
        self._enabled: dict[str, bool] = {}
        self._times: dict[str, int] = {}
        """When the state of each client was published, Unix milliseconds."""

    def __len__(self) -> int:
        return len(self._enabled)

    def enabled(self, client_id: str) -> bool:
        """Whether the client exists and is not disabled."""
        return self._enabled.get(client_id, False)

    def apply(self, record: Record) -> None:
        """Add or update a client; remove it if the record has no value."""
        if record.value is None:
            self._enabled.pop(_deleted_id(record), None)
            return
        try:
            announced = ClientAnnounced.model_validate_json(record.value)
        except ValidationError as invalid:
            log.error("invalid client announcement", offset=record.offset, error=type(invalid).__name__)
            return
        at, known = _time(record), self._times.get(announced.client_id, 0)
        if at < known - SKEW_MILLISECONDS:
            log.error("old client announcement ignored", offset=record.offset, client_id=announced.client_id)
            return
        self._times[announced.client_id] = max(at, known)
        self._enabled[announced.client_id] = not announced.disabled


class Revocations:
    """Revoked access tokens that have not expired, from the topic ``auth.revocations``.

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

    def apply(self, record: Record) -> None:
        """Add a revocation, and remove those of expired tokens."""
        if record.value is None:
            return
        now = self._clock()
        while self._by_expiry and self._by_expiry[0][0] <= now:
            self._revoked.discard(heapq.heappop(self._by_expiry)[1])
        try:
            revoked = AccessTokenRevoked.model_validate_json(record.value)
            expires_at = revoked.expires_at.timestamp()
        except (ValidationError, ValueError, OverflowError) as invalid:
            log.error("invalid revocation", offset=record.offset, error=type(invalid).__name__)
            return
        if expires_at > now and revoked.token_id not in self._revoked:
            self._revoked.add(revoked.token_id)
            heapq.heappush(self._by_expiry, (expires_at, revoked.token_id))


def _time(record: Record) -> int:
    """Return when a record was first published, Unix milliseconds; 0 if its header ``time`` is missing or invalid."""
    text = next((value for name, value in record.headers if name == "time"), None) or b""
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else 0


def _deleted_id(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")
