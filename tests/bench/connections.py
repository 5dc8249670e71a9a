"""Benchmark: the connections of each service's process to Kafka and MongoDB, idle and under load."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop
from rich.console import Console
from rich.table import Table

from services.embedded.console import Console as Progress
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.bench.recovery import Callers
from tests.stack import Stack, running_stack

SERVICES: Final = ("gateway", "auth", "billing", "mailer", "news")
SETTLE_SECONDS: Final = 5.0
ESTABLISHED: Final = "01"
"""State of a connection in /proc/net/tcp."""


def connections(pid: int, servers: Mapping[int, str]) -> Counter[str]:
    """Return the number of established connections of a process to each server, by its port (proc(5))."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found: Counter[str] = Counter()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[2].rpartition(":")[2], 16)
            if fields[3] == ESTABLISHED and fields[9] in inodes and port in servers:
                found[servers[port]] += 1
    return found


def counted(nest: Stack, servers: Mapping[int, str]) -> dict[str, Counter[str]]:
    """Return the connections of each service's process."""
    return {name: connections(process.pid, servers) for name, process in nest.processes.items()}


def most(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Return the larger numbers of two looks."""
    return {name: before[name] | after[name] for name in after}


async def measure(folder: Path, kafka: str, mongo: str, rate: float, seconds: float) -> None:
    """Run all services, count when they are idle and during calls, and print."""
    servers = {urlsplit(f"//{kafka}").port or 0: "Kafka", urlsplit(mongo).port or 0: "MongoDB"}
    prefix = f"connections{os.getpid()}_"
    async with running_stack(
        folder,
        kafka_bootstrap=kafka,
        mongo_url=mongo,
        topic_prefix=prefix,
        database_prefix=prefix,
        separate=SERVICES,
    ) as nest:
        await asyncio.sleep(SETTLE_SECONDS)
        idle = counted(nest, servers)
        busy = idle
        async with Callers(nest, rate).calling():
            for _ in range(int(seconds)):
                await asyncio.sleep(1)
                busy = most(busy, counted(nest, servers))
    table = Table("process", "Kafka, idle", "Kafka, most", "MongoDB, idle", "MongoDB, most")
    for name in idle:
        counts = (idle[name]["Kafka"], busy[name]["Kafka"], idle[name]["MongoDB"], busy[name]["MongoDB"])
        table.add_row(name, *map(str, counts))
    Console().print(f"{rate:g} calls of each kind a second, one broker, one member of the replica set", table)


async def main(kafka: str | None, mongo: str | None, rate: float, seconds: float) -> None:
    """Measure on these servers, or on embedded ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            if kafka is None:
                embedded = EmbeddedKafka(folder / "kafka", progress=Progress())
                await embedded.start()
                stack.push_async_callback(embedded.stop)
                kafka = embedded.bootstrap
            if mongo is None:
                database = EmbeddedMongo(folder / "mongo", progress=Progress())
                await database.start()
                stack.push_async_callback(database.stop)
                mongo = database.url
            await measure(folder, kafka, mongo, rate, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", help="host:port; an embedded one by default")
    parser.add_argument("--mongo", help="URL of a replica set; an embedded one by default")
    parser.add_argument("--rate", type=float, default=20.0, help="calls of each kind a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    uvloop.run(main(options.kafka, options.mongo, options.rate, options.seconds))
