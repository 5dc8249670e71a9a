"""Benchmark: how long callers wait when a process is killed, restarted or replaced, with two of each service.

Calls of every service arrive at a fixed rate on both gateways. A caller whose connection is refused or breaks repeats
its call under the same idempotency key on the other gateway, as a load balancer and a client would. The waiting time
of a call includes its repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.bench.environment import LIMITS, SERVICES
from tests.stack import API, Login, Process, Stack, eventually, running_stack

RATE: Final = 10.0
"""Calls of each kind a second."""
GOALS: Final = {"restarted": 2.0, "not restarted": 7.0, "rolling restart": 1.0}
"""Longest time that a caller may wait, seconds."""
SETTLE_SECONDS: Final = 3.0
CALL_SECONDS: Final = 30.0
USERS: Final = 50
"""So many users, so that their messages are on every partition."""


@dataclass
class Outcome:
    """What callers saw during one fault.

    Attributes:
        waited: seconds of each call.
        errors: failures that a caller saw, by kind, each with its number.
        refused: connections that were refused or broke, and whose call was repeated on the other gateway.
        fault_seconds: how long the fault took, until all processes that it starts are healthy.
    """

    waited: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    fault_seconds: float = 0.0

    @property
    def longest(self) -> float:
        """The longest wait, seconds."""
        return max(self.waited, default=0.0)


class Callers:
    """Callers of every service at a fixed rate, on the gateways in turn.

    Args:
        nest: a Nest with two gateways.
        rate: calls of each kind a second.
    """

    def __init__(self, nest: Stack, rate: float = RATE) -> None:
        self._nest = nest
        self._pause = 1 / rate
        self._count = itertools.count()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Outcome]:
        """Call during the block and wait for every response; the outcome is complete afterwards."""
        outcome = Outcome()
        stopping = asyncio.Event()
        async with AsyncExitStack() as stack:
            gateways = [
                await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=CALL_SECONDS))
                for url in self._nest.urls
            ]
            sending = asyncio.create_task(self._send(gateways, outcome, stopping))
            try:
                yield outcome
            finally:
                stopping.set()
                await sending

    async def _send(self, gateways: Sequence[httpx.AsyncClient], outcome: Outcome, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as calls:
            while not stopping.is_set():
                for method, body in self._bodies():
                    number = next(self._count)
                    order = gateways if number % 2 else gateways[::-1]
                    calls.create_task(self._call(order, method, body, number, outcome))
                    await asyncio.sleep(self._pause / 5)

    def _bodies(self) -> list[tuple[str, dict[str, Any]]]:
        user = {"user_id": f"user_{next(self._count) % USERS:026}"}
        return [
            ("get_user", user),
            ("send_magic_link", Login(f"p{next(self._count)}@example.com").request()),
            ("get_subscription_status", user),
            ("get_marketing_consent", user),
            ("list_news_items", {"client_id": "none"}),
        ]

    async def _call(
        self, gateways: Sequence[httpx.AsyncClient], method: str, body: dict[str, Any], number: int, outcome: Outcome
    ) -> None:
        started = time.monotonic()
        headers = {"idempotency-key": f"recovery-{number}"}
        if method != "send_magic_link":
            headers["authorization"] = self._nest.internal["authorization"]
        for gateway in itertools.islice(itertools.cycle(gateways), 20):
            try:
                response = await gateway.post(f"{API}/{method}", json=body, headers=headers)
            except httpx.TransportError as failure:
                outcome.refused[type(failure).__name__] += 1
                await asyncio.sleep(0.02)
                continue
            if response.status_code >= 500 or response.status_code == 429:
                outcome.errors[f"{method} {response.status_code}"] += 1
            break
        else:
            outcome.errors[f"{method} unreachable"] += 1
        outcome.waited.append(time.monotonic() - started)


class SpawnedProcess(Process):
    """A service that a Python of its own runs, with the time that its imports take."""

    async def start(self, **more: str) -> None:
        """Start it; return before it is ready."""
        environment = {**os.environ, **self.environment, **more}
        self._command = _Spawned(self.name, environment, self._log)  # type: ignore[assignment]
        await self._command.start()


class _Spawned:
    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self._arguments = (name, environment, log)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        name, environment, log = self._arguments
        with log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.cli", "run", name), env=environment, stdout=out, stderr=out
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.returncode

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def pair(nest: Stack, service: str) -> list[str]:
    """Return the labels of the two processes of a service."""
    return [label for label, process in nest.processes.items() if process.name == service]


async def healthy(nest: Stack, label: str) -> None:
    """Wait until a process reports that it is healthy."""

    async def responds() -> bool:
        async with httpx.AsyncClient() as http:
            try:
                return (await http.get(f"{nest.health[label]}/healthz")).status_code == 200
            except httpx.TransportError:
                return False

    await eventually(responds, what=label)


async def kill_and_restart(nest: Stack, service: str) -> None:
    """Kill one of two processes, and start it again at once, as a supervisor does."""
    label = pair(nest, service)[0]
    await nest.processes[label].kill()
    await nest.processes[label].start()
    await healthy(nest, label)


async def kill_for_good(nest: Stack, service: str) -> None:
    """Kill one of two processes, and leave it so for longer than its session."""
    await nest.processes[pair(nest, service)[0]].kill()
    await asyncio.sleep(GOALS["not restarted"] + 1)


async def roll(nest: Stack, service: str) -> None:
    """Stop and start one process after the other, each once the one before is healthy."""
    for label in pair(nest, service):
        await nest.processes[label].stop()
        await nest.processes[label].start()
        await healthy(nest, label)


FAULTS: Final[dict[str, Callable[[Stack, str], Awaitable[None]]]] = {
    "restarted": kill_and_restart,
    "not restarted": kill_for_good,
    "rolling restart": roll,
}


async def measure(nest: Stack, callers: Callers, fault: str, service: str) -> Outcome:
    """Call while a fault happens, and until the calls settle; leave two healthy processes."""
    async with callers.calling() as outcome:
        await asyncio.sleep(SETTLE_SECONDS / 2)
        began = time.monotonic()
        await FAULTS[fault](nest, service)
        outcome.fault_seconds = time.monotonic() - began
        await asyncio.sleep(SETTLE_SECONDS / 2)
    for label in pair(nest, service):
        if nest.processes[label].exit_code is not None:
            await nest.processes[label].start()
            await healthy(nest, label)
            await asyncio.sleep(SETTLE_SECONDS)  # the rebalance after it
    return outcome


async def run(options: argparse.Namespace, console: Console) -> bool:
    """Measure every fault of every service; return True if all goals are met."""
    table = Table(title="Longest wait of a caller, two of each service", title_justify="left")
    for column in (
        "fault",
        "service",
        "calls",
        "longest s",
        "over 1 s",
        "goal s",
        "until healthy s",
        "errors",
        "repeated connections",
    ):
        table.add_column(column)
    met = True
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nest-recovery-")))
        kafka = await stack.enter_async_context(EmbeddedKafka(folder))
        mongo = await stack.enter_async_context(EmbeddedMongo(folder))
        nest = await stack.enter_async_context(
            running_stack(
                folder,
                kafka_bootstrap=kafka.bootstrap,
                mongo_url=mongo.url,
                topic_prefix="",
                database_prefix="nest_",
                gateways=2,
                instances=dict.fromkeys(SERVICES, 2),
                separate=SERVICES,
                process=SpawnedProcess,
                settings={"NEST_LOG_LEVEL": "warning", "NEST_REPLY_SECONDS": "10", **LIMITS},
            )
        )
        callers = Callers(nest)
        for label in nest.processes:
            await healthy(nest, label)
        async with callers.calling():
            await asyncio.sleep(SETTLE_SECONDS)  # connections and caches
        for fault in options.faults:
            for service in options.services:
                outcome = await measure(nest, callers, fault, service)
                good = outcome.longest <= GOALS[fault] and not outcome.errors
                met = met and good
                console.print(f"[dim]{fault} {service}: {outcome.longest:.2f} s[/dim]")
                table.add_row(
                    fault,
                    service,
                    str(len(outcome.waited)),
                    f"{outcome.longest:.2f}",
                    str(sum(waited > 1 for waited in outcome.waited)),
                    f"{GOALS[fault]:.0f} {'met' if good else 'MISSED'}",
                    f"{outcome.fault_seconds:.1f}",
                    ", ".join(f"{count} {kind}" for kind, count in outcome.errors.items()),
                    ", ".join(f"{count} {kind}" for kind, count in outcome.refused.items()),
                )
    console.print(table)
    return met


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table, and return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recovery", description=__doc__)
    parser.add_argument("--services", nargs="+", choices=SERVICES, default=SERVICES, help="by default all")
    parser.add_argument("--faults", nargs="+", choices=tuple(GOALS), default=tuple(GOALS), help="by default all")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    return 0 if uvloop.run(run(options, console)) else 1


if __name__ == "__main__":
    sys.exit(main())
