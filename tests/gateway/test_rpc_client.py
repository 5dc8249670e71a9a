from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import REGISTRY

from services.embedded.kafka import EmbeddedKafka
from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from shared.bus import topics
from shared.bus.envelope import Envelope
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.record_macs import RecordMacs
from shared.sealing import Sealer
from tests.gateway.conftest import GatewayStack
from tests.gateway.fake_services import NO_REPLY, FakeServices
from tests.stack import eventually

PATH = "/1/2021-10-06/list_news_items"
BODY = {"client_id": "c"}

Make = Callable[..., GatewaySettings]


async def test_missing_reply_is_a_504_and_a_late_one_is_dropped(stack: GatewayStack, make_settings: Make) -> None:
    stack.services.replies["news.list-news-items"] = lambda _: NO_REPLY
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, reply_seconds=2)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
    ):
        response = await http.post(PATH, json=BODY)
        assert (response.status_code, response.json()["code"]) == (504, "reply_timeout")
        assert gateway._rpc_client.waiting == 0
        before = gateway._rpc_client.unclaimed
        await stack.services.reply(stack.services.received[0], [{"id": "late"}])
        await eventually(lambda: gateway._rpc_client.unclaimed > before)
        stack.services.replies.clear()
        assert (await http.post(PATH, json=BODY)).status_code == 204


async def test_replies_to_other_instances_and_garbage_are_ignored(stack: GatewayStack) -> None:
    async def send_garbage(envelope: Envelope) -> None:
        send, partition = stack.services.producer.send_record, envelope.reply_to
        other = "0" * 32
        for headers in (
            [],
            [("id", other.encode()), ("kind", b"done")],
            [("id", b"\xff\xfe"), ("kind", b"done")],
            [("kind", b"\xff")],
        ):
            await send("gateway.replies", b"for another instance", headers, partition=partition)
        await send("gateway.replies", None, [("id", other.encode())], key=b"k", partition=partition)

    before = stack.gateway._rpc_client.unclaimed
    stack.services.before_reply = send_garbage
    stack.services.replies["news.list-news-items"] = lambda _: [{"id": "mine"}]
    response = await stack.http.post(PATH, json=BODY)
    assert response.json() == [{"id": "mine"}]
    assert stack.gateway._rpc_client.unclaimed >= before + 5


async def test_forged_reply_is_ignored(stack: GatewayStack) -> None:
    """A reader of Kafka knows the reply address of every call."""

    async def forge(envelope: Envelope) -> None:
        services = stack.services
        topic, headers = "gateway.replies", [("id", envelope.reply_id.encode()), ("kind", b"done")]
        value = b'[{"id": "forged"}]'
        foreign = RecordMacs(Sealer({"k1": bytes(range(32))}), prefix=stack.settings.topic_prefix)
        genuine = services.producer._macs.signed(topic, None, value, [("id", b"0" * 32), *headers[1:]])
        async with AIOKafkaProducer(bootstrap_servers=stack.settings.kafka_bootstrap) as producer:
            for signed in (headers, foreign.signed(topic, None, value, headers), [genuine[0], *headers]):
                full_name = stack.settings.topic_prefix + topic
                await producer.send_and_wait(full_name, value, partition=envelope.reply_to, headers=signed)

    before = REGISTRY.get_sample_value("nest_unauthenticated_records_total", {"topic": "gateway.replies"}) or 0.0
    stack.services.before_reply = forge
    stack.services.replies["news.list-news-items"] = lambda _: [{"id": "genuine"}]
    assert (await stack.http.post(PATH, json=BODY)).json() == [{"id": "genuine"}]
    after = REGISTRY.get_sample_value("nest_unauthenticated_records_total", {"topic": "gateway.replies"})
    # Other gateways of the test run may read the same partition.
    assert after is not None
    assert after >= before + 3


async def test_duplicate_reply_is_ignored(stack: GatewayStack) -> None:
    async def reply_first(envelope: Envelope) -> None:
        await stack.services.reply(envelope, [{"id": "first"}])

    stack.services.before_reply = reply_first
    stack.services.replies["news.list-news-items"] = lambda _: [{"id": "second"}]
    assert (await stack.http.post(PATH, json=BODY)).json() == [{"id": "first"}]


async def test_malformed_reply_is_a_500_without_a_timeout(stack: GatewayStack) -> None:
    async def malformed(envelope: Envelope) -> None:
        headers = [("id", envelope.reply_id.encode())]
        await stack.services.producer.send_record("gateway.replies", b"x", headers, partition=envelope.reply_to)

    stack.services.before_reply = malformed
    response = await stack.http.post(PATH, json=BODY)
    assert (response.status_code, response.json()["code"]) == (500, "unknown")


