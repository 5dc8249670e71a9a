"""Idempotency keys and the stored responses that they replay (docs.stripe.com/api/idempotent_requests)."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError

LIFETIME = DAY
"""Seconds until a key expires. Stripe may remove keys after 24 hours or later; the double removes them then."""
MAX_LENGTH = 255


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Idempotency:
    """The idempotency keys of the last 24 hours, each with its request and its response.

    Args:
        account: Where the keys are stored, in the same transaction as the objects that the request made.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._by_age: deque[tuple[int, str]] = deque()
        self._in_progress: set[str] = set()
        account.on_put.append(self._index)

    def _index(self, entry: Json) -> None:
        if entry["object"] == "_key":
            self._by_age.append((entry["created"], entry["id"]))

    def find_response(self, key: str, fingerprint: str) -> Response | None:
        """Return the stored response of a key; None if the key is new or expired.

        Args:
            key: The client's `Idempotency-Key`.
            fingerprint: The request as `request_fingerprint` returns it.

        Raises:
            StripeApiError: 400 `idempotency_error` if the key was used for another request; 409 while the
                first request with the key is in progress.
        """
        if len(key) > MAX_LENGTH:
            raise StripeApiError(f"Idempotency keys may have up to {MAX_LENGTH} characters.")
        if key in self._in_progress:
            raise StripeApiError(
                f"There is currently another in-progress request using this Idempotent Key: {key}.",
                status=409,
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        stored = self._account.find("_key", key)
        if stored is None or stored["created"] <= self._account.now - LIFETIME:
            return None
        if stored["fingerprint"] != fingerprint:
            raise StripeApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used"
                f" with. Try using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
            )
        headers = {"Idempotent-Replayed": "true", "Original-Request": stored["request"]}
        return Response(stored["status"], stored["body"].encode(), headers)

    def store(self, key: str, fingerprint: str, response: Response, request_id: str) -> None:
        """Store the response of a key in the open change, and remove expired keys."""
        while self._by_age and self._by_age[0][0] <= self._account.now - LIFETIME:
            created, expired = self._by_age.popleft()
            stored = self._account.find("_key", expired)
            if stored is not None and stored["created"] == created:
                self._account.remove("_key", expired)
        self._account.put(
            {
                "object": "_key",
                "id": key,
                "fingerprint": fingerprint,
                "body": response.body.decode(),
                "created": self._account.now,
                "request": request_id,
                "status": response.status,
            }
        )

    def forget(self, key: str) -> None:
        """Remove a key before it expires, so that a test need not wait 24 hours."""
        with self._account.change():
            self._account.remove("_key", key)

    @contextmanager
    def in_progress(self, key: str | None) -> Iterator[bool]:
        """Mark a key as in progress inside the block; yield False if it already was.

        `find_response` refuses only the second request: the first one calls it after its block has ended.
        """
        if key is None or key in self._in_progress:
            yield key is None
            return
        self._in_progress.add(key)
        try:
            yield True
        finally:
            self._in_progress.discard(key)


def request_fingerprint(method: str, path: str, params: dict[str, Any]) -> str:
    """Return a request as text that does not depend on the order of its parameters."""
    return f"{method} {path} {json.dumps(params, sort_keys=True)}"
