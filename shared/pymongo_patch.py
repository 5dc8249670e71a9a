"""Patches of pymongo: commands without tasks of their own, and background tasks that sleep at rest.

pymongo creates three asyncio tasks for every command: one that writes, one that reads, and one that looks every half
second whether the connection was interrupted. They cost a fifth of a command's CPU time in the client, and eight turns
of the event loop. With the patch the caller itself writes and reads, and a timer limits the time and notices the
interruption. Results and errors are the same.

In addition, several commands may be sent over one connection before the first reply is read.

The background tasks of a client look every half second whether they were woken. With the patch they sleep until then.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import Any, Final

from pymongo import _csot, _op_id, common, periodic_executor
from pymongo.asynchronous import pool
from pymongo.asynchronous.pool import AsyncConnection
from pymongo.common import MAX_MESSAGE_SIZE
from pymongo.errors import ProtocolError, _OperationCancelled
from pymongo.message import _UNPACK_REPLY, _OpMsg
from pymongo.network_layer import PyMongoProtocol
from pymongo.periodic_executor import AsyncPeriodicExecutor

INTERRUPTION_SECONDS: Final = 0.5
"""Interval at which a waiting command notices that its connection was interrupted, as in pymongo."""


CURSOR_SECONDS: Final = 10
"""Interval at which cursors that were not read to their end are closed on the server; in pymongo one second."""


async def _send(conn: PyMongoProtocol, buf: bytes) -> None:
    # It only fills a buffer, so it needs no time limit.
    await conn.write(buf)


async def _receive(conn: AsyncConnection, request_id: int | None, max_message_size: int = MAX_MESSAGE_SIZE) -> _OpMsg:
    watch = _Watch(conn)
    try:
        data, operation = await watch.protocol.read(request_id, max_message_size)
    finally:
        watch.end()
    if watch.protocol._pending_messages:  # noqa: SLF001 -- pymongo reads one reply at a time
        # Another command was sent on this connection before this reply was read.
        watch.protocol.transport.resume_reading()
    unpack = _UNPACK_REPLY.get(operation)
    if unpack is None:
        raise ProtocolError(f"the reply has the unknown operation code {operation}")
    return unpack(data)


class _Watch:
    """Closes a connection that waits for a reply, at its time limit or when it was interrupted."""

    __slots__ = ("_conn", "_deadline", "_timer", "protocol")

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn
        self.protocol: PyMongoProtocol = conn.conn.get_conn
        if _csot.get_timeout():
            self._deadline = _csot.get_deadline()
        else:
            limit = conn.conn.gettimeout
            self._deadline = time.monotonic() + limit if limit else math.inf
        self._start()

    def end(self) -> None:
        # It also removes the references that the timer and this object have to each other.
        self._timer.cancel()

    def _start(self) -> None:
        seconds = min(max(self._deadline - time.monotonic(), 0.0), INTERRUPTION_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        if self._conn.cancel_context.cancelled:
            self.protocol.close(_OperationCancelled("operation cancelled"))
        elif time.monotonic() >= self._deadline:
            self.protocol.close(TimeoutError("timed out"))
        else:
            self._start()


class _SleepingExecutor(AsyncPeriodicExecutor):
    """A background task that is woken by an event. As in pymongo, its runs have their least interval."""

    def __init__(self, interval: float, min_interval: float, target: Any, name: str | None = None) -> None:
        super().__init__(interval, min_interval, target, name)
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def _run(self) -> None:
        # The time limit and the ID of the operation that opened the client are not those of its background tasks.
        _csot.reset_all()
        _op_id.reset()
        try:
            while not self._stopped and await self._target():
                if self._skip_sleep:
                    self._skip_sleep = False
                    continue
                await asyncio.sleep(self._min_interval)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval - self._min_interval):
                        await self._woken.wait()
                self._woken.clear()
        finally:
            self._stopped = True


def patch_pymongo() -> None:
    """Patch all clients of this process; may be called repeatedly."""
    periodic_executor.AsyncPeriodicExecutor = _SleepingExecutor  # type: ignore[misc]
    common.KILL_CURSOR_FREQUENCY = CURSOR_SECONDS
    pool.async_sendall = _send  # type: ignore[attr-defined]
    pool.async_receive_message = _receive  # type: ignore[attr-defined]
