"""Has the person who started this told it to stop?"""

import asyncio
import os
import signal


class ShutdownSignal:
    """Turns signals into a stop: the first cancels a start or ends `wait`, the second ends the process."""

    def __init__(self) -> None:
        self._waiting = False
        self._told = asyncio.Event()
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    async def wait(self) -> None:
        """Returns when a signal has come."""
        self._waiting = True
        await self._told.wait()

    def _on_signal(self) -> None:
        if self._told.is_set():
            # What hangs can't be asked; children end with us, or at the next start.
            os._exit(130)
        self._told.set()
        if not self._waiting and self._main:
            self._main.cancel()
