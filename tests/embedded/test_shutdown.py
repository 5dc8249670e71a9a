"""The end of standard input as a signal, for `nest up --child`."""

import asyncio
import os
import sys

import pytest

from services.embedded.up import ShutdownSignal


async def test_end_of_input_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(read) as stdin:  # noqa: ASYNC230, PTH123 -- a pipe
        monkeypatch.setattr(sys, "stdin", stdin)
        signal = ShutdownSignal(end_of_input=True)
        waiting = asyncio.create_task(signal.wait())
        os.write(write, b"ignored\n")
        await asyncio.sleep(0.05)
        assert not waiting.done()
        os.close(write)
        await asyncio.wait_for(waiting, 30)


async def test_end_of_input_during_the_start_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(write)
    with open(read) as stdin:  # noqa: ASYNC230, PTH123 -- a pipe
        monkeypatch.setattr(sys, "stdin", stdin)

        async def start() -> None:
            ShutdownSignal(end_of_input=True)
            await asyncio.sleep(5)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(start())
