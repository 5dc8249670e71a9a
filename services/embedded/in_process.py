"""All five services in this process, with the development pages in front of the gateway."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module, metadata
from typing import Any

from services.embedded.billing_pages import billing_routes
from services.embedded.child_server import run_all
from services.embedded.demo import DEMO_CLIENT_ID
from services.embedded.errors import CannotStart
from services.embedded.machine import Machine
from services.embedded.pages import Pages
from services.operator.client import CommandError
from services.operator.database import migrate_all
from shared.service import Runnable
from shared.settings import load_all

BACKGROUND = ("auth", "billing", "mailer", "news")
"""Services without an HTTP API."""


@asynccontextmanager
async def run_in_process(machine: Machine) -> AsyncIterator[None]:
    """Run the services while the context is entered. Their settings are added to this process's environment.

    Raises:
        SettingsError: services refuse settings in the environment; the text names all of them.
    """
    async with billing_routes(machine) as billing:
        pages = partial(
            Pages,
            inbox=machine.inbox,
            base_url=machine.base_url,
            client_id=DEMO_CLIENT_ID,
            version=metadata.version("nest"),
            more=billing,
        )
        async with _running(machine, pages):
            yield


@asynccontextmanager
async def _running(machine: Machine, pages: Callable[..., Any]) -> AsyncIterator[None]:
    gateway_settings, *settings = load_settings(machine)
    await migrate_databases()
    gateway = ServiceTask(partial(_creator("gateway"), gateway_settings, middleware=pages))
    others = [ServiceTask(partial(_creator(name), loaded)) for name, loaded in zip(BACKGROUND, settings, strict=True)]
    try:
        with _aiokafka_errors_hidden():
            await run_all(gateway.start(), *(service.start() for service in others))
        machine.stripe.deliver_events()
        yield
    finally:
        machine.inbox.end_waits()
        # The gateway first, because it sends messages to the others.
        await gateway.stop()
        await run_all(*(service.stop() for service in others))


@contextmanager
def _aiokafka_errors_hidden() -> Iterator[None]:
    """Hide the log of aiokafka during the start.

    A Kafka that has just started still elects leaders and coordinators. aiokafka retries until they exist and logs
    each attempt as an error. A real failure is raised by the start of the service.
    """
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def load_settings(machine: Machine) -> list[Any]:
    """Add the services' settings to this process's environment and load them, those of the gateway first.

    Raises:
        SettingsError: services refuse settings in the environment; the text names all of them.
    """
    os.environ.update(machine.environment)
    names = ("gateway", *BACKGROUND)
    return load_all(getattr(import_module(f"services.{name}.settings"), f"{name.title()}Settings") for name in names)


async def migrate_databases() -> None:
    """Rewrite the documents that an earlier release has left in the data folder; after ``load_settings``.

    Raises:
        CannotStart: the data is of a newer release, or MongoDB failed.
    """
    try:
        await migrate_all(wait=0, say=lambda _: None)
    except CommandError as cannot:
        raise CannotStart(str(cannot)) from None


def _creator(name: str) -> Callable[..., Runnable]:
    create: Callable[..., Runnable] = import_module(f"services.{name}.app").create
    return create


class ServiceTask:
    """A service in its own task, so that its log entries and traces have its name.

    Args:
        create: creates the service; called in the task, because it may refuse settings.
    """

    def __init__(self, create: Callable[[], Runnable]) -> None:
        self._create = create
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the service and wait until it is ready.

        Raises:
            Exception: the failure of its start.
        """
        self._task = asyncio.create_task(self._run())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Let the service finish its messages, and wait until it has stopped. Does nothing if it did not start."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        if self._ready.is_set():
            self._stopping.set()
        else:
            task.cancel()
        await asyncio.wait({task})

    async def _run(self) -> None:
        async with self._create():
            self._ready.set()
            await self._stopping.wait()
