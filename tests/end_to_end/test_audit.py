"""Operators see who has tried what: over the API, by the `nest` command, and on the bus."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.bus.producer import Producer
from tests.stack import Login, Stack, eventually

BANNER = {"payload": {"emoji": "🐦", "title": "A title", "body": "A body."}}


async def entries(nest: Stack, **filters: Any) -> list[dict[str, Any]]:
    answer = await nest.call("list_audit_entries", filters, **nest.internal)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


async def test_an_operator_reads_what_a_user_did(nest: Stack, email: str) -> None:
    login = Login(email)
    code = await nest.code(login)
    await nest.call("authenticate_user", login.redemption(code, client_id="client_nobody"))
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()

    (came,) = await entries(nest, user_id=tokens["user_id"])
    refused = [entry for entry in await entries(nest, outcome="refused") if entry["session_id"] == came["session_id"]]

    assert (came["action"], came["outcome"], came["client_ip"]) == ("log_in", "done", "127.0.0.1")
    assert [entry["code"] for entry in refused] == ["incorrect_client"]
    assert email not in json.dumps([came, refused])


async def test_the_command_shows_the_same(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    environment = {"NEST_URL": nest.urls[0], "NEST_INTERNAL_KEY": nest.internal_key}
    arguments = ("audit", "list", "--user", tokens["user_id"], "--action", "log_in", "--since", "2020-01-01", "--json")

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()

    assert process.returncode == 0, errors
    assert json.loads(out)["entries"] == await entries(nest, user_id=tokens["user_id"], action="log_in")


async def test_an_action_that_there_is_not_is_told_so(nest: Stack) -> None:
    answer = await nest.call("list_audit_entries", {"action": "fly"}, **nest.internal)
    assert answer.status_code == 422
    assert answer.json()["meta"]["errors"][0]["path"] == "action"


async def test_orders_to_every_service_leave_one_entry_each_done_or_refused(nest: Stack) -> None:
    called = asyncio.get_running_loop().time()
    made = await nest.call("create_news_item", {"primary": BANNER}, idempotency_key=f"news {called}", **nest.internal)
    item_id = made.json()["id"]
    again = await nest.call("create_news_item", {"primary": BANNER}, idempotency_key=f"news {called}", **nest.internal)
    assert again.headers["idempotent-replayed"] == "true"
    for _ in range(2):
        await nest.call("remove_news_item", {"id": item_id}, **nest.internal)
    await nest.call("stop_stripe_run", {"run_id": "striperun_typed"}, **nest.internal)
    await nest.call("list_payments", {}, **nest.internal)
    await nest.call("lift_suppression", {"delivery_id": "delivery_typed"}, **nest.internal)
    await nest.call("list_deliveries", {"recipient": "nobody@example.com"}, **nest.internal)

    expected = {
        ("create_news_item", None, item_id),
        ("remove_news_item", None, item_id),
        ("remove_news_item", "not_found", None),
        ("stop_stripe_run", "not_found", None),
        ("list_payments", None, None),
        ("lift_suppression", "suppression_not_found", None),
        ("list_deliveries", None, None),
    }

    async def told() -> list[dict[str, Any]]:
        # By their actions: every look at the audit is an entry too, and there are many until all is there.
        found = [entry for action, *_ in expected for entry in await entries(nest, action=action)]
        return found if expected <= {(each["action"], each["code"], each["resource_id"]) for each in found} else []

    there = {entry["id"]: entry for entry in await eventually(told, what="the entries")}.values()
    assert {entry["caller"] for entry in there} == {"internal"}
    assert [entry["action"] for entry in there if entry["resource_id"] == item_id].count("create_news_item") == 1


async def test_what_is_delivered_again_leaves_no_second_entry(nest: Stack) -> None:
    item_id = (await nest.call("create_news_item", {"primary": BANNER}, **nest.internal)).json()["id"]

    async def of_item() -> list[dict[str, Any]]:
        created = await entries(nest, action="create_news_item")
        return [entry for entry in created if entry["resource_id"] == item_id]

    (entry,) = await eventually(of_item, what="the entry")
    asked = entry["message_id"].encode()
    async with Bus(nest) as bus:
        (order,) = [each for each in await bus.read("news.commands") if ("id", asked) in each.headers]
        await bus.write("news.commands", order)

        async def told_twice() -> list[Any]:
            told = [each for each in await bus.read("auth.commands") if asked in each.value]
            return told if len(told) == 2 else []

        first, second = await eventually(told_twice, what="news telling it again")
        assert (first.key, first.value) == (second.key, second.value)
        # What comes behind the two under their key is handled after them.
        await bus.write("auth.commands", first, id=b"1" * 32, value=first.value.replace(asked, b"0" * 32))

    async def marked() -> bool:
        return "0" * 32 in [each["message_id"] for each in await of_item()]

    await eventually(marked, what="the mark")
    assert len(await of_item()) == 2


class Bus:
    """Reads and writes Kafka past all services of a Nest."""

    def __init__(self, nest: Stack) -> None:
        self._prefix = nest.environment["NEST_TOPIC_PREFIX"]
        bootstrap = nest.environment["NEST_KAFKA_BOOTSTRAP"]
        self._producer = Producer(bootstrap, prefix=self._prefix)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def read(self, topic: str) -> list[Any]:
        """All that is on a topic now."""
        partitions = [TopicPartition(self._prefix + topic, one) for one in await self._producer.partitions(topic)]
        self._consumer.assign(partitions)
        ends = await self._consumer.end_offsets(partitions)
        found: list[Any] = []
        while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
            for came in (await self._consumer.getmany(timeout_ms=500)).values():
                found += came
        return found

    async def write(self, topic: str, record: Any, **changed: bytes) -> None:
        """Put a record on a topic once more, under another id or with another value if so said."""
        headers = [(name, changed.get("id", value) if name == "id" else value) for name, value in record.headers]
        await self._producer.send_record(topic, changed.get("value", record.value), headers, key=record.key)
