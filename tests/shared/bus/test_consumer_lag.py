"""Consumer lag, read from Kafka while the consumer is away."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import REGISTRY

from shared.bus.consumer_lag import LagExporter, LagReader
from shared.bus.kafka_connection import KafkaConnection
from tests.metrics import values
from tests.shared.bus_harness import BusHarness
from tests.shared.sample_services import Append
from tests.stack import eventually


async def test_lag_of_a_service_that_is_away_is_counted_and_has_an_age(bus: BusHarness) -> None:
    group = f"{bus.prefix}ledger"
    async with LagReader(KafkaConnection(bus.bootstrap)) as reader:
        assert (await reader.read(group)).records == 0
        async with bus.running():
            for number in range(3):
                await bus.call(Append(subject="s", number=number, key=str(number)))
            await bus.drained()
        idle = await reader.read(group)
        assert (idle.records, idle.oldest, idle.handled, idle.gaps) == (0, None, 3, ())
        await asyncio.sleep(0.01)
        before = int(time.time() * 1000)
        for number in range(5):
            await bus.send(Append(subject="s", number=number, key=str(number)))
        lag = await reader.read(group)
        assert lag.records == 5
        assert {each.records for each in idle.partitions.values()} == {0}
        assert len(idle.partitions) == 6  # of its commands and webhooks
        behind = {partition: each for partition, each in lag.partitions.items() if each.records}
        assert sum(each.records for each in behind.values()) == 5
        assert min(each.oldest or 0 for each in behind.values()) == lag.oldest
        assert {each.oldest for partition, each in lag.partitions.items() if partition not in behind} <= {None}
        assert lag.oldest is not None
        assert before <= lag.oldest <= time.time() * 1000
        assert lag.seconds(lag.oldest / 1000 + 60) == 60
        await bus.expire_records("ledger.commands")
        expired = await reader.read(group)
        assert (expired.records, sum(gap.count for gap in expired.gaps)) == (0, 5)


async def test_lag_is_exported_for_services_that_are_away(bus: BusHarness) -> None:
    async with bus.running():
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
    exporter = LagExporter(
        KafkaConnection(bus.bootstrap), prefix=bus.prefix, services=["ledger", "audit"], seconds=0.05
    )
    exporter.start()
    try:
        await bus.send(Append(subject="s", number=1, key="s"))
        await eventually(lambda: sample("nest_consumer_lag_records") == 1)
        await eventually(lambda: 0 < sample("nest_consumer_lag_seconds") < 60)
        by_partition = values("nest_consumer_group_lag_records")
        waiting = [key for key, records in by_partition.items() if key[1] == f"{bus.prefix}ledger" and records]
        assert [key[0::2] for key in waiting] == [("ledger", "ledger.commands")]
        since = values("nest_consumer_group_oldest_record_timestamp_seconds")
        assert [key for key, at in since.items() if key[1] == f"{bus.prefix}ledger" and at] == waiting
        await bus.expire_records("ledger.commands")
        await eventually(lambda: sample("nest_consumer_lag_expired_records") == 1)
        assert set(exporter.lags) == {"ledger", "audit"}
    finally:
        await exporter.stop()


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"service": "ledger"}) or 0.0
