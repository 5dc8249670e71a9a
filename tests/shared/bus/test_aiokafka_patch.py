"""Records whose header names are not UTF-8, and a stop during an outage."""

import asyncio
from typing import Any, Never

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import RequestTimedOutError
from aiokafka.record.util import calc_crc32c

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.envelope import encode, unix_milliseconds
from shared.ids import new_message_id
from tests.shared.bus_harness import BusHarness
from tests.shared.sample_services import Append

NAME = "ZZZZ"


async def put_batch(bus: BusHarness, subjects: list[str], name: bytes) -> None:
    """Send a batch whose second record has a header name that aiokafka would not write."""
    producer: Any = bus.producer._producer
    batch = producer.create_batch()
    for number, subject in enumerate(subjects):
        headers = [
            ("type", b"ledger.append"),
            ("id", new_message_id().encode()),
            ("time", b"%d" % unix_milliseconds()),
            *([(NAME, b"1")] if number == 1 else []),
        ]
        body = encode(Append(subject=subject, number=0), bus.sealer)
        # Of the headers as they are read.
        read = [(name.decode("utf-8", "backslashreplace") if each == NAME else each, value) for each, value in headers]
        headers.insert(0, bus.macs.signed("ledger.commands", b"k", body, read)[0])
        assert batch.append(key=b"k", value=body, timestamp=None, headers=headers)
    batch.close()
    raw = bytearray(batch._build().replace(NAME.encode(), name))
    raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
    batch._buffer = bytes(raw)
    sent = await producer.send_batch(batch, f"{bus.prefix}ledger.commands", partition=await bus.partition_of("k"))
    await sent


@pytest.mark.parametrize("name", [b"\xff\xfe\xfd\xfc", b"\xc3\x28ab", b"ok\xed\xa0"])
async def test_a_header_name_that_is_not_utf8_loses_and_repeats_no_record(bus: BusHarness, name: bytes) -> None:
    await bus.send(Append(subject="before", number=0, key="k"))
    for number in range(20):  # in other partitions, fetched along with it
        await bus.send(Append(subject=f"other{number}", number=0, key=str(number)))
    await put_batch(bus, ["a", "b", "c"], name)
    await bus.send(Append(subject="after", number=0, key="k"))
    async with bus.running() as running:
        await bus.drained()
        assert (await bus.call(Append(subject="later", number=0, key="k"))).kind == "done"
        assert running.service.problems() == []
        places = [(record.partition, record.offset) for record in await bus.records("ledger.commands")]
        assert len(set(places)) == len(places), "a record of an earlier batch was handled twice"
    for subject in ("before", "a", "b", "c", "after", *(f"other{number}" for number in range(20))):
        assert await bus.numbers(subject) == [0], f"{subject} was lost"


async def test_a_dead_letter_has_the_escaped_header_name(bus: BusHarness) -> None:
    async with bus.running():
        producer: Any = bus.producer._producer
        batch = producer.create_batch()
        assert batch.append(key=b"k", value=b"poison", timestamp=None, headers=[(NAME, b"\x00\xff")])
        batch.close()
        raw = bytearray(batch._build().replace(NAME.encode(), b"\xffabc"))
        raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
        batch._buffer = bytes(raw)
        await (await producer.send_batch(batch, f"{bus.prefix}ledger.commands", partition=0))
        await bus.drained()
    (letter,) = await bus.dead_letters()
    assert (letter.value, letter.headers[0]) == (b"poison", ("\\xffabc", b"\x00\xff"))


async def test_consumer_stops_while_a_failed_fetch_waits_for_its_next_try(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()

    async def time_out(*_: Any) -> Never:
        failed.set()
        raise RequestTimedOutError

    patch_aiokafka()
    consumer = AIOKafkaConsumer(
        f"{bus.prefix}ledger.commands",
        bootstrap_servers=bus.bootstrap,
        group_id=None,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    await consumer.seek_to_end()
    fetcher: Any = consumer._fetcher
    # Not as an option: the requests before would wait as long if they find a partition of the new topic leaderless.
    monkeypatch.setattr(fetcher, "_retry_backoff", 60)
    monkeypatch.setattr(fetcher._client, "send", time_out)
    async with asyncio.timeout(30):
        await failed.wait()
        await consumer.stop()
