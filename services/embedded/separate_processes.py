"""`nest services`: the machine, and the five services as separate processes with interleaved logs."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from services.embedded import ports
from services.embedded.child_server import run_all
from services.embedded.children import Child, stop_orphan
from services.embedded.console import Console
from services.embedded.errors import CannotStart
from services.embedded.machine import DRAIN_SECONDS, Machine, run_machine
from services.embedded.up import ShutdownSignal

COLOURS = {"gateway": 36, "auth": 32, "billing": 35, "mailer": 33, "news": 34}
"""ANSI colours of the services' names."""
_POLL_SECONDS = 0.1


async def run_separately(*, folder: Path, host: str, port: int) -> None:
    """Run until SIGINT or SIGTERM, or until a service exits, which stops the others.

    Raises:
        CannotStart: Nest cannot start, or a service exited; the text is one line with the remedy.
        SettingsError: services refuse settings in the environment; the text names all of them.
        asyncio.CancelledError: a signal came during the start.
    """
    console = Console()
    shutdown = ShutdownSignal()
    modules = ("services.embedded.in_process",)
    async with AsyncExitStack() as stack:
        machine = await stack.enter_async_context(
            run_machine(folder, host=host, port=port, progress=console, modules=modules)
        )
        from services.embedded.in_process import load_settings, migrate_databases  # noqa: PLC0415 - imported meanwhile
        from services.embedded.pages import inbox_server  # noqa: PLC0415 - imported while Kafka and MongoDB start

        # Here, because the first service that exits stops the others, before they report theirs.
        load_settings(machine)
        await migrate_databases()
        inbox_url = await stack.enter_async_context(inbox_server(machine))
        children: dict[str, Child] = {}
        try:
            health = {name: ports.any_free() for name in COLOURS}
            await run_all(*(_start(name, machine, children, health_port) for name, health_port in health.items()))
            logs = [asyncio.create_task(_print_log(name, child, console)) for name, child in children.items()]
            await _wait(asyncio.create_task(_until_ready(machine, list(health.values()))), logs, children)
            console.print(
                f"\nNest is running at {machine.base_url}/ in five processes;"
                f" mails and texts are at {inbox_url}. Ctrl-C stops it.\n"
            )
            await _wait(asyncio.create_task(shutdown.wait()), logs, children)
        finally:
            await run_all(*(child.stop(DRAIN_SECONDS + 1) for child in children.values()))


async def _start(name: str, machine: Machine, children: dict[str, Child], health_port: int) -> None:
    record = machine.folder / "pids" / f"{name}.json"
    await asyncio.to_thread(stop_orphan, record, machine.folder)
    environment = {"NEST_HEALTH_PORT": str(health_port), "PYTHONUNBUFFERED": "1"}
    children[name] = await Child.start(
        [sys.executable, "-m", "services.cli", "run", name],
        record=record,
        log=None,
        environment={**os.environ, **machine.environment, **environment},
    )


async def _until_ready(machine: Machine, health_ports: list[int]) -> None:
    """Wait until every service is healthy, and create the demo data."""
    from services.embedded.demo import seed  # noqa: PLC0415 - imported while Kafka and MongoDB start

    await run_all(*(_until_healthy(port) for port in health_ports))
    machine.stripe.deliver_events()
    await seed(machine.base_url, machine.internal_key)


async def _until_healthy(port: int) -> None:
    import httpx  # noqa: PLC0415 - imported while Kafka and MongoDB start

    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://{ports.LOOPBACK}:{port}/healthz")).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet; `_wait` notices an exit
            await asyncio.sleep(_POLL_SECONDS)


async def _print_log(name: str, child: Child, console: Console) -> None:
    """Print the log of a service with its name before each line, until it exits."""
    label = f"{name:>8} │ "
    if sys.stdout.isatty():
        label = f"\x1b[{COLOURS[name]}m{label}\x1b[0m"
    while line := await _read_line(child.output):
        console.print(label + line.decode(errors="replace").rstrip("\n"))
    await child.wait()


async def _read_line(output: asyncio.StreamReader) -> bytes:
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await output.readexactly(long.consumed)


async def _wait(work: asyncio.Task[None], logs: list[asyncio.Task[None]], children: dict[str, Child]) -> None:
    """Wait for a task.

    Raises:
        CannotStart: a service exited before.
    """
    try:
        await asyncio.wait({work, *logs}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return await work
    finally:
        work.cancel()
    for name, child in children.items():
        if child.exit_code is not None:
            raise CannotStart(f"{name} exited with code {child.exit_code}: see its last lines above")
    return None
