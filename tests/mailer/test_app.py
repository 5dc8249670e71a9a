from collections import Counter
from typing import Any

import pytest
from pymongo import MongoClient

from services.mailer.app import create
from services.mailer.deliveries import models
from shared.bus import topics
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.ids import derived_message_id
from shared.sealing import Sealer
from shared.settings import SettingsError
from tests.backing import Backing
from tests.mailer.conftest import MakeSettings
from tests.mailer.mails.test_handlers import mail_command
from tests.mailer.smtp_server import SmtpServer, until


async def test_two_instances_send_each_ordered_mail_once(
    *,
    backing: Backing,
    topic_prefix: str,
    database_prefix: str,
    mongo_client: MongoClient[dict[str, Any]],
    settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "FIRST_PAUSE", models.FIRST_PAUSE / 10)
    await topics.apply(KafkaConnection(backing.kafka_bootstrap), prefix=topic_prefix, max_partitions=2)
    sealer = Sealer(settings().master_keys())
    macs = RecordMacs(sealer, prefix=topic_prefix)
    producer = Producer(KafkaConnection(backing.kafka_bootstrap), macs=macs, prefix=topic_prefix)
    await producer.start()
    recipients = [f"person{number}@example.com" for number in range(40)]
    async with SmtpServer(pipelining=True) as server:
        seen: Counter[str] = Counter()

        def greylist(address: str) -> str | None:
            seen[address] += 1
            return "451 4.7.1 greylisted" if seen[address] == 1 else None

        server.answers["RCPT"] = greylist
        loaded = settings(
            kafka_bootstrap=backing.kafka_bootstrap,
            mongo_url=backing.mongo_url,
            topic_prefix=topic_prefix,
            database_prefix=database_prefix,
            drain_seconds=5,
            smtp_port=server.port,
        )
        try:
            async with create(loaded), create(loaded):
                for number, address in [*enumerate(recipients), *enumerate(recipients)]:
                    command = mail_command(address)
                    await producer.send(
                        Envelope(
                            id=derived_message_id("order", str(number)),
                            wire=command.wire,
                            topic=command.topic,
                            key=address,
                            body=encode(command, sealer),
                            time=unix_milliseconds(),
                        )
                    )
                deliveries = mongo_client[f"{database_prefix}mailer"]["deliveries"]

                async def all_handed_over() -> bool:
                    return deliveries.count_documents({"state": "handed_over"}) == len(recipients)

                await until(all_handed_over, 60)
        finally:
            await producer.stop()
        assert sorted(to for arrival in server.arrivals for to in arrival.recipients) == sorted(recipients)
        assert {arrival.message["Message-ID"] for arrival in server.arrivals} == {
            f"<{derived_message_id('order', str(number))}@nest.example>" for number in range(40)
        }
    assert set(deliveries.distinct("attempts")) == {2}


def test_missing_setting_prevents_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEST_SMTP_HOST", raising=False)
    with pytest.raises(SettingsError, match="NEST_SMTP_HOST: is not set"):
        create()


def test_deliveries_expire_after_their_last_change(settings: MakeSettings) -> None:
    service = create(settings(deliveries_days=31))
    expiries = [index.document for index in service._indexes["deliveries"] if "expireAfterSeconds" in index.document]
    assert [(list(each["key"]), each["expireAfterSeconds"]) for each in expiries] == [(["updatedAt"], 31 * 24 * 3600)]
    with pytest.raises(SettingsError, match="NEST_DELIVERIES_DAYS"):
        settings(deliveries_days=30)
