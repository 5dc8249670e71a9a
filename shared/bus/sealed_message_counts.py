"""Count of the messages that each process seals, reported to auth, which adds them up for each sealing key.

AES-GCM with random nonces is safe for 2^32 messages under one key (NIST SP 800-38D section 8.3). A process reports a
block of messages before it seals them, so the sum is never below the real number, except that a burst of more than a
block within ``CHECK_SECONDS`` is reported a moment later. Of its last block a process may use a part only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from shared.bus.background_task import BackgroundTask
from shared.bus.producer import BusDown
from shared.messages import Message
from shared.messages.auth.sealing_keys import CountSealedMessages
from shared.sealing import Sealer
from shared.telemetry import log

BLOCK: Final = 2**16
"""Messages of one report. Every start of a process counts as so many, so 32,768 starts reach the first alarm."""
CHECK_SECONDS: Final = 5.0


class SealedMessageCounts(BackgroundTask):
    """Reports the messages that the sealer of this process seals, once it has sealed any.

    The end of the process needs no last report, which could delay it: half a block was reported in advance.

    Args:
        sealer: counts them.
        publish: sends a message; raises BusDown.
    """

    def __init__(self, sealer: Sealer, publish: Callable[[Message], Awaitable[None]]) -> None:
        self._sealer = sealer
        self._publish = publish
        self._reported = 0

    async def report(self) -> None:
        """Report as many blocks as are needed for half a block to be in reserve; raise BusDown."""
        sealed = self._sealer.sealed_messages
        missing = sealed + BLOCK // 2 - self._reported
        if sealed and missing > 0:
            count = -(-missing // BLOCK) * BLOCK
            key_id = self._sealer.active_key_id
            await self._publish(CountSealedMessages(key=key_id, key_id=key_id, count=count))
            self._reported += count

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.report()
            except BusDown as down:
                log.warning("bus down", error=str(down))
            except Exception:  # noqa: BLE001 -- without this task nothing would be counted
                log.exception("sealed messages not counted")
