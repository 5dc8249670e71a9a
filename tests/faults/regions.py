"""Several regions: members of one MongoDB replica set, and MirrorMaker 2 between two Kafkas."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

import jgo
from pymongo import AsyncMongoClient

from services.embedded.child_server import Server
from services.embedded.console import Silent
from services.embedded.kafka import install
from services.embedded.mongo import EmbeddedMongo
from services.embedded.mongo_probe import listens
from services.embedded.ports import LOOPBACK

MIRROR_MAKER: Final = "org.apache.kafka:connect-mirror:4.3.0"
"""Its jars come from the Maven repository, as those of Kafka."""
_HEAP_MB: Final = 256


class Member(EmbeddedMongo):
    """A member of a replica set, which `add` has to make one."""

    async def _until_primary(self) -> None:
        await self._until(lambda: listens(self._port))

    @property
    def address(self) -> str:
        """`host:port`, after the start."""
        return f"{LOOPBACK}:{self._port}"

    async def add(self, primary: AsyncMongoClient[dict[str, object]]) -> None:
        """Add the member to the replica set of a primary, with a vote, and wait until it has copied everything."""
        found = await primary.admin.command("replSetGetConfig")
        config = found["config"]
        config["version"] += 1
        config["members"].append({"_id": len(config["members"]), "host": self.address, "priority": 0.5})
        await primary.admin.command("replSetReconfig", config)
        await self._until(lambda: self._is_secondary(primary))

    async def _is_secondary(self, primary: AsyncMongoClient[dict[str, object]]) -> bool:
        status = await primary.admin.command("replSetGetStatus")
        return any(each["name"] == self.address and each["stateStr"] == "SECONDARY" for each in status["members"])


class MirrorMaker(Server):
    """MirrorMaker 2, which copies topics and the offsets of consumer groups from one Kafka to another.

    Args:
        folder: of its settings and its log.
        first: `host:port` of the Kafka that is copied.
        second: `host:port` of the copy.
        settings: further properties, those that the documents tell operators to set.
    """

    NAME = "mirror"
    TITLE = "MirrorMaker"

    def __init__(self, folder: Path, first: str, second: str, settings: str) -> None:
        super().__init__(folder, 0, None)
        self._first, self._second, self._settings = first, second, settings

    async def start(self) -> None:
        """Start it; return before it has copied anything."""
        logging.getLogger("jgo").setLevel(logging.WARNING)
        jars = (await asyncio.to_thread(jgo.build, MIRROR_MAKER)).all_jars
        installation = await install(Silent())
        file = self._folder / "mirror.properties"
        file.parent.mkdir(parents=True, exist_ok=True)
        replication = ("", "checkpoints.topic.", "heartbeats.topic.", "offset-syncs.topic.", "offset.storage.")
        file.write_text(
            f"first.bootstrap.servers = {self._first}\nsecond.bootstrap.servers = {self._second}\n{self._settings}\n"
            # There is one broker, and tests are short.
            + "".join(
                f"{name}replication.factor = 1\n" for name in (*replication, "status.storage.", "config.storage.")
            )
            + "refresh.topics.interval.seconds = 5\nrefresh.groups.interval.seconds = 5\n"
        )
        await self._run(
            [
                installation.java,
                f"-Xmx{_HEAP_MB}m",
                "-cp",
                ":".join(map(str, jars)),
                "org.apache.kafka.connect.mirror.MirrorMaker",
                file,
            ],
            _at_once,
        )


async def _at_once() -> None:
    pass
