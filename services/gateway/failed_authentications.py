"""Failed authentications: a back-off per network, a metric, log entries, and audit entries with a cap per minute.

A wrong key or token is always examined, so that a good one of the same network passes at any time. Only the answer to
failures changes: beyond the limit of their network they get 429 instead of 401 or 403.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Final, Literal

from prometheus_client import Counter

from services.gateway.errors import TooManyRequests
from shared.bus.producer import BusDown
from shared.errors import Refusal
from shared.ids import new_message_id
from shared.messages import Caller
from shared.messages.auth.audit import RecordAuditEntry
from shared.networks import prefix
from shared.telemetry import log

Credential = Literal["internal key", "access token", "unknown scheme"]
"""Credential that was wrong: an internal key, a bearer token that auth did not sign, or neither."""
ACTIONS: Final[dict[Credential, str]] = {
    "internal key": "authenticate_internal_key",
    "access token": "authenticate_access_token",
    "unknown scheme": "authenticate_access_token",
}
MAX_NETWORKS: Final = 10_000
"""Networks that are remembered; a few megabytes."""
REPORT_SECONDS: Final = 20.0
"""Interval of log and audit entries."""
FIRST_REPORT_SECONDS: Final = 1.0
"""How soon failures after a quiet interval are reported, together with those that follow within this time."""
MAX_REPORTS: Final = 5
"""Entries per interval and gateway, those of the networks with most failures. All others are one entry per credential,
without an address: at most 24 a minute."""
FAILURES: Final = Counter(
    "nest_gateway_failed_authentications",
    "Requests with a wrong internal key or a bearer token that auth did not sign.",
    ["credential", "answer"],
)
Publish = Callable[[RecordAuditEntry, Caller], Awaitable[None]]
"""Sends auth an audit entry, with the caller of the failed requests. Raises BusDown."""


@dataclass(slots=True)
class _Budget:
    left: float
    at: float


@dataclass(slots=True)
class _Failures:
    """Failures of one network with one kind of credential that are not reported yet."""

    code: str
    client_ip: str | None
    count: int = 0


@dataclass(eq=False)
class FailedAuthentications:
    """Failed authentications of one gateway; reports them while ``start`` and ``stop`` enclose its run.

    Attributes:
        publish: sends an audit entry.
        per_minute: failures of one network and kind of credential per minute, at once or spread, that get their own
            answer.
        clock: monotonic seconds.
    """

    publish: Publish
    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _budgets: OrderedDict[tuple[Credential, str], _Budget] = field(default_factory=OrderedDict, init=False)
    _unreported: dict[tuple[Credential, str], _Failures] = field(default_factory=dict, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to report."""
        self._task = asyncio.create_task(self._keep_reporting())

    async def stop(self) -> None:
        """Report what is left and stop. If Kafka is away, the audit entries are lost."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self.report()

    def answer(self, credential: Credential, refusal: Refusal, client_ip: str | None) -> Refusal:
        """Count a failure and return its answer: the refusal, or TooManyRequests beyond the limit of its network."""
        network = prefix(client_ip or "")
        wait = self._wait(credential, network)
        FAILURES.labels(credential, "refused" if wait == 0 else "backed off").inc()
        key = (credential, network)
        if key not in self._unreported and len(self._unreported) >= MAX_NETWORKS:
            key = (credential, "")
        failures = self._unreported.setdefault(key, _Failures(refusal.code, None))
        failures.count += 1
        failures.client_ip = client_ip if key[1] else None
        self._wake.set()
        return refusal if wait == 0 else TooManyRequests(retry_after=wait)

    def _wait(self, credential: Credential, network: str) -> int:
        """Take one failure from a network's budget; return 0, or the whole seconds until there is one again."""
        now, rate = self.clock(), self.per_minute / 60
        budget = self._budgets.setdefault((credential, network), _Budget(self.per_minute, now))
        self._budgets.move_to_end((credential, network))
        if len(self._budgets) > MAX_NETWORKS:
            self._budgets.popitem(last=False)
        budget.left = min(self.per_minute, budget.left + (now - budget.at) * rate)
        budget.at = now
        if budget.left < 1:
            return max(1, ceil((1 - budget.left) / rate))
        budget.left -= 1
        return 0

    async def _keep_reporting(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(FIRST_REPORT_SECONDS)
            await self.report()
            await asyncio.sleep(REPORT_SECONDS)

    async def report(self) -> None:
        """Log the failures since the last report, and send auth their audit entries."""
        self._wake.clear()
        unreported, self._unreported = self._unreported, {}
        by_count = sorted(unreported.items(), key=lambda item: item[1].count, reverse=True)
        reports = dict(by_count[:MAX_REPORTS])
        for (credential, _), failures in by_count[MAX_REPORTS:]:
            others = reports.setdefault((credential, ""), _Failures(failures.code, None))
            others.count += failures.count
            others.client_ip = None
        for (credential, network), failures in reports.items():
            log.warning("authentication failed", credential=credential, network=network or None, count=failures.count)
            await self._publish(credential, network, failures)

    async def _publish(self, credential: Credential, network: str, failures: _Failures) -> None:
        entry = RecordAuditEntry(
            action=ACTIONS[credential],
            refused_as=failures.code,
            at=datetime.now(UTC),
            message_id=new_message_id(),
            count=failures.count,
        )
        try:
            await self.publish(entry, Caller(client_ip=failures.client_ip))
        except BusDown:
            # Reported with the next ones.
            later = self._unreported.setdefault((credential, network), failures)
            if later is not failures:
                later.count += failures.count
            self._wake.set()