async def test_calls_over_the_limit_get_429(stack: GatewayStack, make_settings: Make) -> None:
    release = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await release.wait()

    stack.services.before_reply = wait
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, calls_in_flight=4)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
    ):
        calls = [asyncio.create_task(http.post(PATH, json={"client_id": f"c{number}"})) for number in range(4)]
        await eventually(lambda: gateway._rpc_client.waiting == 4)
        over_limit = await http.post(PATH, json=BODY)
        assert (over_limit.status_code, over_limit.json()["code"]) == (429, "too_many_requests")
        assert over_limit.headers["retry-after"] == "1"
        release.set()
        assert {(await call).status_code for call in calls} == {204}
        assert gateway._rpc_client.waiting == 0


async def test_call_of_a_disconnected_client_is_cleaned_up(stack: GatewayStack) -> None:
    release = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await release.wait()

    stack.services.before_reply = wait
    with pytest.raises(httpx.ReadTimeout):
        await stack.http.post(PATH, json=BODY, timeout=httpx.Timeout(30, read=1.0))
    assert stack.gateway._rpc_client.waiting == 1
    release.set()
    await eventually(lambda: stack.gateway._rpc_client.waiting == 0)


async def test_gateways_on_one_partition_handle_only_their_own_replies(
    stack: GatewayStack, make_settings: Make
) -> None:
    stack.services.replies["news.list-news-items"] = lambda envelope: [{"id": envelope.id}]
    settings = make_settings(topic_prefix=stack.settings.topic_prefix)
    async with (
        create(settings) as one,
        create(settings) as two,
        create(settings) as three,
    ):
        # There are two partitions, so at least two of the three share one.
        assert len({gateway._rpc_client._partition for gateway in (one, two, three)}) < 3

        async def call(gateway: Gateway) -> str:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http:
                responses = [await http.post(PATH, json=BODY) for _ in range(30)]
            assert {response.status_code for response in responses} == {200}
            return "".join(response.text for response in responses)

        texts = await asyncio.gather(*(call(gateway) for gateway in (one, two, three)))
    assert len({line for text in texts for line in text.split("}")}) == 91


async def test_stop_finishes_requests_in_progress(stack: GatewayStack, make_settings: Make) -> None:
    async def delay(_: Envelope) -> None:
        await asyncio.sleep(0.5)

    stack.services.before_reply = delay
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, drain_seconds=5)
    async with httpx.AsyncClient(timeout=20) as http:
        async with create(settings) as gateway:
            url = f"http://127.0.0.1:{gateway.port}{PATH}"
            call = asyncio.create_task(http.post(url, json=BODY))
            await eventually(lambda: len(stack.services.received) == 1)
        assert (await call).status_code == 204
        with pytest.raises(httpx.ConnectError):
            await http.post(url, json=BODY)


class TestWithoutKafka:
    @pytest.fixture
    async def kafka(self, own_kafka: Callable[[], Awaitable[EmbeddedKafka]]) -> EmbeddedKafka:
        kafka = await own_kafka()
        await topics.apply(KafkaConnection(kafka.bootstrap), max_partitions=1)
        return kafka

    @pytest.mark.slow
    async def test_outage_gives_503_in_time_and_recovery_needs_no_restart(
        self, kafka: EmbeddedKafka, make_settings: Make
    ) -> None:
        settings = make_settings(kafka_bootstrap=kafka.bootstrap, reply_seconds=10)
        services = FakeServices(kafka.bootstrap, "", Sealer(settings.master_keys()))
        await services.start()
        async with (
            create(settings) as gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
        ):
            assert (await http.post(PATH, json=BODY)).status_code == 204
            await kafka.kill()
            began = time.monotonic()
            response = await http.post(PATH, json=BODY)
            assert time.monotonic() - began < 10
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert gateway._rpc_client.waiting == 0
            await eventually(gateway.problems, what="a problem with Kafka")
            await kafka.start()

            async def succeeds() -> bool:
                return (await http.post(PATH, json=BODY)).status_code == 204

            await eventually(succeeds, within=30)
            await eventually(lambda: gateway.problems() == [])
        await services.stop()


@pytest.mark.slow
async def test_start_without_topics_fails_with_their_name(
    make_settings: Make, kafka_admin: AIOKafkaAdminClient, unique: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.startup.START_SECONDS", 0.1)
    with pytest.raises(Exception, match=r"gateway\.replies"):
        async with create(make_settings(topic_prefix=unique())):
            pass


async def test_sealed_reply_is_unsealed_for_the_client(stack: GatewayStack) -> None:
    view = b'{"access_token": "a.b.c"}'
    stack.services.replies["auth.authenticate-user"] = lambda _: stack.services.sealer.seal("gateway", view).encode()
    response = await stack.http.post("/1/2021-10-06/authenticate_user", json={"client_id": "c", "grant_type": "g"})
    assert (response.status_code, response.content) == (200, view)
