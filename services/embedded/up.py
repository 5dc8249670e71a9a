"""What does `nest up` do? It makes this machine one on which Nest runs, and runs all five services in one process.

What takes long to import is imported while Kafka and MongoDB start, hence not at the top.
"""

import time
from pathlib import Path

from services.embedded.console import Console
from services.embedded.machine import Machine, machine
from services.embedded.shutdown_signal import ShutdownSignal

_MODULES = (
    "services.embedded.in_process",
    "services.gateway.app",
    "services.auth.app",
    "services.billing.app",
    "services.mailer.app",
    "services.news.app",
)


async def run_up(*, folder: Path, host: str, port: int, verbose: bool) -> None:
    """Runs until SIGINT or SIGTERM, then stops everything within five seconds; a second signal ends it at once.

    Raises:
        CannotStart: something is in the way; the text is one line with what to do.
        asyncio.CancelledError: it was told to stop before it had started.
    """
    began = time.monotonic()
    console = Console()
    console.say("Nest is starting")
    told = ShutdownSignal()
    async with machine(folder, host=host, port=port, progress=console, modules=_MODULES) as around:
        from services.embedded import demo  # noqa: PLC0415 - see the top
        from services.embedded.in_process import in_process  # noqa: PLC0415
        from shared.service import tune_garbage_collector  # noqa: PLC0415
        from shared.telemetry import configure_logging  # noqa: PLC0415

        configure_logging("nest", level="info" if verbose else "warning", console=True)
        console.step("starting the five services")
        async with in_process(around):
            tune_garbage_collector()
            await demo.seed(around.base_url, around.internal_key)
            console.say(_greeting(around, demo.CLIENT_ID, time.monotonic() - began))
            await told.wait()
            console.say("\nNest is stopping")
    console.say("Nest has stopped")


def _greeting(around: Machine, client_id: str, seconds: float) -> str:
    return f"""
Nest is running at {around.base_url}/ after {seconds:.1f} s.

  Log in by clicking   {around.base_url}/
  Mails and texts      {around.base_url}/dev/inbox
  Demo client          {client_id}
  Internal key         internal_key in {around.folder / "secrets.json"}
  Data and logs        {around.folder}

Try:

  curl -i {around.base_url}/1/2021-10-06/list_news_items -d '{{"client_id": "{client_id}"}}'

Ctrl-C stops it."""
