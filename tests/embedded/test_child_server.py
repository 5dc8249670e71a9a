import asyncio

import pytest

from services.embedded.child_server import run_all


async def test_failure_cancels_the_others_and_is_raised() -> None:
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
        await run_all(waits(), fails())
    assert cancelled.is_set()
