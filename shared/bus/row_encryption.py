"""Encryption of messages in inbox and timer rows, so that the database reveals no personal data.

Most messages name people by meaningless IDs. Message classes that contain an address or a number are declared
``personal``: rows contain the key, body and reply of such a message as ciphertext, and a keyed hash of its content. A
caller's IP address is ciphertext in every row. So an erasure leaves nothing readable in the inbox or the timers, and
the ciphertext is deleted with its row.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, Final

from shared.bus.envelope import Envelope
from shared.messages import MESSAGES
from shared.sealing import Sealer

PURPOSE: Final = "inbox"
"""Purpose of the keyed hashes of personal messages."""


class RowEncryption:
    """Converts messages to fields of one service's rows and back, personal ones encrypted."""

    def __init__(self, sealer: Sealer, service: str) -> None:
        self._sealer = sealer
        self._receiver = f"{service}.rows"

    def message_row(self, message: Envelope) -> dict[str, Any]:
        """Return the row fields of a message that is to be sent."""
        row = message.row()
        client_ip = row["caller"].pop("client_ip", None)
        if client_ip is not None:
            # The rate limits and the audit of the messages that follow need it.
            row["clientIp"] = self._sealer.seal(self._receiver, client_ip.encode())
        if _is_personal(message):
            content = json.dumps([message.key, message.body.decode()], ensure_ascii=False)
            row.update(key="", body=b"", sealed=self._sealer.seal(self._receiver, content.encode()))
        return row

    def message_of(self, row: dict[str, Any], cause: Envelope | None = None) -> Envelope:
        """Return the message of row fields; ``cause`` is as for ``Envelope.of_row``.

        Raises:
            CannotUnseal: the sealing key is not held any more.
        """
        sealed = row.get("sealed")
        if sealed is not None:
            key, body = json.loads(self._sealer.unseal(self._receiver, sealed))
            row = {**row, "key": key, "body": body.encode()}
        client_ip = row.get("clientIp")
        if client_ip is not None:
            unsealed = self._sealer.unseal(self._receiver, client_ip).decode()
            row = {**row, "caller": {**row["caller"], "client_ip": unsealed}}
        return Envelope.of_row(row, cause)

    def reply_row(self, message: Envelope, body: bytes | None) -> bytes | str | None:
        """Return the row field of the reply to a message."""
        if body is None or not _is_personal(message):
            return body
        return self._sealer.seal(self._receiver, body)

    def reply_of(self, stored: bytes | str | None) -> bytes | None:
        """Return the reply of a row field; raise as ``message_of``."""
        return self._sealer.unseal(self._receiver, stored) if isinstance(stored, str) else stored

    def content_hash(self, message: Envelope) -> bytes | str:
        """Return a hash that differs for two messages with the same ID and different content.

        It is the fingerprint of the client's request if the message has one, otherwise the hash of its body.
        """
        if message.fingerprint:
            return bytes.fromhex(message.fingerprint)
        if _is_personal(message):
            # The plain hash of a phone number is reversed by trying all numbers.
            return self._sealer.keyed_hash(PURPOSE, message.body)
        return hashlib.sha256(message.body).digest()

    def matches(self, stored: bytes | str, message: Envelope) -> bool:
        """Return True if ``content_hash`` returned the stored hash for the same message."""
        if isinstance(stored, str):
            return self._sealer.matches(PURPOSE, stored, message.body)
        if message.fingerprint:
            return hmac.compare_digest(stored, bytes.fromhex(message.fingerprint))
        # Personal or not: the row may be older than the declaration of its class as personal.
        return hmac.compare_digest(stored, hashlib.sha256(message.body).digest())


def _is_personal(message: Envelope) -> bool:
    kind = MESSAGES.get(message.wire)
    return kind is not None and kind.personal
