"""Signatures of webhooks as Standard Webhooks 1.0 describes them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets as random
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from shared.messages import iso_milliseconds

PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32
"""Length of a new key; the standard has 24 to 64."""


def new_secret() -> str:
    """Return a new secret, ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(random.token_bytes(KEY_BYTES)).decode()


def body_of(event_type: str, at: datetime, data: dict[str, Any]) -> bytes:
    """Return the body of an event, the same in every attempt: JSON with ``type``, ``timestamp`` and ``data``."""
    body = {"type": event_type, "timestamp": iso_milliseconds(at), "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(event_id: str, body: bytes, secrets: Sequence[str], *, at: datetime) -> dict[str, str]:
    """Return the headers of one attempt, with a signature for each secret."""
    timestamp = int(at.timestamp())
    signed = f"{event_id}.{timestamp}.".encode() + body
    signatures = [hmac.digest(base64.b64decode(each.removeprefix(PREFIX)), signed, hashlib.sha256) for each in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signatures),
    }
