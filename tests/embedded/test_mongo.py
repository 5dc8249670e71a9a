import asyncio
import os
import platform
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from services.embedded import mongo as mongo_module
from services.embedded.children import start_time
from services.embedded.errors import CannotStart, DidNotStart, FolderNotWritable, PortTaken
from services.embedded.mongo import EmbeddedMongo, find_mongod, mongod_environment

Start = Callable[[], Awaitable[EmbeddedMongo]]


def client(mongo: EmbeddedMongo) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient(mongo.url)


async def test_restart_in_the_same_folder_keeps_port_and_data(tmp_path: Path) -> None:
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


async def test_restart_uses_another_port_if_its_own_is_in_use(tmp_path: Path) -> None:
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


async def test_faults_can_be_injected_with_test_commands(own_mongo: Start) -> None:
    mongo = await own_mongo()
    async with client(mongo) as connection:
        fault = {"configureFailPoint": "failCommand", "mode": "off"}
        assert (await connection.admin.command(fault))["ok"] == 1


async def test_used_port_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^MongoDB can't listen on port {port}, another program uses it: "):
            await EmbeddedMongo(tmp_path, port).start()


async def test_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderNotWritable, match=r"choose another folder with --data$"):
        await EmbeddedMongo(tmp_path / "file").start()


async def test_failed_start_names_the_log(tmp_path: Path) -> None:
    (tmp_path / "mongo").mkdir()
    (tmp_path / "mongo" / "storage.bson").write_bytes(b"damaged")
    with pytest.raises(DidNotStart, match=rf"^MongoDB did not start \(it exited with code \d+\): see {tmp_path}"):
        await EmbeddedMongo(tmp_path).start()


async def test_missing_mongod_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match=r"set NEST_MONGO_URL to your own MongoDB replica set$"):
        await EmbeddedMongo(tmp_path).start()


async def test_mongod_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = find_mongod()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    (tmp_path / "mongod").symlink_to(packaged)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mongod() == tmp_path / "mongod"


def test_environment_is_unchanged_if_the_machine_has_all_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_module, "_is_loadable", lambda _name: True)
    assert mongod_environment(tmp_path / "libraries") == dict(os.environ)


def test_mongod_runs_with_the_packaged_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_module, "_is_loadable", lambda _name: False)
    environment = mongod_environment(tmp_path / "libraries")
    done = subprocess.run([find_mongod(), "--version"], env=environment, capture_output=True, text=True, check=True)
    assert str(tmp_path) in environment["LD_LIBRARY_PATH"]
    assert done.stdout.startswith("db version v6")


def test_links_of_an_earlier_start_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_module, "_is_loadable", lambda _name: False)
    (tmp_path / "libcurl.so.4").symlink_to(tmp_path / "gone")
    mongod_environment(tmp_path)
    assert (tmp_path / "libcurl.so.4").exists()
