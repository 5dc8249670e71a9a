"""How do all five services run in this one process, with the development pages in front of the gateway?"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module, metadata

from services.embedded.demo import CLIENT_ID
from services.embedded.machine import Machine
from services.embedded.pages import Pages
from services.embedded.running import Running
from services.embedded.together import together
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
    gateway = Running(partial(_creator("gateway"), around=pages))
    others = [Running(_creator(name)) for name in BACKGROUND]
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
