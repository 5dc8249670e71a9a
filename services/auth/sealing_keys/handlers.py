"""Handler that adds up the messages that sealing keys have sealed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.auth.context import Auth
from services.auth.sealing_keys.store import SEALED, SealingKey
from shared.bus.work import Work
from shared.messages.auth.sealing_keys import CountSealedMessages
from shared.telemetry import log

MOST_MESSAGES: Final = 3 * 2**30
"""Three quarters of the 2^32 messages for which random nonces are safe (NIST SP 800-38D section 8.3)."""


async def count_sealed_messages(command: CountSealedMessages, work: Work, auth: Auth) -> None:
    """Add the messages of a process to those of the key."""
    stored = await auth.sealing_keys.find(command.key_id)
    key = stored or SealingKey(id=command.key_id, messages=0)
    key = replace(key, messages=key.messages + command.count)
    auth.sealing_keys.add_or_save(key, work, stored=stored)
    SEALED.labels(key.id).set(key.messages)
    if key.messages >= MOST_MESSAGES:
        log.error("sealing key used up; put a new one first, then run nest keys reseal", key_id=key.id)
