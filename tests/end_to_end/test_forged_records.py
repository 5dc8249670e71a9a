"""Forged records: what a program that reaches the broker, without a sealing key, can do to a running Nest."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import REGISTRY

from services.auth.signing_keys.key_pairs import generate, unseal_private_key
from services.operator.doctor.instances import check_clocks
from shared.bus.envelope import unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import CONSUMERS, INSTANCES, TOPICS, dead_letter_topic
from shared.ids import new_message_id
from shared.sealing import Sealer
from tests.end_to_end.flows import Mongo, macs_of, operator_call
from tests.end_to_end.test_forged_tokens import get_user, get_user_of_each, new_forger, reason
from tests.stack import MAX_PARTITIONS, Stack, eventually

READ = {
    "auth.keys": 3,
    "auth.clients": 2,
    "auth.revocations": 2,
    "gateway.replies": 1,
    "paused-partitions": 4,
    "topic-growth": 6,
}
"""Topics that are read without a consumer group, with the least number of readers: two gateways, auth for its keys, the
four services, and all of them."""
PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}
UNREAD = {"auth.audit", "mailer.events", "news.events"}
"""Topics without a reader in Nest."""
INTERNAL = b'{"kind":"internal"}'


def headers_of(wire: str, **more: bytes) -> list[tuple[str, bytes]]:
    required = {"type": wire.encode(), "id": new_message_id().encode(), "time": b"%d" % unix_milliseconds()}
    return list({**required, **more}.items())


async def forge(
    nest: Stack,
    topic: str,
    value: bytes | Mapping[str, Any] | None,
    headers: Sequence[tuple[str, bytes]],
    *,
    key: bytes = b"k",
) -> None:
    """Write a record to each partition of a topic."""
    body = json.dumps(value).encode() if isinstance(value, Mapping) else value
    full_name = nest.environment["NEST_TOPIC_PREFIX"] + topic
    async with AIOKafkaProducer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"]) as producer:
        for partition in await producer.partitions_for(full_name):
            await producer.send_and_wait(full_name, body, key, partition, headers=list(headers))


def refused(topic: str) -> float:
    """Number of records of a topic that all processes of this Nest have refused."""
    return REGISTRY.get_sample_value("nest_unauthenticated_records_total", {"topic": topic}) or 0.0


async def records(nest: Stack, topic: str) -> list[Any]:
    """Return every record of a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"])
    full_name = nest.environment["NEST_TOPIC_PREFIX"] + topic
    async with consumer:
        known = (await consumer._client.fetch_all_metadata()).partitions_for_topic(full_name)
        partitions = [TopicPartition(full_name, number) for number in known]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Any] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += batch
        return found


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
async def test_forged_record_is_refused_on_every_topic(nest: Stack, topic: str) -> None:
    """A record without a MAC, and a copy of a genuine record from another topic."""
    await nest.log_in("forged@example.com")
    other = "billing.commands" if topic == "auth.commands" else "auth.commands"
    genuine = next((each for each in await records(nest, other) if each.headers), None)
    copied = [] if genuine is None else [(genuine.value, genuine.headers)]
    forgeries = [(b"{}", headers_of("any.type", caller=INTERNAL)), *copied]
    before, consumers = refused(topic), CONSUMERS[topic]
    for value, headers in forgeries:
        await forge(nest, topic, value, headers, key=b"forged")
    partitions = min(PARTITIONS[topic], MAX_PARTITIONS)
    if topic == INSTANCES.name:
        prefix, bootstrap = nest.environment["NEST_TOPIC_PREFIX"], nest.environment["NEST_KAFKA_BOOTSTRAP"]
        findings = [each.says async for each in check_clocks(KafkaConnection(bootstrap), prefix, macs_of(nest))]
        assert findings
        assert "any.type" not in repr(findings)
    elif consumers:

        async def dead() -> bool:
            listed = (await operator_call(nest, "list_dead_letters", filter={"topic": topic}, limit=500))["letters"]
            return len([each for each in listed if is_forgery(each)]) == partitions * len(forgeries) * len(consumers)

        await eventually(dead, what="the dead letters")
        assert refused(topic) == before + partitions * len(forgeries) * len(consumers)
    elif topic in READ:
        least = READ[topic] * len(forgeries)
        await eventually(lambda: refused(topic) >= before + least, what="the refusals")
    else:
        assert topic in UNREAD, "say who reads this topic, and refuse its forged records"
    assert (await nest.log_in("forged@example.com"))["access_token"]


