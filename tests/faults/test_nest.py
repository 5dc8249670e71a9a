"""Nest while its parts are killed: nothing accepted is lost, nothing is done twice, and callers are told the truth."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from services.embedded import ports
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.backing import Backing
from tests.stack import API, Login, Process, Stack, code_of, eventually, running_stack

SEPARATE = ("auth",)
"""What runs in processes of its own, to be killed."""


@pytest.mark.parametrize("point", ["V1", "V2", "V3", "V4"])
async def test_auth_killed_around_its_commit_loses_and_repeats_nothing(nest: Stack, point: str) -> None:
    auth = nest.processes["auth"]
    email = f"{point.lower()}@example.com"
    await auth.stop()
    await auth.start(NEST_CRASH_AT=point)
    login, headers = Login(email), {"idempotency_key": secrets.token_hex(8)}
    ordered = asyncio.create_task(nest.call("send_magic_link", login.order(), **headers))

    assert await auth.ended() == 137, "the fault did not happen"
    await auth.start()

    # Kafka gives the dead one's partitions away after its session time-out: the first answer may be "not known".
    assert (await ordered).status_code in {204, 504}
    await eventually(lambda: _answered(nest, login, headers), what="the repeat")
    mail = await nest.mail(email)
    redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))
    assert redeemed.status_code == 200
    await nest.log_in("somebody.else@example.com")
    assert len(nest.inbox.arrivals(email)) == 1


async def _answered(nest: Stack, login: Login, headers: dict[str, str]) -> bool:
    return (await nest.call("send_magic_link", login.order(), **headers)).status_code == 204


async def test_a_lost_response_is_returned_for_the_repeated_idempotency_key(nest: Stack) -> None:
    auth, login = nest.processes["auth"], Login("lost@example.com")
    code = await nest.code(login)
    await auth.stop()
    await auth.start(NEST_CRASH_AT="V2")
    headers = {"idempotency_key": secrets.token_hex(8)}
    first = asyncio.create_task(nest.call("authenticate_user", login.redemption(code), **headers))
    assert await auth.ended() == 137, "the fault did not happen"
    first.cancel()
    await auth.start()

    async def redeemed() -> httpx.Response | None:
        answer = await nest.call("authenticate_user", login.redemption(code), **headers)
        return answer if answer.status_code == 200 else None

    answer = await eventually(redeemed, within=40, what="the answer")
    user = await nest.call("get_user", {"user_id": answer.json()["user_id"]}, **nest.internal)
    assert user.status_code == 200


async def test_a_kafka_outage_is_reported_in_time_and_loses_nothing(
    tmp_path: Path,
    own_kafka: Callable[[], Awaitable[EmbeddedKafka]],
    mongo_url: str,
    database_prefix: str,
) -> None:
    kafka = await own_kafka()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka.bootstrap,
        mongo_url=mongo_url,
        topic_prefix="",
        database_prefix=database_prefix,
        settings={"NEST_REPLY_SECONDS": "4"},
    ) as nest:
        await _outage(nest, kafka.kill, kafka.start)


async def test_a_mongodb_outage_is_reported_in_time_and_loses_nothing(
    tmp_path: Path,
    own_mongo: Callable[[], Awaitable[EmbeddedMongo]],
    kafka_bootstrap: str,
    topic_prefix: str,
) -> None:
    mongo = await own_mongo()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo.url,
        topic_prefix=topic_prefix,
        database_prefix="nest_",
        settings={"NEST_REPLY_SECONDS": "4"},
    ) as nest:
        await _outage(nest, mongo.kill, mongo.start)


async def test_rolling_instances_lose_and_repeat_nothing(
    tmp_path: Path, backing: Backing, topic_prefix: str, database_prefix: str, mongo_client: MongoClient[dict[str, Any]]
) -> None:
    async with running_stack(
        tmp_path,
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        gateways=2,
        separate=["auth"],
    ) as nest:
        port = ports.any_free()
        second = Process("auth", {**nest.environment, "NEST_HEALTH_PORT": str(port)}, tmp_path / "auth-2.log")
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            ordering = group.create_task(_order_until(nest, enough))
            for _ in range(2):
                await second.start()
                # It has joined, and has a share of the work.
                await eventually(lambda: _handled(port))
                await second.stop()
            enough.set()
        emails = ordering.result()

        await eventually(lambda: len(nest.inbox.arrivals()) >= len(emails), within=60, what="all mails")
        assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted(emails)
        stored = mongo_client[f"{database_prefix}auth"]["authorizations"]
        assert stored.count_documents({}) == len(emails) == len(set(emails))


async def _handled(port: int) -> bool:
    """Whether the service with this health port has handled a message."""
    async with httpx.AsyncClient() as http:
        try:
            metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx.TransportError:
            return False
    return 'nest_messages_handled_total{outcome="done"' in metrics


async def _order_until(nest: Stack, enough: asyncio.Event) -> list[str]:
    """Order magic links over both gateways; returns the addresses, each of which was answered 204."""
    emails: list[str] = []

    async def loop(number: int) -> None:
        async with httpx.AsyncClient(base_url=nest.urls[number % 2], timeout=30) as http:
            count = 0
            while not enough.is_set():
                count += 1
                email = f"p{number}.{count}@example.com"
                answer = await http.post(f"{API}/send_magic_link", json=Login(email).order())
                assert answer.status_code == 204, answer.text
                emails.append(email)

    await asyncio.gather(*(loop(number) for number in range(4)))
    return emails


async def _outage(nest: Stack, kill: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]) -> None:
    """Order before, during and after an outage; every order is answered in time, and in the end carried out once."""
    orders = {f"o{number}@example.com": secrets.token_hex(8) for number in range(30)}
    names = list(orders)

    async def order(email: str) -> tuple[int, float]:
        began = time.monotonic()
        answer = await nest.call("send_magic_link", _fixed(email).order(), idempotency_key=orders[email])
        return answer.status_code, time.monotonic() - began

    before = await asyncio.gather(*(order(email) for email in names[:10]))
    under_way = [asyncio.create_task(order(email)) for email in names[10:20]]
    await kill()
    during = await asyncio.gather(*under_way, *(order(email) for email in names[20:]))
    await start()

    assert {status for status, _ in before} == {204}
    assert {status for status, _ in during} <= {204, 503}
    assert 503 in {status for status, _ in during}, "the fault did not happen"
    assert max(seconds for _, seconds in during) < 5.0, "told too late"

    async def carried_out(email: str) -> None:
        await eventually(lambda: _accepted(email), within=60, what=email)

    async def _accepted(email: str) -> bool:
        return (await order(email))[0] == 204

    await asyncio.gather(*(carried_out(email) for email in names))
    await eventually(lambda: len(nest.inbox.arrivals()) >= len(names), within=60, what="all mails")
    await nest.log_in("after@example.com")
    assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted([*names, "after@example.com"])


def _fixed(email: str) -> Login:
    """The same order at every repeat."""
    return Login(email, state="state", verifier="v" * 43)
