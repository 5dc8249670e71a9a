"""What does `nest up` do? It makes this machine one on which Nest runs, and runs all five services in one process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module, metadata
from pathlib import Path

from services.embedded import demo
from services.embedded.console import Console
from services.embedded.machine import Machine, machine
from services.embedded.pages import Pages
from services.embedded.running import Running
from services.embedded.together import together
from services.embedded.told import Told
from shared.service import Runnable
from shared.telemetry import configure_logging

BACKGROUND = ("auth", "billing", "mailer", "news")
"""The services that speak no HTTP."""


async def run_up(*, folder: Path, host: str, port: int, verbose: bool) -> None:
    """Runs until SIGINT or SIGTERM, then stops everything within five seconds; a second signal ends it at once.

    Raises:
        CannotStart: something is in the way; the text is one line with what to do.
        asyncio.CancelledError: it was told to stop before it had started.
    """
    began = time.monotonic()
    console = Console()
    console.say("Nest is starting")
    configure_logging("nest", level="info" if verbose else "warning", console=True)
    told = Told()
    # Reading the services' source takes as long as starting MongoDB, so both at once.
    reading = asyncio.create_task(asyncio.to_thread(_import_services))
    async with machine(folder, host=host, port=port, progress=console) as around:
        os.environ.update(around.environment)
        await reading
        console.step("starting the five services")
        async with _services(around):
            await demo.seed(around.base_url, around.internal_key)
            console.say(_greeting(around, time.monotonic() - began))
            await told.wait()
            console.say("\nNest is stopping")
    console.say("Nest has stopped")


@asynccontextmanager
async def _services(around: Machine) -> AsyncIterator[None]:
    pages = partial(
        Pages,
        inbox=around.inbox,
        base_url=around.base_url,
        client_id=demo.CLIENT_ID,
        version=metadata.version("nest"),
    )
    gateway = Running(partial(_creator("gateway"), around=pages))
    others = [Running(_creator(name)) for name in BACKGROUND]
    try:
        await together(gateway.start(), *(each.start() for each in others))
        yield
    finally:
        # First what brings new work, then those who do it.
        await gateway.stop()
        await together(*(each.stop() for each in others))


def _import_services() -> None:
    for name in ("gateway", *BACKGROUND):
        import_module(f"services.{name}.app")


def _creator(name: str) -> Callable[..., Runnable]:
    create: Callable[..., Runnable] = import_module(f"services.{name}.app").create
    return create


def _greeting(around: Machine, seconds: float) -> str:
    return f"""
Nest is running at {around.base_url}/ after {seconds:.1f} s.

  Log in by clicking   {around.base_url}/
  Mails and texts      {around.base_url}/dev/inbox
  Demo client          {demo.CLIENT_ID}
  Internal key         internal_key in {around.folder / "secrets.json"}
  Data and logs        {around.folder}

Try:

  curl -i {around.base_url}/1/2021-10-06/list_news_items -d '{{"client_id": "{demo.CLIENT_ID}"}}'

Ctrl-C stops it."""
