"""A call's answer: late, foreign, lost, too many, and with Kafka gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from services.embedded.kafka import EmbeddedKafka
from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from shared.bus import topics
from shared.bus.envelope import Envelope
from shared.sealing import Sealer
from tests.gateway.conftest import World
from tests.gateway.fake_services import NO_REPLY, FakeServices
from tests.stack import eventually

PATH = "/1/2021-10-06/list_news_items"
ASK = {"client_id": "c"}

Make = Callable[..., GatewaySettings]


async def test_no_answer_in_time_is_a_504_and_a_late_one_reaches_nobody(world: World) -> None:
    world.services.replies["news.list-news-items"] = lambda _: NO_REPLY
    before = world.gateway._rpc_client.unclaimed
    answer = await world.http.post(PATH, json=ASK)
    assert (answer.status_code, answer.json()["code"]) == (504, "reply_timeout")
    assert world.gateway._rpc_client.waiting == 0
    await world.services.reply(world.services.received[0], [{"id": "late"}])
    await eventually(lambda: world.gateway._rpc_client.unclaimed > before)
    world.services.replies.clear()
    assert (await world.http.post(PATH, json=ASK)).status_code == 204


async def test_replies_to_others_and_garbage_are_passed_over(world: World) -> None:
    async def noise(envelope: Envelope) -> None:
        send, partition = world.services.producer.send_record, envelope.reply_to
        other = "0" * 32
        for headers in (
            [],
            [("id", other.encode()), ("kind", b"done")],
            [("id", b"\xff\xfe"), ("kind", b"done")],
            [("kind", b"\xff")],
        ):
            await send("gateway.replies", b"not yours", headers, partition=partition)
        await send("gateway.replies", None, [("id", other.encode())], key=b"k", partition=partition)

    before = world.gateway._rpc_client.unclaimed
    world.services.before_reply = noise
    world.services.replies["news.list-news-items"] = lambda _: [{"id": "mine"}]
    answer = await world.http.post(PATH, json=ASK)
    assert answer.json() == [{"id": "mine"}]
    assert world.gateway._rpc_client.unclaimed >= before + 5


async def test_an_answer_that_comes_twice_is_taken_once(world: World) -> None:
    async def early(envelope: Envelope) -> None:
        await world.services.reply(envelope, [{"id": "first"}])

    world.services.before_reply = early
    world.services.replies["news.list-news-items"] = lambda _: [{"id": "second"}]
    assert (await world.http.post(PATH, json=ASK)).json() == [{"id": "first"}]


async def test_a_reply_that_nest_did_not_write_is_a_500_at_once(world: World) -> None:
    async def nonsense(envelope: Envelope) -> None:
        headers = [("id", envelope.reply_id.encode())]
        await world.services.producer.send_record("gateway.replies", b"x", headers, partition=envelope.reply_to)

    world.services.before_reply = nonsense
    answer = await world.http.post(PATH, json=ASK)
    assert (answer.status_code, answer.json()["code"]) == (500, "unknown")


async def test_calls_beyond_the_bound_are_told_to_come_back(world: World, make_settings: Make) -> None:
    hold = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await hold.wait()

    world.services.before_reply = wait
    settings = make_settings(topic_prefix=world.settings.topic_prefix, calls_in_flight=4)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
    ):
        held = [asyncio.create_task(http.post(PATH, json=ASK)) for _ in range(4)]
        await eventually(lambda: gateway._rpc_client.waiting == 4)
        beyond = await http.post(PATH, json=ASK)
        assert (beyond.status_code, beyond.json()["code"]) == (429, "too_many_requests")
        assert beyond.headers["retry-after"] == "1"
        hold.set()
        assert {(await call).status_code for call in held} == {204}
        assert gateway._rpc_client.waiting == 0


async def test_a_client_that_goes_away_leaves_nothing_behind(world: World) -> None:
    hold = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await hold.wait()

    world.services.before_reply = wait
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post(PATH, json=ASK, timeout=0.3)
    assert world.gateway._rpc_client.waiting == 1
    hold.set()
    await eventually(lambda: world.gateway._rpc_client.waiting == 0)


async def test_two_gateways_on_one_partition_answer_only_their_own(world: World, make_settings: Make) -> None:
    world.services.replies["news.list-news-items"] = lambda envelope: [{"id": envelope.id}]
    settings = make_settings(topic_prefix=world.settings.topic_prefix)
    async with (
        create(settings) as one,
        create(settings) as two,
        create(settings) as three,
    ):
        # Of three on two partitions at least two share one.
        assert len({gateway._rpc_client._partition for gateway in (one, two, three)}) < 3

        async def ask(gateway: Gateway) -> str:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http:
                answers = [await http.post(PATH, json=ASK) for _ in range(30)]
            assert {answer.status_code for answer in answers} == {200}
            return "".join(answer.text for answer in answers)

        texts = await asyncio.gather(*(ask(gateway) for gateway in (one, two, three)))
    assert len({line for text in texts for line in text.split("}")}) == 91


async def test_a_stop_answers_what_is_under_way_first(world: World, make_settings: Make) -> None:
    async def think(_: Envelope) -> None:
        await asyncio.sleep(0.5)

    world.services.before_reply = think
    settings = make_settings(topic_prefix=world.settings.topic_prefix, drain_seconds=5)
    async with httpx.AsyncClient(timeout=20) as http:
        async with create(settings) as gateway:
            url = f"http://127.0.0.1:{gateway.port}{PATH}"
            call = asyncio.create_task(http.post(url, json=ASK))
            await eventually(lambda: len(world.services.received) == 1)
        assert (await call).status_code == 204
        with pytest.raises(httpx.ConnectError):
            await http.post(url, json=ASK)


class TestWithoutKafka:
    @pytest.fixture
    async def kafka(self, own_kafka: Callable[[], Awaitable[EmbeddedKafka]]) -> EmbeddedKafka:
        kafka = await own_kafka()
        await topics.apply(kafka.bootstrap, max_partitions=1)
        return kafka

    async def test_calls_are_refused_in_time_and_answered_again_when_it_is_back(
        self, kafka: EmbeddedKafka, make_settings: Make
    ) -> None:
        settings = make_settings(kafka_bootstrap=kafka.bootstrap, reply_seconds=4)
        services = FakeServices(kafka.bootstrap, "", Sealer(settings.master_keys()))
        await services.start()
        async with (
            create(settings) as gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
        ):
            assert (await http.post(PATH, json=ASK)).status_code == 204
            await kafka.kill()
            began = time.monotonic()
            answer = await http.post(PATH, json=ASK)
            assert time.monotonic() - began < 4
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert gateway._rpc_client.waiting == 0
            await eventually(gateway.problems, what="a complaint about Kafka")
            await kafka.start()

            async def answered() -> bool:
                return (await http.post(PATH, json=ASK)).status_code == 204

            await eventually(answered, within=30)
            await eventually(lambda: gateway.problems() == [])
        await services.stop()


async def test_a_gateway_without_topics_says_so(
    make_settings: Make, kafka_admin: AIOKafkaAdminClient, unique: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.service.START_SECONDS", 0.1)
    with pytest.raises(Exception, match=r"gateway\.replies"):
        async with create(make_settings(topic_prefix=unique())):
            pass
