import asyncio
from typing import Any

import pytest

from services.embedded.in_process import ServiceTask
from services.embedded.server import together


class Stub:
    """A service that says what happens to it."""

    settings: Any = None

    def __init__(self, *, refuses: bool = False) -> None:
        self.happened: list[str] = []
        self._refuses = refuses

    async def __aenter__(self) -> None:
        self.happened.append("start")
        if self._refuses:
            raise ConnectionError("no database")

    async def __aexit__(self, *_: object) -> None:
        self.happened.append("stop")


async def test_a_service_runs_until_it_is_stopped() -> None:
    stub = Stub()
    running = ServiceTask(lambda: stub)
    await running.start()
    assert stub.happened == ["start"]
    await running.stop()
    await running.stop()
    assert stub.happened == ["start", "stop"]


async def test_what_keeps_it_from_starting_is_raised() -> None:
    running = ServiceTask(lambda: Stub(refuses=True))
    with pytest.raises(ConnectionError, match="no database"):
        await running.start()
    await running.stop()


async def test_when_one_of_several_fails_the_others_are_cancelled_and_the_reason_is_raised() -> None:
    cancelled = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def fails() -> None:
        raise ConnectionError("no database")

    with pytest.raises(ConnectionError, match="no database"):
        await together(waits(), fails())
    assert cancelled.is_set()
