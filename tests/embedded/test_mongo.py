import asyncio
import platform
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from services.embedded import mongo as mongo_module
from services.embedded.children import start_time
from services.embedded.errors import DidNotStart, FolderNotWritable, MongodMissing, PortTaken
from services.embedded.mongo import EmbeddedMongo

Own = Callable[[], Awaitable[EmbeddedMongo]]


def client(mongo: EmbeddedMongo) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient(mongo.url)


async def test_another_goes_on_in_its_folder(tmp_path: Path) -> None:
    async with EmbeddedMongo(tmp_path) as mongo:
        url, pid = mongo.url, mongo.pid
        async with client(mongo) as connection:
            await connection.x.rows.insert_one({"_id": 1})
    assert pid is not None
    assert start_time(pid) == ""
    async with EmbeddedMongo(tmp_path) as mongo:
        assert mongo.url == url
        async with client(mongo) as connection:
            assert await connection.x.rows.find_one() == {"_id": 1}


async def test_it_comes_back_on_another_port_when_its_own_was_taken(tmp_path: Path) -> None:
    async with EmbeddedMongo(tmp_path) as mongo:
        url = mongo.url
        async with client(mongo) as connection:
            await connection.x.rows.insert_one({"_id": 1})

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port = int((tmp_path / "mongo.port").read_text())
    async with await asyncio.start_server(hang_up, "127.0.0.1", port), EmbeddedMongo(tmp_path) as mongo:
        assert mongo.url != url
        async with client(mongo) as connection:
            assert await connection.x.rows.find_one() == {"_id": 1}


async def test_faults_can_be_injected_where_tests_ask_for_it(own_mongo: Own) -> None:
    mongo = await own_mongo()
    async with client(mongo) as connection:
        fault = {"configureFailPoint": "failCommand", "mode": "off"}
        assert (await connection.admin.command(fault))["ok"] == 1


async def test_a_taken_port_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^MongoDB can't listen on port {port}, another program has it: "):
            await EmbeddedMongo(tmp_path, port).start()


async def test_a_folder_that_cannot_be_written_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderNotWritable, match=r"give another folder with --data$"):
        await EmbeddedMongo(tmp_path / "file").start()


async def test_when_it_ends_at_once_its_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "mongo").mkdir()
    (tmp_path / "mongo" / "storage.bson").write_bytes(b"not what it wrote")
    with pytest.raises(DidNotStart, match=rf"^MongoDB did not start \(it ended with code \d+\): see {tmp_path}"):
        await EmbeddedMongo(tmp_path).start()


async def test_without_a_mongod_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MongodMissing, match=r"set NEST_MONGO_URL to a MongoDB replica set of your own$"):
        await EmbeddedMongo(tmp_path).start()


async def test_a_mongod_on_the_path_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = mongo_module.find_mongod()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    (tmp_path / "mongod").symlink_to(carried)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mongo_module.find_mongod() == tmp_path / "mongod"