def is_forgery(letter: Mapping[str, Any]) -> bool:
    return letter["reason"] == "unauthenticated" and letter["key"]["text"] == "forged"


async def test_token_of_a_forged_signing_key_is_refused(nest: Stack, mongo_client: Mongo) -> None:
    forger = await new_forger(nest, mongo_client)
    sealer = Sealer({"own": bytes(32)})
    key = generate("ES256", sealer, at=datetime.now(UTC))
    body = {"kid": key.id, "jwk": key.public_jwk}
    private = unseal_private_key(key, sealer)
    token = replace(forger, kid=key.id, private=private, header={**forger.header, "kid": key.id}).token()
    before = refused("auth.keys")
    mac = macs_of(nest).signed("auth.commands", key.id.encode(), json.dumps(body).encode(), [])[0]
    for headers in (headers_of("auth.signing-key-published"), [mac, *headers_of("auth.signing-key-published")]):
        await forge(nest, "auth.keys", body, headers, key=key.id.encode())
    # By two gateways and by auth.
    await eventually(lambda: refused("auth.keys") >= before + 6, what="the refusals")
    assert await reason(nest, token, forger.claims["sub"]) == "invalid_token"
    assert key.id not in (await nest.http.get("/.well-known/jwks.json")).text
    assert (await get_user(nest, forger.token(), forger.claims["sub"])).status_code == 200


async def test_forged_withdrawal_of_a_signing_key_is_ignored(nest: Stack, mongo_client: Mongo) -> None:
    forger = await new_forger(nest, mongo_client)
    before = refused("auth.keys")
    await forge(nest, "auth.keys", None, headers_of("auth.signing-key-withdrawn"), key=forger.kid.encode())
    await eventually(lambda: refused("auth.keys") >= before + 3, what="the refusals")
    assert (await get_user(nest, forger.token(), forger.claims["sub"])).status_code == 200


async def test_copy_of_a_withdrawn_signing_key_stays_withdrawn(nest: Stack, mongo_client: Mongo) -> None:
    """The announcement of a leaked key has a valid MAC for ever."""
    forger = await new_forger(nest, mongo_client)
    announced = [each for each in await records(nest, "auth.keys") if each.key == forger.kid.encode() and each.value]
    await operator_call(nest, "rotate_signing_keys", emergency=True)

    async def withdrawn() -> bool:
        return {each.status_code for each in await get_user_of_each(nest, forger.token(), forger.claims["sub"])} == {
            401
        }

    await eventually(withdrawn, what="the withdrawal")
    for copy in announced:
        await forge(nest, "auth.keys", copy.value, copy.headers, key=copy.key)

    async def withdrawn_again() -> bool:
        last = [each for each in await records(nest, "auth.keys") if each.key == forger.kid.encode()][-1]
        return last.value is None

    # auth orders the withdrawal again, for gateways that start later.
    await eventually(withdrawn_again, what="the second withdrawal")
    assert await reason(nest, forger.token(), forger.claims["sub"]) == "invalid_token"


async def test_forged_client_is_unknown(nest: Stack, mongo_client: Mongo) -> None:
    forger = await new_forger(nest, mongo_client)
    before = refused("auth.clients")
    body = {"client_id": "client_forged", "disabled": False}
    await forge(nest, "auth.clients", body, headers_of("auth.client-announced"), key=b"client_forged")
    await eventually(lambda: refused("auth.clients") >= before + 2, what="the refusals")
    assert await reason(nest, forger.token(claims={"aud": "client_forged"}), forger.claims["sub"]) == "invalid_token"


