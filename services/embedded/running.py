"""How does one process run several services, each as if it were alone?"""

import asyncio
from collections.abc import Callable

from shared.service import Runnable


class Running:
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
