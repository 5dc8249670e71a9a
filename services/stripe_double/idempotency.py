"""Was this call made before? Idempotency keys and the answers they replay."""

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
"""Keys may be forgotten after 24 hours (docs.stripe.com/api/idempotent_requests); the double does it then."""
MAX_LENGTH = 255


@dataclass(frozen=True)
class Answer:
    """What goes back to the caller."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Idempotency:
    """The keys of the last 24 hours, each with what was asked and what was answered.

    Args:
        account: Where they are kept, so that they outlive the process with the objects they made.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ages: deque[tuple[int, str]] = deque()
        self._in_flight: set[str] = set()
        account.on_put.append(self._note)

    def _note(self, entry: Json) -> None:
        if entry["object"] == "_key":
            self._ages.append((entry["created"], entry["id"]))

    def replay(self, key: str, asked: str) -> Answer | None:
        """Returns the answer that was given under a key; None when it is new or forgotten.

        Args:
            key: The caller's `Idempotency-Key`.
            asked: Method, path and parameters, as one text.

        Raises:
            StripeApiError: 400 `idempotency_error` when something else was asked under it; 409 when the
                first call under it is still being worked on.
        """
        if len(key) > MAX_LENGTH:
            raise StripeApiError(f"Idempotency keys may have up to {MAX_LENGTH} characters.")
        if key in self._in_flight:
            raise StripeApiError(
                f"There is currently another in-progress request using this Idempotent Key: {key}.",
                status=409,
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        known = self._account.find("_key", key)
        if known is None or known["created"] <= self._account.now - LIFETIME:
            return None
        if known["asked"] != asked:
            raise StripeApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used"
                f" with. Try using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
            )
        headers = {"Idempotent-Replayed": "true", "Original-Request": known["request"]}
        return Answer(known["status"], known["body"].encode(), headers)

    def remember(self, key: str, asked: str, answer: Answer, request: str) -> None:
        """Keeps the answer under its key, with the change that it reports."""
        while self._ages and self._ages[0][0] <= self._account.now - LIFETIME:
            created, old = self._ages.popleft()
            known = self._account.find("_key", old)
            if known is not None and known["created"] == created:
                self._account.remove("_key", old)
        self._account.put(
            {
                "object": "_key",
                "id": key,
                "asked": asked,
                "body": answer.body.decode(),
                "created": self._account.now,
                "request": request,
                "status": answer.status,
            }
        )

    def forget(self, key: str) -> None:
        """Forgets a key early, as Stripe may once a day is over."""
        with self._account.change():
            self._account.remove("_key", key)

    @contextmanager
    def working(self, key: str | None) -> Iterator[bool]:
        """Marks a key as being worked on inside the block; yields False when it was already.

        Only then is the block's own call refused by `replay`, after the block; the first one is not.
        """
        if key is None or key in self._in_flight:
            yield key is None
            return
        self._in_flight.add(key)
        try:
            yield True
        finally:
            self._in_flight.discard(key)


def asked(method: str, path: str, params: dict[str, Any]) -> str:
    """Returns what a call asks for as one text, the same for the same parameters in any order."""
    return f"{method} {path} {json.dumps(params, sort_keys=True)}"
