"""`nest up`: the machine, and all five services in this process.

Slow imports run while Kafka and MongoDB start, and are therefore not at the top.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from services.embedded.console import Console
from services.embedded.machine import Machine, run_machine

_MODULES = (
    "services.embedded.in_process",
    "services.gateway.app",
    "services.auth.app",
    "services.billing.app",
    "services.mailer.app",
    "services.news.app",
)

_INPUT_BYTES = 4096


class ShutdownSignal:
    """SIGINT and SIGTERM: the first cancels a start or ends `wait`, the second exits the process.

    Args:
        end_of_input: whether the end of standard input counts as a signal.
    """

    def __init__(self, *, end_of_input: bool = False) -> None:
        self._waiting = False
        self._received = asyncio.Event()
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        if end_of_input:
            loop.add_reader(sys.stdin.fileno(), self._read_input)

    async def wait(self) -> None:
        """Wait for a signal."""
        self._waiting = True
        await self._received.wait()

    def _read_input(self) -> None:
        descriptor = sys.stdin.fileno()
        if not os.read(descriptor, _INPUT_BYTES):
            asyncio.get_running_loop().remove_reader(descriptor)
            self._on_signal()

    def _on_signal(self) -> None:
        if self._received.is_set():
            # The stop hangs. Children exit with this process, or are stopped by the next start.
            os._exit(130)
        self._received.set()
        if not self._waiting and self._main:
            self._main.cancel()


async def run_up(*, folder: Path, host: str, port: int, verbose: bool, child: bool = False) -> None:
    """Run until SIGINT or SIGTERM, then stop everything within five seconds; a second signal exits at once.

    Args:
        folder: folder for all data.
        host: address of the gateway.
        port: port of the gateway.
        verbose: whether all log entries are printed, not only warnings.
        child: whether another program runs this one. Once Nest is ready, standard output gets one line of JSON with
            ``url``, ``folder`` and ``client_id``; everything else goes to standard error. The end of standard input
            stops Nest, so that it does not outlive that program.

    Raises:
        CannotStart: Nest cannot start; the text is one line with the remedy.
        asyncio.CancelledError: a signal came during the start.
    """
    began = time.monotonic()
    console = Console(sys.stderr if child else sys.stdout)
    console.print("Nest is starting")
    shutdown = ShutdownSignal(end_of_input=child)
    async with run_machine(folder, host=host, port=port, progress=console, modules=_MODULES) as machine:
        from services.embedded import demo  # noqa: PLC0415 - see the module's docstring
        from services.embedded.in_process import run_in_process  # noqa: PLC0415
        from shared.startup import tune_garbage_collector  # noqa: PLC0415
        from shared.telemetry import configure_logging  # noqa: PLC0415

        configure_logging("nest", level="info" if verbose else "warning", console=True)
        console.step("starting the five services")
        async with run_in_process(machine):
            tune_garbage_collector()
            await demo.seed(machine.base_url, machine.internal_key)
            console.print(greeting(machine, time.monotonic() - began))
            if child:
                ready = {"url": machine.base_url, "folder": str(machine.folder), "client_id": demo.DEMO_CLIENT_ID}
                sys.stdout.write(f"{json.dumps(ready)}\n")
                sys.stdout.flush()
            await shutdown.wait()
            console.print("\nNest is stopping")
    console.print("Nest has stopped")


def greeting(machine: Machine, seconds: float) -> str:
    """Return what a start prints at its end: the pages, the credentials, and what differs from production."""
    from services.embedded.demo import DEMO_CLIENT_ID  # noqa: PLC0415 - see the module's docstring
    from services.embedded.docs_pages import DOCS  # noqa: PLC0415

    url = machine.base_url
    # The documents are in the checkout only.
    docs = f"\n  Docs       {url}/dev/docs" if DOCS.is_dir() else ""
    old_clients = (
        f"\nApps that are older than Nest work here unchanged: {url}/dev/docs/http-api.md#old-clients\n"
        if docs and machine.environment["NEST_OLD_CLIENTS"] == "true"
        else ""
    )
    return f"""
Nest is running at {url}/ after {seconds:.1f} s.

  Console    {url}/console
  Inbox      {url}/dev/inbox
  Billing    {url}/dev/billing (Stripe: {machine.stripe.text})
  Reference  {url}/reference{docs}

Client ID {DEMO_CLIENT_ID}; the internal key and all data are in {machine.folder}.
{old_clients}
Ctrl-C stops it."""
