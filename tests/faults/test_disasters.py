"""Disasters: the databases are destroyed and restored, and Kafka is lost. The commands are those of docs/recovery.md.

Each of the two slow tests takes about a minute.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from services.embedded.child_server import run_all
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import SERVICES
from tests.end_to_end.flows import Mongo, operator_call, redeem_trial
from tests.forked import Completed
from tests.stack import ALL_SERVICES, MAX_PARTITIONS, Login, Stack, eventually

SEPARATE = ALL_SERVICES
RUNBOOK: Final = Path(__file__).parents[2].joinpath("docs/recovery.md").read_text()


def commands(heading: str) -> list[list[str]]:
    """Return the words of the `nest` commands under a heading of the runbook, without those of Kafka's deployment."""
    section = RUNBOOK.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    lines = [line.strip().partition("  #")[0] for block in blocks for line in block.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith("nest ")]


@dataclass
class Told:
    """What callers were told.

    Attributes:
        clients: IDs of created clients.
        users: user IDs by address, of people who have logged in.
        tokens: tokens of the logins, by address.
    """

    clients: list[str] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    def log_in(self, email: str, tokens: dict[str, Any]) -> None:
        self.users[email], self.tokens[email] = tokens["user_id"], tokens


class Load:
    """People who log in, start trials and subscribe, and an operator who creates clients, until it is stopped."""

    def __init__(self, nest: Stack, told: Told) -> None:
        self._nest = nest
        self._told = told
        self._number = 0

    async def round(self) -> None:
        """One client, one trial, one login and one checkout."""
        self._number += 1
        n, nest, told = self._number, self._nest, self._told
        told.clients.append((await nest.create_client(f"App {n}"))["id"])
        trial, login, buyer = f"trial{n}@example.com", f"login{n}@example.com", f"buyer{n}@example.com"
        told.log_in(trial, await redeem_trial(nest, Login(trial)))
        told.log_in(login, await nest.log_in(login))
        nest.stripe.simulate.checkout(nest.environment["NEST_STRIPE_TRIAL_PRICE"], email=buyer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()

        async def run() -> None:
            while not stop.is_set():
                await self.round()

        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            try:
                yield
            finally:
                stop.set()


async def nest_command(nest: Stack, *words: str) -> Completed:
    done = await nest.command(*words, **nest.environment)
    assert done.code == 0, (words, done.out, done.err)
    return done


async def stop(nest: Stack) -> None:
    await nest.stripe.webhooks.drain(60)
    await run_all(*(process.stop() for process in nest.processes.values()))


async def start(nest: Stack) -> None:
    await run_all(*(process.start() for process in nest.processes.values()))

    async def answers() -> bool:
        try:
            return (await nest.call("list_all_news_items", {}, **nest.internal)).status_code == 200
        except httpx.TransportError:
            return False

    await eventually(answers, within=90, what="the gateway")


async def caught_up(nest: Stack) -> None:
    """Wait until no consumer group has unread records."""

    async def idle() -> bool:
        done = await nest.command("doctor", "--json", **nest.environment)
        found = [each for each in json.loads(done.out) if each["area"] == "consumers"]
        return bool(found) and all(each["level"] == "ok" for each in found)

    await eventually(idle, within=90, what="no lag")


async def check_everything_that_was_told(nest: Stack, told: Told) -> None:
    listed = {each["id"] for each in await operator_call(nest, "list_clients")}
    assert listed >= set(told.clients)
    for email, user_id in told.users.items():
        found = await operator_call(nest, "find_user", identifier_type="email", identifier_value=email)
        assert found["id"] == user_id, email


async def check_stripe(nest: Stack) -> None:
    """Reconcile, and compare: the records are those of Stripe."""
    done = await nest.command("stripe", "reconcile", **nest.environment)
    assert done.code in {0, 1}, done.err
    clean = await nest_command(nest, "stripe", "verify", "--json")
    assert json.loads(clean.out)["found"] == []


async def is_logged_in(nest: Stack, tokens: dict[str, Any]) -> bool:
    body = {"client_id": Login("").client_id, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    return (await nest.call("authenticate_user", body)).status_code == 200


@pytest.mark.slow
async def test_restored_backup_and_rewound_offsets_bring_back_what_was_told(
    nest: Stack, mongo_client: Mongo, tmp_path: Path
) -> None:
    told = Told()
    load = Load(nest, told)
    await load.round()
    before = dict(told.tokens)
    folder = tmp_path / "backup"
    async with load.running():
        await nest_command(nest, "database", "dump", str(folder))
        in_backup = set(told.users)
        await eventually(lambda: len(told.users) >= len(in_backup) + 4, within=120, what="logins after the backup")
    after = {email: tokens for email, tokens in told.tokens.items() if email not in in_backup}
    assert len(after) >= 4
    await stop(nest)
    for service in SERVICES:
        mongo_client.drop_database(nest.environment["NEST_DATABASE_PREFIX"] + service)

    mails = len(nest.inbox.arrivals())
    for words in commands("MongoDB is lost"):
        if words[0] in ("database", "offsets"):
            await nest_command(nest, *(word.replace("backup-2026-12-01", str(folder)) for word in words))
    await start(nest)
    await caught_up(nest)

    await check_everything_that_was_told(nest, told)
    await check_stripe(nest)
    done = await nest.command("doctor", "--json", **nest.environment)
    assert [each for each in json.loads(done.out) if each["level"] == "problem"] == []
    # Lost are the logins since the backup, as the runbook says; people log in again, as the same users.
    assert [await is_logged_in(nest, tokens) for tokens in before.values()] == [True] * len(before)
    assert [await is_logged_in(nest, tokens) for tokens in after.values()] == [False] * len(after)
    for email in after:
        assert (await nest.log_in(email))["user_id"] == told.users[email]
    assert len(nest.inbox.arrivals()) >= mails


@pytest.mark.slow
async def test_new_kafka_gets_the_messages_that_the_lost_one_held(nest: Stack) -> None:
    told = Told()
    load = Load(nest, told)
    await load.round()
    # Mails that were promised, and whose orders the mailer has not read.
    await nest.processes["mailer"].stop()
    waiting = [f"waiting{number}@example.com" for number in range(5)]
    for email in waiting:
        assert (await nest.call("send_magic_link", Login(email).request())).status_code == 204
    await stop(nest)
    admin = AIOKafkaAdminClient(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        prefix = nest.environment["NEST_TOPIC_PREFIX"]
        names = {name for name in await admin.list_topics() if name.startswith(prefix)}
        await admin.delete_topics(sorted(names))

        async def gone() -> bool:
            return not names & set(await admin.list_topics())

        await eventually(gone)
    finally:
        await admin.close()
    await topics.apply(
        KafkaConnection(nest.environment["NEST_KAFKA_BOOTSTRAP"]), prefix=prefix, max_partitions=MAX_PARTITIONS
    )
    await start(nest)

    for email in waiting:
        await nest.mail(email)
    await caught_up(nest)
    await check_everything_that_was_told(nest, told)
    await check_stripe(nest)
    assert all([await is_logged_in(nest, tokens) for tokens in told.tokens.values()])
    assert sorted(each.to for each in nest.inbox.arrivals() if each.to.startswith("waiting")) == waiting
    assert "records lost" in nest.processes["mailer"].log
