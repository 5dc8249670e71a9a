"""Fixtures of the fault tests.

A chaos test injects faults at random times, for several rounds. It takes its random choices from `chaos` alone and
repeats `rounds` times::

    async def test_kills_at_random_times_lose_nothing(bus: BusHarness, chaos: random.Random, rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(chaos.uniform(0, 2))

It then runs for one round in `make test`, always with the same seed, and for ``NEST_FAULTS_ROUNDS`` rounds in
`make faults` and `make test-slow`. `make faults` chooses and prints a new seed; ``make faults SEED=…`` repeats a run.
Every round asserts that its fault has happened, and that the promises hold afterwards.
"""

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.backing import Backing
from tests.shared.bus_harness import BusHarness
from tests.stack import Stack, running_stack

OwnKafka = Callable[[], Awaitable[EmbeddedKafka]]
OwnMongo = Callable[[], Awaitable[EmbeddedMongo]]
"""The fixtures `own_kafka` and `own_mongo`."""
SEED: Final = int(os.environ.get("NEST_FAULTS_SEED", "1"))
ROUNDS: Final = int(os.environ.get("NEST_FAULTS_ROUNDS", "8"))


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> random.Random:
    """Source of the random choices of one chaos test; the report of a failure names the seed."""
    request.node.add_report_section("setup", "chaos", f"repeat with: make faults SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(params=[pytest.param(1, id="one_round"), pytest.param(ROUNDS, marks=pytest.mark.slow, id="all_rounds")])
def rounds(request: pytest.FixtureRequest) -> int:
    """Number of rounds of a chaos test."""
    number: int = request.param
    return number


@pytest.fixture
async def bus(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[BusHarness]:
    """Topics and databases of this test."""
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as harness:
        yield harness


@pytest.fixture
async def nest(
    request: pytest.FixtureRequest, tmp_path: Path, backing: Backing, topic_prefix: str, database_prefix: str
) -> AsyncIterator[Stack]:
    """A whole Nest whose services in the module's ``SEPARATE`` run as processes of their own.

    A module may have ``SETTINGS``, environment variables of all processes.
    """
    async with running_stack(
        tmp_path,
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        separate=request.module.SEPARATE,
        settings=getattr(request.module, "SETTINGS", None),
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
async def shared_nest(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    backing: Backing,
    unique: Callable[[], str],
) -> AsyncIterator[Stack]:
    """The same as ``nest``, for all tests of a module that use addresses of their own."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=request.module.SEPARATE,
        settings=getattr(request.module, "SETTINGS", None),
    ) as stack:
        yield stack
