"""A whole Nest under attack: one process per service, with debug logs and traces.

Rate limits are lifted: they have tests of their own, and would stop these requests before the tested code.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pymongo import MongoClient

from shared.bus.topics import Topic, declared
from tests.stack import HIGH_LIMITS, Stack, eventually, running_stack
from tests.traces import Traces

SERVICES = ("gateway", "auth", "billing", "mailer", "news")
_COUNT = itertools.count()


class Target:
    """The Nest under attack, and everything in which secrets could be readable.

    Attributes:
        nest: its processes and doubles.
        folder: the processes' log files.
        traces: their traces.
    """

    def __init__(self, nest: Stack, folder: Path, traces: Traces, mongo: MongoClient[dict[str, Any]]) -> None:
        self.nest = nest
        self.folder = folder
        self.traces = traces
        self._mongo = mongo

    def logs(self) -> dict[str, bytes]:
        """Content of every log file."""
        return {path.name: path.read_bytes() for path in self.folder.glob("*.log")}

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """Every document of every collection."""
        prefix = self.nest.environment["NEST_DATABASE_PREFIX"]
        return {
            f"{name}.{collection}": list(self._mongo[name][collection].find())
            for name in self._mongo.list_database_names()
            if name.startswith(prefix)
            for collection in self._mongo[name].list_collection_names()
        }

    def database(self, service: str) -> Any:
        """Database of a service."""
        return self._mongo[self.nest.environment["NEST_DATABASE_PREFIX"] + service]

    async def metrics(self) -> bytes:
        """Metrics of all processes."""
        pages = [(await self.nest.http.get(f"{url}/metrics")).content for url in self.nest.health.values()]
        assert all(pages)
        return b"".join(pages)

    async def text(self, number: str) -> str:
        """Wait for a text to a number, and return the newest one."""
        arrivals = await eventually(lambda: self.nest.inbox.arrivals(number), what=f"a text to {number}")
        text: str = arrivals[0].text
        return text

    async def records(self) -> list[Any]:
        """Every record of every topic of this deployment."""
        async with self._reading(declared(max_partitions=4)) as (consumer, ends):
            records: list[Any] = []
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records.extend(batch)
            assert records
            return records

    async def record_count(self, topic: str) -> int:
        """Number of records that were ever published to a topic."""
        async with self._reading([each for each in declared(max_partitions=4) if each.name == topic]) as (_, ends):
            return sum(ends.values())

    @asynccontextmanager
    async def _reading(self, topics: Sequence[Topic]) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[Any, int]]]:
        """A consumer at the beginning of these topics, and their end offsets."""
        prefix = self.nest.environment["NEST_TOPIC_PREFIX"]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.nest.environment["NEST_KAFKA_BOOTSTRAP"], auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            partitions = [
                TopicPartition(prefix + topic.name, number) for topic in topics for number in range(topic.partitions)
            ]
            consumer.assign(partitions)
            yield consumer, {tp: end for tp, end in (await consumer.end_offsets(partitions)).items() if end}
        finally:
            await consumer.stop()


@pytest.fixture(scope="package")
async def target(
    tmp_path_factory: pytest.TempPathFactory,
    kafka_bootstrap: str,
    mongo_url: str,
    mongo_client: MongoClient[dict[str, Any]],
    unique: Callable[[], str],
) -> AsyncIterator[Target]:
    """A running Nest with all optional routes."""
    prefix, folder, traces = unique(), tmp_path_factory.mktemp("target"), Traces()
    async with (
        traces.listening(),
        running_stack(
            folder,
            kafka_bootstrap=kafka_bootstrap,
            mongo_url=mongo_url,
            topic_prefix=f"{prefix}.",
            database_prefix=prefix,
            separate=SERVICES,
            settings={
                **HIGH_LIMITS,
                # Statistics of response times need more texts than a deployment sends in an hour.
                "NEST_LIMIT_TEXTS_PER_COUNTRY": "100000/1h",
                "NEST_LIMIT_TEXTS_PER_DEPLOYMENT": "100000/1h",
                "NEST_LOG_LEVEL": "debug",
                "NEST_REPLY_SECONDS": "30",
                "NEST_OTLP_ENDPOINT": traces.url,
                "NEST_OLD_CLIENTS": "true",
                "NEST_TEST_LOGIN": "true",
                "NEST_CORS_ORIGINS": "https://app.example.com",
            },
        ) as nest,
    ):
        yield Target(nest, folder, traces, mongo_client)


@pytest.fixture
def email() -> str:
    """An unused address."""
    return f"eve{next(_COUNT)}@example.com"
