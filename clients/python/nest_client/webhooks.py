"""Verification of Nest's webhooks as Standard Webhooks 1.0 describes it (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict, cast

from nest_client.webhook_events import EVENT_TYPES, WebhookEvent

PREFIX: Final = "whsec_"
TOLERANCE_SECONDS: Final = 300


class InvalidWebhook(Exception):
    """The request is not a webhook that one of the secrets has signed, or it is too old. Answer it with 400."""


class UnknownEvent(TypedDict):
    """The payload of a webhook whose type this release does not know, as a later version of Nest may send it.

    Its ``type`` is never one of Nest's, so that the type of each known event determines the type of its ``data``.
    """

    type: Literal["unknown"]
    body: Any
    """The body's JSON value, with the event's own ``type`` and ``data``."""


@dataclass(frozen=True)
class Webhook:
    """A verified webhook.

    Attributes:
        id: ID of the message, the same in all attempts to deliver it. Handle each ID once.
        timestamp: Time of this attempt in Unix seconds.
        payload: The event: the body's JSON value if its ``type`` is known. Fields that this release does not know are
            kept.
    """

    id: str
    timestamp: int
    payload: WebhookEvent | UnknownEvent


@dataclass(frozen=True)
class WebhookVerifier:
    """Verifier of webhooks.

    Attributes:
        secrets: One or more secrets, ``whsec_<base64>``; with several, secrets can be replaced without a gap.
        tolerance: Largest age of a signature in seconds, and how far it may be ahead.
        clock: Unix time, for tests.
    """

    secrets: Sequence[str] = field(repr=False)
    tolerance: int = TOLERANCE_SECONDS
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if isinstance(self.secrets, str):
            object.__setattr__(self, "secrets", (self.secrets,))
        object.__setattr__(self, "secrets", tuple(self.secrets))
        if not self.secrets:
            raise ValueError("Give at least one secret.")
        for secret in self.secrets:
            _key_of(secret)

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Webhook:
        """Return the webhook of a request.

        Args:
            body: The body as it arrived, before it is parsed.
            headers: The headers, with names in any case.

        Raises:
            InvalidWebhook: a header is missing, the time is out of tolerance, or no signature is right.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        try:
            message_id, timestamp, signatures = (lower[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        except KeyError as error:
            raise InvalidWebhook(f"The header {error.args[0]} is missing.") from None
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= len("9999999999")):
            raise InvalidWebhook("The timestamp is not in Unix seconds.")
        if abs(self.clock() - int(timestamp)) > self.tolerance:
            raise InvalidWebhook("The timestamp is too old, or ahead.")
        signed = f"{message_id}.{timestamp}.".encode() + body
        right = [hmac.digest(_key_of(secret), signed, hashlib.sha256) for secret in self.secrets]
        given = [_decoded(each.removeprefix("v1,")) for each in signatures.split() if each.startswith("v1,")]
        if not any(hmac.compare_digest(one, other) for one in right for other in given):
            raise InvalidWebhook("No signature is right.")
        try:
            return Webhook(message_id, int(timestamp), _event_of(json.loads(body)))
        except ValueError:
            raise InvalidWebhook("The body is no JSON.") from None


def _event_of(body: Any) -> WebhookEvent | UnknownEvent:
    if isinstance(body, dict) and body.get("type") in EVENT_TYPES:
        return cast("WebhookEvent", body)
    return {"type": "unknown", "body": body}


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except ValueError:
        return b""


def _key_of(secret: str) -> bytes:
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("A secret of a webhook is `whsec_` and base64.")
    return key
