from typing import Any

import pytest

from services.embedded.in_process import ServiceTask


class Stub:
    """A service that records its start and stop."""

    settings: Any = None

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[str] = []
        self._fails = fails

    async def __aenter__(self) -> None:
        self.events.append("start")
        if self._fails:
            raise ConnectionError("no database")

    async def __aexit__(self, *_: object) -> None:
        self.events.append("stop")


async def test_service_runs_until_it_is_stopped() -> None:
    stub = Stub()
    running = ServiceTask(lambda: stub)
    await running.start()
    assert stub.events == ["start"]
    await running.stop()
    await running.stop()
    assert stub.events == ["start", "stop"]


async def test_failed_start_is_raised() -> None:
    running = ServiceTask(lambda: Stub(fails=True))
    with pytest.raises(ConnectionError, match="no database"):
        await running.start()
    await running.stop()
