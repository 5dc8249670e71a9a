"""MACs of records: every record on every topic of a running Nest has a valid one."""

from __future__ import annotations

from shared.bus.record_macs import RecordMacs
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.abuse.conftest import Target
from tests.stack import Login


async def test_every_record_has_a_valid_mac(target: Target, email: str) -> None:
    await target.nest.log_in(email)
    await target.nest.call("authenticate_user", Login(email).redemption("wrong"))
    environment = target.nest.environment
    prefix = environment["NEST_TOPIC_PREFIX"]
    macs = RecordMacs(Sealer(parse_keys(environment["NEST_SEALING_KEYS"])), prefix=prefix)
    records = await target.records()
    topics = {record.topic.removeprefix(prefix) for record in records}
    assert topics >= {"auth.commands", "auth.events", "auth.keys", "auth.clients", "gateway.replies", "instances"}
    problems = [(record.topic, macs.problem(record.topic.removeprefix(prefix), record)) for record in records]
    assert [each for each in problems if each[1] is not None] == []
