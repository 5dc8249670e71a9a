"""Fixtures of all tests: real backing services and unique names. Distribution of the tests over the workers."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import hypothesis
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from httpx._config import create_ssl_context
from pymongo import MongoClient
from xdist.scheduler import LoadScopeScheduling

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from shared.clock_check import ClockGate
from tests.backing import Backing, addresses_from, backing_process, from_environment

# The duration of an example depends more on the machine's other work than on ours.
hypothesis.settings.register_profile("nest", deadline=None)
hypothesis.settings.load_profile("nest")

TOGETHER: Final = ("end_to_end", "abuse", "reference", "browser")
"""Folders whose tests share running stacks: one worker runs all of them, so that each stack is started once."""
LONGEST: Final = (*TOGETHER, "faults", "embedded", "shared", "billing")
"""Folders to begin with, so that short files are left for the end and all workers finish at the same time."""

# httpx loads the system's certificates for every client, which takes longer than most requests of the tests.
httpx._transports.default.create_ssl_context = cache(create_ssl_context)

KAFKA_SECONDS: Final = 60.0
"""Timeout of deleting topics."""

_PROCESS = pytest.StashKey[Any]()
_SOCKET = pytest.StashKey[str]()
_COUNT = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Make the backing services available; in the main process only, not in the workers of xdist."""
    if hasattr(config, "workerinput"):
        config.stash[_SOCKET] = config.workerinput["backing"]
    elif not from_environment() and not config.option.collectonly:
        config.stash[_PROCESS] = backing_process()
        config.stash[_SOCKET] = str(config.stash[_PROCESS].__enter__())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the socket of the backing process to an xdist worker."""
    node.workerinput["backing"] = node.config.stash.get(_SOCKET, "")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give each worker one file after another, or all files of a folder whose tests share stacks."""
    config.option.loadscopereorder = False  # the order of the collection
    return _ByFile(config, log)


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        folder = _folder(nodeid)
        return folder if folder in TOGETHER else nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Move the longest folders to the front, for the workers of xdist only."""
    if hasattr(config, "workerinput"):
        ranks = {folder: rank for rank, folder in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(_folder(item.nodeid), len(LONGEST)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Fail if a service still runs in this process when the next folder's tests begin.

    They replace attributes of shared modules and read logs, which such a service would notice or write.
    """
    if nextitem is not None and _folder(item.nodeid) != _folder(nextitem.nodeid):
        gates = [each for each in gc.get_objects() if type(each) is ClockGate]
        running = [gate for gate in gates if gate._task is not None and not gate._task.done()]
        assert not running, (
            "a service outlives its folder: give its fixture the scope 'package', and the folder __init__.py"
        )


def _folder(nodeid: str) -> str:
    return nodeid.partition("::")[0].split("/")[1]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the backing services; runs on Ctrl-C too."""
    if _PROCESS in config.stash:
        config.stash[_PROCESS].__exit__(None, None, None)


@pytest.fixture(scope="session")
def backing(pytestconfig: pytest.Config) -> Backing:
    """Kafka and MongoDB of this run. Without them the tests that need them fail; they are never skipped."""
    return from_environment() or addresses_from(Path(pytestconfig.stash[_SOCKET]))


@pytest.fixture(scope="session")
def kafka_bootstrap(backing: Backing) -> str:
    """`host:port` of this run's Kafka, which does not create topics automatically."""
    return backing.kafka_bootstrap


@pytest.fixture(scope="session")
def mongo_url(backing: Backing) -> str:
    """Connection string of this run's MongoDB, a replica set, without a database name."""
    return backing.mongo_url


@pytest.fixture(scope="session")
def unique(worker_id: str, testrun_uid: str) -> Callable[[], str]:
    """Generator of short names, such as `t1a2b3_gw0_7_`, that are unique among all runs on the same services."""
    return lambda: f"t{testrun_uid[:6]}_{worker_id}_{next(_COUNT)}_"


@pytest.fixture(scope="session")
def mongo_client(mongo_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A blocking client, for setup and for assertions from outside."""
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        yield client


@pytest.fixture(scope="session")
async def kafka_admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client, in the session's event loop."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture(scope="session")
def run_nest(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    backing: Backing,
    unique: Callable[[], str],
    mongo_client: MongoClient[dict[str, Any]],
    kafka_admin: AIOKafkaAdminClient,
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Function that runs a Nest as `running_stack` does, with topics and databases that are removed afterwards.

    It takes the options of `running_stack`, from ``gateways`` on.
    """
    from tests.stack import running_stack  # noqa: PLC0415 -- imports every service

    @asynccontextmanager
    async def run(**options: Any) -> AsyncIterator[Any]:
        prefix = unique()
        async with running_stack(
            tmp_path_factory.mktemp("nest"),
            kafka_bootstrap=backing.kafka_bootstrap,
            mongo_url=backing.mongo_url,
            topic_prefix=f"{prefix}.",
            database_prefix=prefix,
            **options,
        ) as stack:
            yield stack
        await _delete_topics(kafka_admin, prefix)
        await asyncio.to_thread(_drop_databases, mongo_client, prefix)

    return run


@pytest.fixture
def database_prefix(unique: Callable[[], str], mongo_client: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """Prefix of this test's database names; its databases are dropped after the test."""
    prefix = unique()
    yield prefix
    _drop_databases(mongo_client, prefix)


@pytest.fixture(scope="session")
def emptied_database(
    unique: Callable[[], str], mongo_client: MongoClient[dict[str, Any]]
) -> Iterator[Callable[[str], str]]:
    """Function that empties this worker's database of a service and returns its name.

    All tests of a service share one, since creating its collections takes longer than most tests.
    """
    names: dict[str, str] = {}

    def emptied(service: str) -> str:
        name = names.setdefault(service, f"{unique()}{service}")
        database = mongo_client[name]
        for collection in database.list_collection_names():
            database[collection].delete_many({})
        return name

    yield emptied
    for name in names.values():
        mongo_client.drop_database(name)


def _drop_databases(mongo_client: MongoClient[dict[str, Any]], prefix: str) -> None:
    for name in mongo_client.list_database_names():
        if name.startswith(prefix):
            mongo_client.drop_database(name)


@pytest.fixture
async def topic_prefix(unique: Callable[[], str], kafka_admin: AIOKafkaAdminClient) -> AsyncIterator[str]:
    """Prefix of this test's topic names; its topics are deleted after the test."""
    prefix = unique()
    yield prefix
    await _delete_topics(kafka_admin, prefix)


async def _delete_topics(kafka_admin: AIOKafkaAdminClient, prefix: str) -> None:
    # aiokafka waits for ever for a Kafka that is gone, and then the whole run would not end.
    async with asyncio.timeout(KAFKA_SECONDS):
        topics = [name for name in await kafka_admin.list_topics() if name.startswith(prefix)]
        if topics:
            await kafka_admin.delete_topics(topics)


@pytest.fixture
async def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[], Awaitable[EmbeddedKafka]]]:
    """Factory of started Kafkas of this test alone, which it may `kill()` and `start()` again."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(EmbeddedKafka(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
async def own_mongo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[], Awaitable[EmbeddedMongo]]]:
    """Factory of started MongoDBs of this test alone, which it may `kill()` and `start()` again."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(EmbeddedMongo(tmp_path_factory.mktemp("mongo"), test_commands=True))
