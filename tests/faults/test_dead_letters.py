"""A killed replay of dead letters is finished by its repeat, and nothing takes effect twice."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from pymongo import AsyncMongoClient

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.dead_letters.records import dead_letter_record
from shared.fault_points import EXIT_CODE
from shared.ids import new_message_id
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import Stack, eventually, running_stack

TOPIC = "mailer.commands"


class Record:
    """The failed record of a dead letter."""

    def __init__(self, offset: int, envelope: Envelope, macs: RecordMacs) -> None:
        self.partition, self.offset = 0, offset
        self.key: bytes | None = envelope.key.encode()
        self.value: bytes | None = envelope.body
        self.headers: Sequence[tuple[str, bytes]] = macs.signed(TOPIC, self.key, self.value, envelope.headers())


async def add_letters(nest: Stack, commands: list[RecordMarketingConsent]) -> None:
    """Write dead letters of commands that could not be decoded."""
    prefix = nest.environment["NEST_TOPIC_PREFIX"]
    sealer = Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))
    macs = RecordMacs(sealer, prefix=prefix)
    producer = Producer(KafkaConnection(nest.environment["NEST_KAFKA_BOOTSTRAP"]), macs=macs, prefix=prefix)
    await producer.start()
    try:
        for number, command in enumerate(commands):
            now = unix_milliseconds()
            body = encode(command, sealer)
            envelope = Envelope(
                id=new_message_id(), wire=command.wire, topic=TOPIC, key=command.user_id, body=body, time=now
            )
            letter = dead_letter_record(
                Record(number, envelope, macs),
                TOPIC,
                sealer=sealer,
                reason="undecodable",
                detail="",
                trace="",
                attempts=0,
                group=f"{prefix}mailer",
                at=now,
            )
            await producer.send_record(f"{TOPIC}.dead", letter.value, letter.headers, key=letter.key)
    finally:
        await producer.stop()


async def record_count(nest: Stack) -> int:
    """Number of records on the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"])
    await consumer.start()
    try:
        name = nest.environment["NEST_TOPIC_PREFIX"] + TOPIC
        ends = await consumer.end_offsets([TopicPartition(name, number) for number in range(4)])
        return sum(ends.values())
    finally:
        await consumer.stop()


async def test_a_killed_replay_is_finished_by_its_repeat(
    tmp_path: Path, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> None:
    prefix = unique()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=("auth",),
    ) as nest:
        # Alternating levels: only in this order the last one is the result.
        levels = ("general", "none") * 3
        await add_letters(
            nest, [RecordMarketingConsent(user_id="user_1", level=level, source="user") for level in levels]
        )
        before = await record_count(nest)
        auth = nest.processes["auth"]
        await auth.stop()
        await auth.start(NEST_CRASH_AT="R1:4")
        arguments = {"filter": {"topic": TOPIC}}
        headers = {"idempotency_key": "one replay", **nest.internal}
        killed = asyncio.create_task(nest.call("replay_dead_letters", arguments, **headers))
        assert await auth.ended() == EXIT_CODE
        assert await record_count(nest) == before + 4
        await auth.start()
        await killed

        async def outcomes() -> list[str]:
            response = await nest.call("replay_dead_letters", arguments, **headers)
            return [each["outcome"] for each in response.json()["letters"]] if response.status_code == 200 else []

        assert await eventually(outcomes, within=60) == ["replayed"] * 6
        response = await nest.call("replay_dead_letters", arguments, **nest.internal)
        assert {each["outcome"] for each in response.json()["letters"]} == {"replayed_before"}
        assert await record_count(nest) == before + 10

        client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(mongo_url)
        try:
            database = client[f"{prefix}mailer"]

            async def all_done() -> bool:
                return await database["inbox"].count_documents({}) >= 6

            await eventually(all_done)
            handled = [message async for message in database["inbox"].find()]
            changes = [change async for change in database["marketing_consent_changes"].find().sort("number")]
        finally:
            await client.close()
        # Each took effect once although four were replayed twice, and in order, since each is a change.
        assert len(handled) == 6
        assert [change["level"] for change in changes] == list(levels)
