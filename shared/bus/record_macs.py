"""MACs of records: HMAC-SHA-256 (RFC 2104) over everything in a record, so that only processes of Nest can write one.

Whoever reaches the broker could otherwise order the erasure of a user, announce a signing key, or answer a caller. The
producer puts the MAC in front of all headers, and every reader refuses a record without a valid one. The MAC covers the
topic, the key, the value, and all headers after it in their order, ``traceparent`` included: a header that is not
covered today could gain a meaning tomorrow.

The key is derived from a sealing key for each full topic name (HKDF, RFC 5869), so a record copied to another topic or
deployment is refused. The header names the sealing key, so a reader computes one MAC for a record, however many keys it
holds. The record of a replayed dead letter has the MAC of its first sender and, in front of it, another one over the
replay headers. So a replay neither makes an unauthenticated record valid nor can anyone but Nest order one.

A record that is copied as a whole within its topic is valid. It has the same message ID, so inboxes recognize it.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from shared.bus.envelope import MAC, Record
from shared.dead_letters.records import REPLAY_MAC, is_replay, original_headers
from shared.sealing import Sealer
from shared.telemetry import log

Headers = Sequence[tuple[str, bytes]]
UNAUTHENTICATED: Final = Counter(
    "nest_unauthenticated_records", "Records that were refused because they have no valid MAC.", ["topic"]
)
_size = struct.Struct(">i").pack
_NULL: Final = _size(-1)


@dataclass(frozen=True, slots=True)
class _TopicKeys:
    """The derived keys of a topic by key ID; the active one computes the MACs of new records."""

    active: bytes
    by_id: dict[bytes, bytes]


class RecordMacs:
    """Computes and checks the MACs of one process.

    Args:
        sealer: holds the sealing keys; the active one computes MACs, and those of all are valid.
        prefix: prefix of every topic name.
        accept_missing: accept records without a MAC, as the release before wrote them. A wrong MAC is always refused.
    """

    def __init__(self, sealer: Sealer, *, prefix: str = "", accept_missing: bool = False) -> None:
        self._sealer = sealer
        self._prefix = prefix
        self._accept_missing = accept_missing
        self._keys: dict[tuple[str, str], _TopicKeys] = {}

    def signed(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> list[tuple[str, bytes]]:
        """Return the headers of a record with its MAC in front; the topic is named without prefix."""
        name = REPLAY_MAC if is_replay(headers) else MAC
        keys = self._keys_of(name, topic)
        mac = _mac(keys.by_id[keys.active], key, value, headers)
        return [(name, keys.active + b"." + mac), *headers]

    def problem(self, topic: str, record: Record) -> str | None:
        """Return why a record is refused, without its content; None if it is authentic.

        Args:
            topic: topic that the record was read from, without prefix.
            record: any record, also one that a foreign program has written.
        """
        headers: Headers = record.headers
        if headers and headers[0][0] == REPLAY_MAC:
            wrong = self._wrong(REPLAY_MAC, topic, record, headers)
            if wrong is not None:
                return wrong
            headers = original_headers(headers)
        if not headers or headers[0][0] != MAC:
            return None if self._accept_missing else "the record has no MAC"
        return self._wrong(MAC, topic, record, headers)

    def refuses(self, topic: str, record: Record) -> bool:
        """Return whether a record is to be ignored, and count and log it in that case; arguments as ``problem``."""
        problem = self.problem(topic, record)
        if problem is None:
            return False
        UNAUTHENTICATED.labels(topic).inc()
        log.error("unauthenticated record ignored", topic=topic, offset=record.offset, reason=problem)
        return True

    def without_prefix(self, full_topic: str) -> str:
        """Return the name of a topic without the deployment's prefix."""
        return full_topic.removeprefix(self._prefix)

    def _wrong(self, name: str, topic: str, record: Record, headers: Headers) -> str | None:
        """Return what is wrong with the MAC in the first of these headers; None if it is right."""
        key_id, _, mac = (headers[0][1] or b"").partition(b".")
        key = self._keys_of(name, topic).by_id.get(key_id)
        if key is None:
            return "the sealing key of its MAC is not held"
        if not hmac.compare_digest(_mac(key, record.key, record.value, headers[1:]), mac):
            return "its MAC is wrong"
        return None

    def _keys_of(self, name: str, topic: str) -> _TopicKeys:
        keys = self._keys.get((name, topic))
        if keys is None:
            derived = self._sealer.hash_keys(f"{name} of records on {self._prefix}{topic}")
            by_id = {key_id.encode(): key for key_id, key in derived.items()}
            keys = self._keys[name, topic] = _TopicKeys(next(iter(by_id)), by_id)
        return keys


def has_mac_of(key_id: str, record: Record) -> bool:
    """Return whether an accepted record has a MAC of this sealing key; if not, an older key or release wrote it."""
    return bool(record.headers) and record.headers[0][1].startswith(f"{key_id}.".encode())


def _mac(key: bytes, record_key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """HMAC-SHA-256 as 64 hex characters.

    Key, value, and name and value of each header are preceded by their length in four bytes, -1 for null, so that no
    two records have the same input.
    """
    parts = [
        _NULL if record_key is None else _size(len(record_key)),
        record_key or b"",
        _NULL if value is None else _size(len(value)),
        value or b"",
    ]
    for name, content in headers:
        encoded = name.encode()
        parts += (_size(len(encoded)), encoded, _NULL if content is None else _size(len(content)), content or b"")
    return hmac.digest(key, b"".join(parts), "sha256").hex().encode()
