"""Fixtures for everybody: real backing services, and names that no other test uses."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import MongoClient

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.backing import Backing, ask, given, keeper

# How long an example takes says more about the machine's other work than about ours.
hypothesis.settings.register_profile("nest", deadline=None)
hypothesis.settings.load_profile("nest")

_KEEPER = pytest.StashKey[Any]()
_SOCKET = pytest.StashKey[str]()
_COUNT = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """In the process that a person started, not in xdist's workers: makes the backing services available."""
    if hasattr(config, "workerinput"):
        config.stash[_SOCKET] = config.workerinput["backing"]
    elif not given() and not config.option.collectonly:
        config.stash[_KEEPER] = keeper()
        config.stash[_SOCKET] = str(config.stash[_KEEPER].__enter__())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells an xdist worker where to ask."""
    node.workerinput["backing"] = node.config.stash.get(_SOCKET, "")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Runs on Ctrl-C too: lets the backing services go."""
    if _KEEPER in config.stash:
        config.stash[_KEEPER].__exit__(None, None, None)


@pytest.fixture(scope="session")
def backing(pytestconfig: pytest.Config) -> Backing:
    """The run's Kafka and MongoDB. Without them the tests that need them fail; they are never skipped."""
    return given() or ask(Path(pytestconfig.stash[_SOCKET]))


@pytest.fixture(scope="session")
def kafka_bootstrap(backing: Backing) -> str:
    """`host:port` of the run's Kafka, which makes no topics by itself."""
    return backing.kafka_bootstrap


@pytest.fixture(scope="session")
def mongo_url(backing: Backing) -> str:
    """Connection string of the run's MongoDB, a replica set; names no database."""
    return backing.mongo_url


@pytest.fixture(scope="session")
def unique(worker_id: str, testrun_uid: str) -> Callable[[], str]:
    """Makes short names that no test of this or another run on the same services uses, e.g. `t1a2b3_gw0_7_`."""
    return lambda: f"t{testrun_uid[:6]}_{worker_id}_{next(_COUNT)}_"


@pytest.fixture(scope="session")
def mongo_client(mongo_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A blocking client for setting up and looking in from outside."""
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        yield client


@pytest.fixture(scope="session")
async def kafka_admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client, in the session's event loop."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture
def database_prefix(unique: Callable[[], str], mongo_client: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """A prefix for this test's database names; databases with it are dropped after the test."""
    prefix = unique()
    yield prefix
    for name in mongo_client.list_database_names():
        if name.startswith(prefix):
            mongo_client.drop_database(name)


@pytest.fixture
async def topic_prefix(unique: Callable[[], str], kafka_admin: AIOKafkaAdminClient) -> AsyncIterator[str]:
    """A prefix for this test's topic names; topics with it are deleted after the test."""
    prefix = unique()
    yield prefix
    topics = [name for name in await kafka_admin.list_topics() if name.startswith(prefix)]
    if topics:
        await kafka_admin.delete_topics(topics)


@pytest.fixture
async def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[], Awaitable[EmbeddedKafka]]]:
    """Makes started Kafkas that belong to this test alone, to `kill()` and `start()` again."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(EmbeddedKafka(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
async def own_mongo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[], Awaitable[EmbeddedMongo]]]:
    """Makes started MongoDBs that belong to this test alone, to `kill()` and `start()` again."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(EmbeddedMongo(tmp_path_factory.mktemp("mongo"), test_commands=True))
