"""Kills and outages under a whole Nest: accepted requests take effect once, and callers get correct responses."""

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
"""Services that run as processes of their own, to be killed."""


@pytest.mark.parametrize("point", ["V1", "V2", "V3", "V4"])
async def test_auth_killed_around_its_commit_loses_and_repeats_nothing(shared_nest: Stack, point: str) -> None:
    nest, auth = shared_nest, shared_nest.processes["auth"]
    email = f"{point.lower()}@example.com"
    await auth.stop()
    await auth.start(NEST_CRASH_AT=point)
    login, headers = Login(email), {"idempotency_key": secrets.token_hex(8)}
    first = asyncio.create_task(nest.call("send_magic_link", login.request(), **headers))

    assert await auth.ended() == 137, "the fault did not happen"
    await auth.start()

    # The restart may take longer than the gateway waits for the reply.
    assert (await first).status_code in {204, 504}
    await eventually(lambda: _accepted_again(nest, login, headers), what="the repeat")
    mail = await nest.mail(email)
    redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))
    assert redeemed.status_code == 200
    await nest.log_in(f"{point.lower()}.else@example.com")
    assert len(nest.inbox.arrivals(email)) == 1


async def _accepted_again(nest: Stack, login: Login, headers: dict[str, str]) -> bool:
    return (await nest.call("send_magic_link", login.request(), **headers)).status_code == 204


async def test_a_lost_response_is_returned_for_the_repeated_idempotency_key(shared_nest: Stack) -> None:
    nest = shared_nest
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
        response = await nest.call("authenticate_user", login.redemption(code), **headers)
        return response if response.status_code == 200 else None

    response = await eventually(redeemed, within=40, what="the response")
    user = await nest.call("get_user", {"user_id": response.json()["user_id"]}, **nest.internal)
    assert user.status_code == 200


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_rolling_instances_lose_and_repeat_nothing(
    tmp_path: Path,
    backing: Backing,
    topic_prefix: str,
    database_prefix: str,
    mongo_client: MongoClient[dict[str, Any]],
    *,
    rounds: int,
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
            requests = group.create_task(_request_until(nest, enough))
            for _ in range(rounds):
                await second.start()
                # It has joined the consumer group and handled a message.
                await eventually(lambda: _handled(port))
                await second.stop()
            enough.set()
        emails = requests.result()

        await eventually(lambda: len(nest.inbox.arrivals()) >= len(emails), within=60, what="all mails")
        assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted(emails)
        stored = mongo_client[f"{database_prefix}auth"]["authorizations"]
        assert stored.count_documents({}) == len(emails) == len(set(emails))


async def _handled(port: int) -> bool:
    """Return True if the service with this health port has handled a message."""
    async with httpx.AsyncClient() as http:
        try:
            metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx.TransportError:
            return False
    return 'nest_messages_handled_total{outcome="done"' in metrics


async def _request_until(nest: Stack, enough: asyncio.Event) -> list[str]:
    """Request magic links from both gateways; return the addresses, for each of which the response was 204."""
    emails: list[str] = []

    async def loop(number: int) -> None:
        async with httpx.AsyncClient(base_url=nest.urls[number % 2], timeout=30) as http:
            count = 0
            while not enough.is_set():
                count += 1
                email = f"p{number}.{count}@example.com"
                response = await http.post(f"{API}/send_magic_link", json=Login(email).request())
                assert response.status_code == 204, response.text
                emails.append(email)

    await asyncio.gather(*(loop(number) for number in range(4)))
    return emails


async def _outage(nest: Stack, kill: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]) -> None:
    """Send requests before, during and after an outage; each gets a response in time and takes effect once."""
    keys = {f"o{number}@example.com": secrets.token_hex(8) for number in range(30)}
    emails = list(keys)

    async def request(email: str) -> tuple[int, float]:
        started = time.monotonic()
        response = await nest.call("send_magic_link", _fixed(email).request(), idempotency_key=keys[email])
        return response.status_code, time.monotonic() - started

    before = await asyncio.gather(*(request(email) for email in emails[:10]))
    in_progress = [asyncio.create_task(request(email)) for email in emails[10:20]]
    await kill()
    during = await asyncio.gather(*in_progress, *(request(email) for email in emails[20:]))
    await start()

    assert {status for status, _ in before} == {204}
    assert {status for status, _ in during} <= {204, 503}
    assert 503 in {status for status, _ in during}, "the fault did not happen"
    assert max(seconds for _, seconds in during) < 5.0, "the response came too late"

    async def repeat(email: str) -> None:
        await eventually(lambda: accepted(email), within=60, what=email)

    async def accepted(email: str) -> bool:
        return (await request(email))[0] == 204

    await asyncio.gather(*(repeat(email) for email in emails))
    await eventually(lambda: len(nest.inbox.arrivals()) >= len(emails), within=60, what="all mails")
    await nest.log_in("after@example.com")
    assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted([*emails, "after@example.com"])


def _fixed(email: str) -> Login:
    """A login whose request is the same at every repeat."""
    return Login(email, state="state", verifier="v" * 43)
