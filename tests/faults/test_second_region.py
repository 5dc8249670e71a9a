"""The loss of a whole region, with its Kafka, its member of the replica set and all processes of Nest."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import AsyncMongoClient

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from tests.faults.regions import Member, MirrorMaker
from tests.stack import Login, Stack, code_of, eventually, running_stack

SCALE: Final = Path(__file__).parents[2] / "docs" / "scale.md"
SERVICES: Final = ("gateway", "auth", "billing", "mailer", "news")
PEOPLE: Final = 4
"""Apps that order links and redeem them at the same time."""
LOGINS: Final = 20


@dataclass
class Answers:
    """What callers were told.

    Attributes:
        links: logins whose link was accepted with 204 and not redeemed yet.
        logged_in: the tokens of each redemption that was answered.
    """

    links: dict[str, Login] = field(default_factory=dict)
    logged_in: list[dict[str, Any]] = field(default_factory=list)


@pytest.mark.slow
async def test_second_region_has_everything_that_was_answered(tmp_path: Path) -> None:
    answers = Answers()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(EmbeddedKafka(tmp_path / "first"))
        second = await stack.enter_async_context(EmbeddedKafka(tmp_path / "second"))
        mongo = await stack.enter_async_context(EmbeddedMongo(tmp_path / "mongo1"))
        members = [await stack.enter_async_context(Member(tmp_path / f"mongo{number}")) for number in (2, 3)]
        async with AsyncMongoClient[dict[str, Any]](mongo.url, directConnection=True) as primary:
            for member in members:
                await member.add(primary)
        address = mongo.url.removeprefix("mongodb://").partition("/")[0]
        addresses = ",".join((address, *(member.address for member in members)))
        nest = await stack.enter_async_context(
            running_stack(
                tmp_path,
                kafka_bootstrap=first.bootstrap,
                mongo_url=f"mongodb://{addresses}/?replicaSet=rs0",
                topic_prefix="",
                database_prefix="nest_",
                separate=SERVICES,
            )
        )
        mirror = await stack.enter_async_context(
            MirrorMaker(tmp_path / "mirror", first.bootstrap, second.bootstrap, documented_settings())
        )
        people = [asyncio.create_task(order_and_redeem(nest, answers)) for _ in range(PEOPLE)]
        await eventually(lambda: is_copied(second.bootstrap), within=120, what="the copies of offsets")
        await eventually(lambda: len(answers.logged_in) > LOGINS, within=120, what="logins")
        # The second Kafka stays behind, and lacks the orders of mails that nobody has handled.
        await asyncio.gather(mirror.kill(), nest.processes["mailer"].kill())
        for person in people:
            person.cancel()
        await asyncio.gather(*people, return_exceptions=True)
        answers.links.clear()
        await asyncio.gather(*(order(nest, answers, "send_magic_link") for _ in range(LOGINS)))
        unsent = len(answers.links)

        await asyncio.gather(*(process.kill() for process in nest.processes.values()))
        await asyncio.gather(first.kill(), mongo.kill())

        began = time.monotonic()
        await topics.apply(KafkaConnection(second.bootstrap))
        for process in nest.processes.values():
            process.environment["NEST_KAFKA_BOOTSTRAP"] = second.bootstrap
            await process.start()
        await eventually(lambda: answers_again(nest), within=120, what="the second region")
        print(f"the second region answered after {time.monotonic() - began:.1f} s")  # noqa: T201

        assert unsent > LOGINS / 2
        for tokens in answers.logged_in:
            await check_login(nest, tokens)
        for login in answers.links.values():
            # Its mail may have been a message on the lost Kafka alone.
            mail = await nest.mail(login.email)
            redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))
            assert redeemed.status_code == httpx.codes.OK, redeemed.text
        for tokens in answers.logged_in:
            await eventually(lambda tokens=tokens: is_on_trial(nest, tokens), within=60, what="a trial")  # type: ignore[misc]


def documented_settings() -> str:
    """The settings of MirrorMaker that docs/scale.md tells operators to set, less those of its connection."""
    block = re.search(r"```properties\n(.*?)```", SCALE.read_text(), re.DOTALL)
    assert block is not None
    return block[1]


async def order_and_redeem(nest: Stack, answers: Answers) -> None:
    """Log new people in with a trial, one after the other, until the task is cancelled."""
    while True:
        login = await order(nest, answers, "create_trial_and_magic_link")
        if login is not None:
            code = code_of(await nest.mail(login.email), login)
            redeemed = await nest.call("authenticate_user", login.redemption(code))
            assert redeemed.status_code == httpx.codes.OK, redeemed.text
            answers.logged_in.append(redeemed.json())
            del answers.links[login.email]


async def order(nest: Stack, answers: Answers, method: str) -> Login | None:
    """Order a link for a new address, and return its login if it was accepted."""
    login = Login(f"{secrets.token_hex(6)}@example.com")
    device = {"platform": "mac", "beak_id": login.state, "fingerprint": login.state}
    response = await nest.call(method, login.request(device=device), version="2026-12-01")
    if response.status_code != httpx.codes.NO_CONTENT:
        return None
    answers.links[login.email] = login
    return login


async def is_copied(bootstrap: str) -> bool:
    """Whether the second Kafka has offsets of auth."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if "auth.commands" not in await admin.list_topics():
            return False
        offsets = await admin.list_consumer_group_offsets("auth")
        return any(partition.topic == "auth.commands" and each.offset > 0 for partition, each in offsets.items())
    finally:
        await admin.close()


async def answers_again(nest: Stack) -> bool:
    """Whether a new person can be told of a link."""
    try:
        response = await nest.call("send_magic_link", Login(f"{secrets.token_hex(6)}@example.com").request())
    except httpx.TransportError:
        return False
    return response.status_code == httpx.codes.NO_CONTENT


async def check_login(nest: Stack, tokens: dict[str, Any]) -> None:
    """Check that the user and the session of an answered login exist."""
    user = await nest.call("get_user", {"user_id": tokens["user_id"]}, **nest.internal)
    assert user.status_code == httpx.codes.OK, user.text
    body = {
        "client_id": tokens["client_id"],
        "grant_type": "refresh_token",
        "refresh_token": tokens["refresh_token"],
    }
    refreshed = await nest.call("authenticate_user", body)
    assert refreshed.status_code == httpx.codes.OK, refreshed.text


async def is_on_trial(nest: Stack, tokens: dict[str, Any]) -> bool:
    """Whether billing has started the trial that auth ordered at the login."""
    body = {"user_id": tokens["user_id"]}
    status = await nest.call("get_subscription_status", body, version="2026-12-01", **nest.internal)
    return status.status_code == httpx.codes.OK and status.json()["status"] == "trialing"
