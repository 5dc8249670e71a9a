"""How do all five services run in this one process, with the development pages in front of the gateway?"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module, metadata

from services.embedded.demo import CLIENT_ID
from services.embedded.machine import Machine
from services.embedded.pages import Pages
from services.embedded.server import together
from shared.service import Runnable

BACKGROUND = ("auth", "billing", "mailer", "news")
"""The services that speak no HTTP."""


@asynccontextmanager
async def in_process(around: Machine) -> AsyncIterator[None]:
    """Runs them for as long as the block lasts. Their settings become this process's environment.

    Raises:
        SettingsError: the environment says something that a service refuses.
    """
    os.environ.update(around.environment)
    pages = partial(
        Pages,
        inbox=around.inbox,
        base_url=around.base_url,
        client_id=CLIENT_ID,
        version=metadata.version("nest"),
    )
    gateway = ServiceTask(partial(_creator("gateway"), middleware=pages))
    others = [ServiceTask(_creator(name)) for name in BACKGROUND]
    try:
        with _patient_library():
            await together(gateway.start(), *(each.start() for each in others))
        yield
    finally:
        # First what brings new work, then those who do it.
        await gateway.stop()
        await together(*(each.stop() for each in others))


@contextmanager
def _patient_library() -> Iterator[None]:
    """Keeps aiokafka's retries off the screen.

    In a Kafka that has just begun, leaders and coordinators are still being chosen. aiokafka asks until they are, and
    logs each refusal as an error; whatever really fails is raised by the service's start.
    """
    library = logging.getLogger("aiokafka")
    level = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(level)


def _creator(name: str) -> Callable[..., Runnable]:
    create: Callable[..., Runnable] = import_module(f"services.{name}.app").create
    return create


class ServiceTask:
    """One service in a task of its own, so that its log lines and traces carry its own name.

    Args:
        create: makes it; called in its task, since settings may be refused then.
    """

    def __init__(self, create: Callable[[], Runnable]) -> None:
        self._create = create
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it; returns when it works.

        Raises:
            Exception: whatever kept it from starting.
        """
        self._task = asyncio.create_task(self._live())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Lets it finish what it has begun; returns when it has stopped. Nothing to do if it never started."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        if self._ready.is_set():
            self._over.set()
        else:
            task.cancel()
        await asyncio.wait({task})

    async def _live(self) -> None:
        async with self._create():
            self._ready.set()
            await self._over.wait()
