"""How are the five services run as separate processes on one machine, with their logs side by side?"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from services.embedded import ports
from services.embedded.children import Child, end_orphan
from services.embedded.console import Console
from services.embedded.errors import ServiceEnded
from services.embedded.machine import DRAIN_SECONDS, Machine, machine
from services.embedded.ports import LOOPBACK
from services.embedded.server import together
from services.embedded.shutdown_signal import ShutdownSignal

SERVICES = ("gateway", "auth", "billing", "mailer", "news")

_COLOURS = dict(zip(SERVICES, (36, 32, 35, 33, 34), strict=True))


async def run_separately(*, folder: Path, host: str, port: int) -> None:
    """Runs them until SIGINT or SIGTERM, or until one of them ends, which ends the others.

    Raises:
        CannotStart: something is in the way, or a service ended; the text is one line with what to do.
        asyncio.CancelledError: it was told to stop before it had started.
    """
    console = Console()
    told = ShutdownSignal()
    async with AsyncExitStack() as stack:
        modules = ("services.embedded.pages",)
        around = await stack.enter_async_context(
            machine(folder, host=host, port=port, progress=console, modules=modules)
        )
        # Imported by `machine` while Kafka and MongoDB start.
        from services.embedded.pages import inbox_server  # noqa: PLC0415

        inbox_url = await stack.enter_async_context(inbox_server(around))
        children: dict[str, Child] = {}
        try:
            health = {name: ports.any_free() for name in SERVICES}
            await together(*(_start(name, around, children, health[name]) for name in SERVICES))
            shown = [asyncio.create_task(_show(name, child, console)) for name, child in children.items()]
            ready = asyncio.create_task(_ready(around, list(health.values())))
            await _first_of(ready, shown, children)
            console.say(
                f"\nNest is running at {around.base_url}/ in five processes;"
                f" mails and texts are at {inbox_url}. Ctrl-C stops it.\n"
            )
            await _first_of(asyncio.create_task(told.wait()), shown, children)
        finally:
            await together(*(child.stop(DRAIN_SECONDS + 1) for child in children.values()))


async def _start(name: str, around: Machine, children: dict[str, Child], health_port: int) -> None:
    record = around.folder / "pids" / f"{name}.json"
    await asyncio.to_thread(end_orphan, record, around.folder)
    children[name] = await Child.start(
        [sys.executable, "-m", "services.cli", "run", name],
        record=record,
        log=None,
        environment={
            **os.environ,
            **around.environment,
            "NEST_HEALTH_PORT": str(health_port),
            "PYTHONUNBUFFERED": "1",
        },
    )


async def _ready(around: Machine, health_ports: list[int]) -> None:
    """Waits until every service says that it is well, and what there is to try is there."""
    from services.embedded.demo import seed  # noqa: PLC0415 - see above

    await together(*(healthy(port) for port in health_ports))
    await seed(around.base_url, around.internal_key)


async def _show(name: str, child: Child, console: Console) -> None:
    """Prints what a service writes, its name before each line; returns when the service has ended."""
    label = f"{name:>8} │ "
    if sys.stdout.isatty():
        label = f"\x1b[{_COLOURS[name]}m{label}\x1b[0m"
    while line := await _line(child.output):
        console.say(label + line.decode(errors="replace").rstrip("\n"))
    await child.ended()


async def _line(output: asyncio.StreamReader) -> bytes:
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await output.readexactly(long.consumed)


async def _first_of(work: asyncio.Task[None], shown: list[asyncio.Task[None]], children: dict[str, Child]) -> None:
    """Waits for `work`.

    Raises:
        ServiceEnded: one of the services ended before.
    """
    try:
        await asyncio.wait({work, *shown}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return await work
    finally:
        work.cancel()
    for name, child in children.items():
        if child.exit_code is not None:
            raise ServiceEnded(name, child.exit_code)
    return None


_LOOK_SECONDS = 0.1


async def healthy(port: int) -> None:
    """Returns when `/healthz` on this loopback port says so; until then it asks ten times a second."""
    import httpx  # noqa: PLC0415 -- takes long to import; by now Kafka and MongoDB are starting

    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://{LOOPBACK}:{port}/healthz")).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet; whether it ended is looked at elsewhere
            await asyncio.sleep(_LOOK_SECONDS)