async def test_forged_revocation_is_ignored(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    token_id = jwt.decode(tokens["access_token"], options={"verify_signature": False})["jti"]
    before = refused("auth.revocations")
    body = {"token_id": token_id, "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    await forge(nest, "auth.revocations", body, headers_of("auth.access-token-revoked"), key=token_id.encode())
    await eventually(lambda: refused("auth.revocations") >= before + 2, what="the refusals")
    assert (await get_user(nest, tokens["access_token"], tokens["user_id"])).status_code == 200


COMMANDS = {
    "auth.erase-user": lambda user: ("auth.commands", {"user_id": user}),
    "auth.erase-user-from-auth": lambda user: ("auth.commands", {"user_id": user, "process_id": "process_1"}),
    "mailer.erase-user-from-mailer": lambda user: ("mailer.commands", {"user_id": user, "process_id": "process_1"}),
    "billing.subscription-ended": lambda user: (
        "billing.events",
        {"user_id": user, "subscription_id": "sub_1", "status": "canceled"},
    ),
    "auth.user-merged": lambda user: ("auth.events", {"user_id": user}),
    "stripe.event": lambda user: (
        "stripe.webhooks",
        {"id": "evt_1", "data": {"object": {"metadata": {"user_id": user}}}},
    ),
}


@pytest.mark.parametrize("wire", COMMANDS)
async def test_forged_order_of_an_operator_is_dead_lettered_and_the_user_lives(
    nest: Stack, email: str, wire: str
) -> None:
    tokens = await nest.log_in(email)
    topic, body = COMMANDS[wire](tokens["user_id"])
    message_id = new_message_id().encode()
    await forge(nest, topic, body, headers_of(wire, id=message_id, caller=INTERNAL), key=tokens["user_id"].encode())

    async def dead() -> list[dict[str, Any]]:
        listed = (await operator_call(nest, "list_dead_letters", filter={"topic": topic}, limit=500))["letters"]
        return [each for each in listed if each["message_id"] == message_id.decode()]

    letters = await eventually(dead, what="the dead letter")
    assert {letter["reason"] for letter in letters} == {"unauthenticated"}
    assert (await get_user(nest, tokens["access_token"], tokens["user_id"])).status_code == 200
    assert (await operator_call(nest, "get_user", user_id=tokens["user_id"]))["id"] == tokens["user_id"]


async def test_replay_of_an_unauthenticated_letter_fails_again(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    message_id = new_message_id().encode()
    headers = headers_of("auth.erase-user", id=message_id, caller=INTERNAL)
    await forge(nest, "auth.commands", {"user_id": tokens["user_id"]}, headers, key=tokens["user_id"].encode())

    async def letters() -> list[dict[str, Any]]:
        filters = {"topic": "auth.commands", "reason": "unauthenticated"}
        listed = (await operator_call(nest, "list_dead_letters", filter=filters, limit=500))["letters"]
        return [each for each in listed if each["message_id"] == message_id.decode()]

    first = await eventually(letters, what="the dead letter")
    listed = await nest.command("dead", "replay", first[0]["id"])
    assert listed.out == "1 replayed\n"

    async def failed_again() -> bool:
        return len(await letters()) > len(first)

    await eventually(failed_again, what="another dead letter")
    assert (await get_user(nest, tokens["access_token"], tokens["user_id"])).status_code == 200


async def test_forged_dead_letter_cannot_be_replayed(nest: Stack, email: str) -> None:
    """The plain format of old letters would otherwise let an operator send any command."""
    user = await nest.log_in(email)
    prefix, topic = nest.environment["NEST_TOPIC_PREFIX"], "auth.commands"
    letter = [
        ("dead-reason", b"failing"),
        ("dead-source", b"auth.commands/0/1"),
        ("dead-group", f"{prefix}auth".encode()),
    ]
    headers = [*headers_of("auth.erase-user", caller=INTERNAL), *letter, ("dead-time", b"%d" % (time.time() * 1000))]
    await forge(nest, dead_letter_topic(topic), {"user_id": user["user_id"]}, headers, key=user["user_id"].encode())
    listed = (await operator_call(nest, "list_dead_letters", filter={"topic": topic}, limit=500))["letters"]
    (found,) = [each for each in listed if each["key"] and each["key"]["text"] == user["user_id"]]
    assert (found["reason"], found["detail"]) == ("", "the record has no MAC")
    assert (await nest.command("dead", "replay", found["id"])).out == "1 skipped: not written by Nest\n"
    assert (await get_user(nest, user["access_token"], user["user_id"])).status_code == 200
