"""The audit: what operators read by the API and by the `nest` command, and what the bus does with repeats."""

from __future__ import annotations

import json
import secrets
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.bus.envelope import MAC
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from tests.end_to_end.flows import macs_of
from tests.stack import Login, Stack, eventually

BANNER = {"payload": {"emoji": "🐦", "title": "A title", "body": "A body."}}


async def entries(nest: Stack, **filters: Any) -> list[dict[str, Any]]:
    response = await nest.call("list_audit_entries", filters, **nest.internal)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["entries"]
    return found


async def test_operator_reads_what_a_user_did(nest: Stack, email: str) -> None:
    login = Login(email)
    code = await nest.code(login)
    await nest.call("authenticate_user", login.redemption(code, client_id="client_missing"))
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()

    (done,) = await entries(nest, user_id=tokens["user_id"])
    refused = [entry for entry in await entries(nest, outcome="refused") if entry["session_id"] == done["session_id"]]

    assert (done["action"], done["outcome"], done["client_ip"]) == ("log_in", "done", "127.0.0.1")
    assert [entry["code"] for entry in refused] == ["incorrect_client"]
    assert email not in json.dumps([done, refused])


async def test_command_lists_the_same_entries(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    filters = ("--user", tokens["user_id"], "--action", "log_in", "--since", "2020-01-01")

    completed = await nest.command("audit", "list", *filters, "--json")

    assert (completed.code, completed.err) == (0, "")
    assert json.loads(completed.out)["entries"] == await entries(nest, user_id=tokens["user_id"], action="log_in")


async def test_unknown_action_is_refused(nest: Stack) -> None:
    response = await nest.call("list_audit_entries", {"action": "fly"}, **nest.internal)
    assert response.status_code == 422
    assert response.json()["meta"]["errors"][0]["path"] == "action"


async def test_each_call_of_an_operator_makes_one_entry_done_or_refused(nest: Stack) -> None:
    key = secrets.token_hex(8)
    created = await nest.call("create_news_item", {"primary": BANNER}, idempotency_key=key, **nest.internal)
    item_id = created.json()["id"]
    again = await nest.call("create_news_item", {"primary": BANNER}, idempotency_key=key, **nest.internal)
    assert again.headers["idempotent-replayed"] == "true"
    for _ in range(2):
        await nest.call("remove_news_item", {"id": item_id}, **nest.internal)
    await nest.call("stop_stripe_run", {"run_id": "striperun_missing"}, **nest.internal)
    await nest.call("list_payments", {}, **nest.internal)
    await nest.call("lift_suppression", {"delivery_id": "delivery_missing"}, **nest.internal)
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

    async def recorded() -> list[dict[str, Any]]:
        # Filtered by action, since each of these polls makes an entry too.
        found = [entry for action, *_ in expected for entry in await entries(nest, action=action)]
        return found if expected <= {(each["action"], each["code"], each["resource_id"]) for each in found} else []

    by_id = {entry["id"]: entry for entry in await eventually(recorded, what="the entries")}.values()
    assert {entry["caller"] for entry in by_id} == {"internal"}
    assert [entry["action"] for entry in by_id if entry["resource_id"] == item_id].count("create_news_item") == 1


async def test_second_delivery_makes_no_second_entry(nest: Stack) -> None:
    created = await nest.call("create_news_item", {"primary": BANNER}, **nest.internal)
    item_id = created.json()["id"]

    async def of_item() -> list[dict[str, Any]]:
        found = await entries(nest, action="create_news_item")
        return [entry for entry in found if entry["resource_id"] == item_id]

    (entry,) = await eventually(of_item, what="the entry")
    message_id = entry["message_id"].encode()
    async with Topics(nest) as topics:
        records = await topics.read("auth.service-commands")
        [first] = [each for each in records if message_id in each.value]
        # As news does when it publishes the messages of a handled command again.
        await topics.write("auth.service-commands", first)
        # A marker with the same ordering key is handled after both.
        await topics.write(
            "auth.service-commands", first, id=b"1" * 32, value=first.value.replace(message_id, b"0" * 32)
        )

    async def marked() -> bool:
        return "0" * 32 in [each["message_id"] for each in await of_item()]

    await eventually(marked, what="the marker")
    assert len(await of_item()) == 2


class Topics:
    """Reads and writes records without the services of a Nest."""

    def __init__(self, nest: Stack) -> None:
        self._prefix = nest.environment["NEST_TOPIC_PREFIX"]
        bootstrap = nest.environment["NEST_KAFKA_BOOTSTRAP"]
        self._producer = Producer(KafkaConnection(bootstrap), macs=macs_of(nest), prefix=self._prefix)
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
        """Return all records of a topic."""
        partitions = [TopicPartition(self._prefix + topic, one) for one in await self._producer.partitions(topic)]
        self._consumer.assign(partitions)
        ends = await self._consumer.end_offsets(partitions)
        found: list[Any] = []
        while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
            for batch in (await self._consumer.getmany(timeout_ms=500)).values():
                found += batch
        return found

    async def write(self, topic: str, record: Any, **changes: bytes) -> None:
        """Write a record again, with another ``id`` or ``value`` if given, and with the MAC of its new content."""
        headers = [
            (name, changes.get("id", value) if name == "id" else value) for name, value in record.headers if name != MAC
        ]
        await self._producer.send_record(topic, changes.get("value", record.value), headers, key=record.key)
