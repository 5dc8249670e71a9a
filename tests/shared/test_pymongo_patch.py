"""Commands that are sent and read without tasks, and their time limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo import AsyncMongoClient, periodic_executor
from pymongo.errors import AutoReconnect, NetworkTimeout, OperationFailure

from shared.mongo import connect, database, dependency_down, time_limit
from shared.pymongo_patch import _SleepingExecutor, patch_pymongo


class Link:
    """A TCP connection through this process to MongoDB, which can hold back its replies.

    Attributes:
        url: connection string of the server behind it.
        silent: set while replies are held back.
    """

    def __init__(self) -> None:
        self.url = ""
        self._open = asyncio.Event()
        self._open.set()

    def silence(self) -> None:
        """Hold back all replies from now on."""
        self._open.clear()

    def restore(self) -> None:
        """Forward replies again."""
        self._open.set()

    async def forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, replies: bool) -> None:
        """Copy one direction until it ends."""
        try:
            while data := await source.read(65536):
                if replies:
                    await self._open.wait()
                target.write(data)
        except OSError:
            pass
        finally:
            target.close()


@asynccontextmanager
async def link_to(mongo_url: str) -> AsyncIterator[Link]:
    """Open a port that forwards to MongoDB."""
    link = Link()
    host, port = mongo_url.removeprefix("mongodb://").partition("/")[0].split(":")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(link.forward(reader, there, replies=False), link.forward(back, writer, replies=True))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    link.url = f"mongodb://127.0.0.1:{server.sockets[0].getsockname()[1]}/?directConnection=true"
    try:
        yield link
    finally:
        link.restore()
        server.close()


async def test_a_command_creates_no_task(mongo_url: str) -> None:
    """Fails if a release of pymongo no longer calls the patched functions."""
    created: list[str] = []

    def recording(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        created.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    async with connect(mongo_url, application="test") as client:
        await client.admin.command("ping")
        loop.set_task_factory(recording)
        try:
            for _ in range(5):
                await client.admin.command("ping")
        finally:
            loop.set_task_factory(None)
    # The monitors of the server have tasks.
    assert len(created) < 5, created


async def test_a_server_that_does_not_reply_is_left_at_the_time_limit(mongo_url: str) -> None:
    async with link_to(mongo_url) as link, connect(link.url, application="test", timeout=30.0) as client:
        things = database(client, "test")["things"]
        await things.find_one({"_id": "a"})
        link.silence()
        began = time.monotonic()
        with pytest.raises(NetworkTimeout) as failed, time_limit(0.3):
            await things.find_one({"_id": "a"})
        assert 0.25 < time.monotonic() - began < 15
        assert dependency_down(failed.value)
        link.restore()
        assert await things.find_one({"_id": "a"}) is None


async def test_a_cancelled_command_does_not_confuse_the_next_reply(mongo_url: str) -> None:
    async with link_to(mongo_url) as link, connect(link.url, application="test", timeout=30.0) as client:
        things = database(client, "test")["things"]
        await things.find_one({"_id": "a"})
        link.silence()
        task = asyncio.create_task(things.find_one({"_id": "a"}))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        link.restore()
        assert (await client.admin.command("ping"))["ok"] == 1


async def test_an_interrupted_connection_ends_its_command(mongo_url: str) -> None:
    """The monitor interrupts all connections to a server whose heartbeat has failed."""
    async with link_to(mongo_url) as link:
        patch_pymongo()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            link.url, connectTimeoutMS=200, heartbeatFrequencyMS=500, timeoutMS=20_000, retryReads=False
        )
        async with client:
            await client.admin.command("ping")
            link.silence()
            began = time.monotonic()
            with pytest.raises(AutoReconnect):
                await client.admin.command("ping")
            assert time.monotonic() - began < 15


async def test_large_replies_and_documents_pass(mongo_url: str) -> None:
    async with connect(mongo_url, application="test") as client:
        things = database(client, "test_pymongo_patch")["things"]
        await things.insert_many([{"_id": number, "text": "x" * 3_000_000} for number in range(8)])
        assert [len(each["text"]) async for each in things.find()] == [3_000_000] * 8
        await things.drop()


async def test_commands_on_one_connection_may_be_sent_before_a_reply_is_read(mongo_url: str) -> None:
    async with (
        connect(mongo_url, application="test") as client,
        await client._conn_for_writes(None, "test") as connection,
    ):

        async def echoed(size: int) -> int:
            pipeline = [{"$documents": [{"text": "x" * size}]}]
            command = {"aggregate": 1, "pipeline": pipeline, "cursor": {}}
            reply = await connection.command("admin", command, client=client)
            return len(reply["cursor"]["firstBatch"][0]["text"])

        async def refused() -> None:
            await connection.command("admin", {"nonsense": 1}, client=client)

        sizes = [1, 3_000_000, 10, 200_000, 5]
        async with asyncio.timeout(10):
            first, wrong, *others = await asyncio.gather(
                echoed(7), refused(), *map(echoed, sizes), return_exceptions=True
            )
            assert (first, others) == (7, sizes)
            assert isinstance(wrong, OperationFailure)
            assert await echoed(2) == 2


async def test_background_tasks_sleep_until_they_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_pymongo()
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def counted_sleep(seconds: float) -> None:
        # Other clients of this process sleep too.
        if asyncio.current_task() is executor._task:
            pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", counted_sleep)
    runs = asyncio.Queue[float]()

    async def run() -> bool:
        runs.put_nowait(time.monotonic())
        return True

    executor = periodic_executor.AsyncPeriodicExecutor(600.0, 0.1, run)
    executor.open()
    async with asyncio.timeout(30):
        first = await runs.get()
        for _ in range(5):
            executor.wake()
        assert await runs.get() - first >= 0.1
        await sleep(0.5)
        assert (runs.qsize(), pauses) == (0, [0.1, 0.1])
        executor.wake()
        await runs.get()
        executor.close()
        await executor.join()


async def test_clients_have_such_background_tasks() -> None:
    client = connect("mongodb://127.0.0.1:1/?replicaSet=rs0", application="test")
    assert isinstance(client._kill_cursors_executor, _SleepingExecutor)
    await client.close()
