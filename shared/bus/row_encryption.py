"""How is a message kept in a row, so that who reads the database learns of no person from it?

Most messages name people by ids that mean nothing by themselves. Those that say more, an address or a number, are
declared ``personal``: rows hold their key, their body and their reply as ciphertext, and of what came in a keyed hash.
The network address that a caller came from is ciphertext in every row. So nothing readable outlives the erasure of a
person in an inbox or among the timers; the ciphertext goes with its row.
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
"""What the keyed hashes of personal messages are for."""


class RowEncryption:
    """Closes personal messages for the rows of one service, and opens them again.

    Args:
        sealer: closes and opens.
        service: whose rows.
    """

    def __init__(self, sealer: Sealer, service: str) -> None:
        self._sealer = sealer
        self._receiver = f"{service}.rows"

    def row(self, message: Envelope) -> dict[str, Any]:
        """What a row keeps of a message that is still to be published."""
        row = message.row()
        client_ip = row["caller"].pop("client_ip", None)
        if client_ip is not None:
            # Limits and the audit of what follows from a message still need it.
            row["clientIp"] = self._sealer.seal(self._receiver, client_ip.encode())
        if _personal(message):
            said = json.dumps([message.key, message.body.decode()], ensure_ascii=False)
            row.update(key="", body=b"", sealed=self._sealer.seal(self._receiver, said.encode()))
        return row

    def message(self, row: dict[str, Any], cause: Envelope | None = None) -> Envelope:
        """The message that ``row`` kept; ``cause`` as of ``Envelope.of_row``.

        Raises:
            CannotUnseal: it was sealed with a key that is gone.
        """
        sealed = row.get("sealed")
        if sealed is not None:
            key, body = json.loads(self._sealer.unseal(self._receiver, sealed))
            row = {**row, "key": key, "body": body.encode()}
        client_ip = row.get("clientIp")
        if client_ip is not None:
            opened = self._sealer.unseal(self._receiver, client_ip).decode()
            row = {**row, "caller": {**row["caller"], "client_ip": opened}}
        return Envelope.of_row(row, cause)

    def reply(self, message: Envelope, body: bytes | None) -> bytes | str | None:
        """What a row keeps of the reply to a message."""
        if body is None or not _personal(message):
            return body
        return self._sealer.seal(self._receiver, body)

    def reply_of(self, kept: bytes | str | None) -> bytes | None:
        """The reply that ``reply`` kept.

        Raises:
            CannotUnseal: as of ``message``.
        """
        return self._sealer.unseal(self._receiver, kept) if isinstance(kept, str) else kept

    def hash(self, message: Envelope) -> bytes | str:
        """What tells two messages with one id apart: the client's request, else the body."""
        if message.fingerprint:
            return bytes.fromhex(message.fingerprint)
        if _personal(message):
            # A plain hash of a phone number is found by trying them all.
            return self._sealer.keyed_hash(PURPOSE, message.body)
        return hashlib.sha256(message.body).digest()

    def is_of(self, kept: bytes | str, message: Envelope) -> bool:
        """Whether ``hash`` made this of the same message."""
        if isinstance(kept, str):
            return self._sealer.matches(PURPOSE, kept, message.body)
        if message.fingerprint:
            return hmac.compare_digest(kept, bytes.fromhex(message.fingerprint))
        # Whether it is personal or not: rows of before it was declared so are still read.
        return hmac.compare_digest(kept, hashlib.sha256(message.body).digest())


def _personal(message: Envelope) -> bool:
    kind = MESSAGES.get(message.wire)
    return kind is not None and kind.personal
