"""Budget of each network for refused anonymous commands: beyond it nothing is stored for them.

Anybody can send commands that are refused, and each refusal stores an inbox row for days and an audit entry for months.
So the refusals of an IP prefix share the limit ``refusals-per-prefix``. Beyond it the caller gets ``throttled``, and an
audit entry a minute counts these refusals. Commands that are not refused are handled regardless, and so are refusals
whose writes must survive, such as a wrong guess that counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

from services.auth.rate_limits.limiter import RateLimiter
from shared.bus.producer import BusDown
from shared.bus.work import Work
from shared.errors import Refusal
from shared.ids import new_message_id
from shared.messages import Message
from shared.messages.auth.audit import RecordAuditEntry
from shared.messages.auth.errors import Throttled
from shared.networks import prefix
from shared.telemetry import log

ENTRY_SECONDS: Final = 60.0
"""Interval between two audit entries of one network."""
MAX_NETWORKS: Final = 1_000
"""Networks with entries of their own within an interval; the others share one without an address."""


class RefusalBudget:
    """Refused anonymous commands of this instance.

    Args:
        rate_limits: counts them.
        publish: sends a command.
        clock: returns the current time.
    """

    def __init__(
        self, rate_limits: RateLimiter, publish: Callable[[Message], Awaitable[None]], clock: Callable[[], datetime]
    ) -> None:
        self._rate_limits = rate_limits
        self._publish = publish
        self._clock = clock
        self._stopping = asyncio.Event()
        self._unrecorded: Counter[str] = Counter()
        """Refusals without an audit entry, by network."""

    async def spend(self, work: Work, refusal: Refusal) -> Throttled | None:
        """Count the refusal of an anonymous command; return the refusal that replaces it beyond the budget.

        A refusal whose writes must be committed is only counted.
        """
        client_ip = work.caller.client_ip
        quota = await self._rate_limits.quota({"refusals-per-prefix": client_ip}, work)
        if refusal.remembered and work.writes:
            quota.count()
            return None
        try:
            quota.take()
        except Throttled as throttled:
            network = prefix(client_ip or "")
            if network not in self._unrecorded and len(self._unrecorded) >= MAX_NETWORKS:
                network = ""
            self._unrecorded[network] += 1
            return throttled
        return None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record the refusals beyond the budget every minute while the block runs, and once more at its end."""
        recording = asyncio.create_task(self._record_periodically())
        try:
            yield
        finally:
            self._stopping.set()
            await recording

    async def record(self) -> None:
        """Send auth an audit entry for each network with the number of its refusals since the last one."""
        unrecorded, self._unrecorded = self._unrecorded, Counter()
        for network, count in unrecorded.items():
            entry = RecordAuditEntry(
                action="refused_orders",
                refused_as=Throttled.code,
                at=self._clock(),
                message_id=new_message_id(),
                network=network,
                count=count,
            )
            try:
                await self._publish(entry)
            except BusDown as down:
                log.warning("refused orders not recorded", error=str(down))
                self._unrecorded[network] += count

    async def _record_periodically(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(ENTRY_SECONDS):
                    await self._stopping.wait()
            await self.record()
