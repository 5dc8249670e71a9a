"""Checks of MongoDB on a real one with faults."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.auth.app import INDEXES
from services.auth.audit.store import AuditEntries
from services.mailer.app import INDEXES as MAILER_INDEXES
from services.mailer.deliveries.store import Deliveries
from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.mongo import (
    check_indexes,
    check_mongo,
    check_sealing_keys,
    check_stripe_events,
    check_timers,
)
from shared.bus.inbox import CLOCK_MARGIN, THROTTLED_EXPIRY
from shared.bus.topics import SERVICES
from shared.mongo import Client, Database, connect, database, ensure_indexes

INBOX_RETENTION = timedelta(days=8)
AUDIT_RETENTION = timedelta(days=180)
SETTINGS = {"auth": SimpleNamespace(inbox_retention=INBOX_RETENTION, audit_retention=AUDIT_RETENTION)}
INBOX_EXPIRY = int((INBOX_RETENTION + CLOCK_MARGIN).total_seconds())


@pytest.fixture
async def client(mongo_url: str, database_prefix: str) -> AsyncIterator[Client]:
    """A client of a MongoDB in which only auth's database exists, with all indexes."""
    client = connect(mongo_url, application="tests")
    auth = client[f"{database_prefix}auth"]
    try:
        audit = [*AuditEntries.INDEXES, AuditEntries.expiry(AUDIT_RETENTION)]
        await ensure_indexes(auth, {**INDEXES, AuditEntries.COLLECTION: audit})
        await auth["timers"].create_index("at")
        await auth["timers"].create_index("sentAt", expireAfterSeconds=INBOX_EXPIRY)
        await auth["inbox"].create_index("at", expireAfterSeconds=INBOX_EXPIRY)
        await auth["inbox"].create_indexes([THROTTLED_EXPIRY])
        yield client
    finally:
        await client.drop_database(auth.name)
        await client.close()


def databases_of(client: Client, prefix: str) -> dict[str, Database]:
    return {service: database(client, prefix + service) for service in SERVICES}


async def index_problems(client: Client, prefix: str, settings: Any = SETTINGS) -> list[str]:
    findings = check_indexes(databases_of(client, prefix), settings)
    return [finding.says.removeprefix(prefix) async for finding in findings if finding.level is Level.PROBLEM]


async def levels(findings: AsyncIterator[Finding]) -> list[tuple[Level, str]]:
    return [(finding.level, finding.says) async for finding in findings]


async def test_complete_indexes_are_ok_and_empty_databases_are_warnings(client: Client, database_prefix: str) -> None:
    findings = [finding async for finding in check_indexes(databases_of(client, database_prefix), SETTINGS)]
    assert [finding.level for finding in findings] == [Level.WARNING] * 3
    assert "billing is empty" in findings[0].says
    assert findings[0].do == "start billing once: it creates its indexes"


@pytest.mark.parametrize(
    ("messages", "level"),
    [
        (None, Level.OK),
        (2**31 - 1, Level.OK),
        (2**31, Level.WARNING),
        (3 * 2**30 - 1, Level.WARNING),
        (2**32, Level.PROBLEM),
    ],
)
async def test_sealed_messages_of_the_first_key_are_shown(
    client: Client, database_prefix: str, messages: int | None, level: Level
) -> None:
    keys = client[f"{database_prefix}sealed_auth"]["sealing_keys"]
    if messages is not None:
        await keys.insert_one({"_id": "k2", "messages": messages, "version": 1})
    await keys.insert_one({"_id": "k1", "messages": 2**33, "version": 1})
    try:
        master_keys = {"k2": bytes(32), "k1": bytes(range(32))}
        findings = [
            each async for each in check_sealing_keys(databases_of(client, f"{database_prefix}sealed_"), master_keys)
        ]
        assert findings[0].level is level
        assert f"k2 has sealed {messages or 0:,} messages" in findings[0].says
    finally:
        await client.drop_database(f"{database_prefix}sealed_auth")


async def test_inbox_and_audit_expiry_must_match_the_settings(client: Client, database_prefix: str) -> None:
    audit, inbox = client[f"{database_prefix}auth"]["audit"], client[f"{database_prefix}auth"]["inbox"]
    await audit.drop_index("at_1")
    assert await index_problems(client, database_prefix) == ["auth.audit lacks the index at_1"]
    await audit.create_index("at", expireAfterSeconds=3600)
    await inbox.drop_index("at_1")
    await inbox.create_index("at", expireAfterSeconds=3600)
    differences = [f"auth.{name}: the index at_1 has another expireAfterSeconds" for name in ("audit", "inbox")]
    assert sorted(await index_problems(client, database_prefix)) == differences
    # With unknown settings any expiry is accepted, but not a missing one.
    assert await index_problems(client, database_prefix, {}) == []
    await audit.drop_index("at_1")
    await audit.create_index("at")
    assert await index_problems(client, database_prefix, {}) == differences[:1]


async def test_deliveries_must_expire_as_set(client: Client, database_prefix: str) -> None:
    mailer = client[f"{database_prefix}mailer"]
    settings = {
        **SETTINGS,
        "mailer": SimpleNamespace(inbox_retention=INBOX_RETENTION, delivery_retention=timedelta(90)),
    }
    try:
        deliveries = [*Deliveries.INDEXES, Deliveries.expiry(timedelta(days=31))]
        await ensure_indexes(mailer, {**MAILER_INDEXES, Deliveries.COLLECTION: deliveries})
        await mailer["timers"].create_index("at")
        await mailer["timers"].create_index("sentAt", expireAfterSeconds=INBOX_EXPIRY)
        await mailer["inbox"].create_index("at", expireAfterSeconds=INBOX_EXPIRY)
        await mailer["inbox"].create_indexes([THROTTLED_EXPIRY])
        assert await index_problems(client, database_prefix, settings) == [
            "mailer.deliveries: the index updatedAt_1 has another expireAfterSeconds"
        ]
    finally:
        await client.drop_database(mailer.name)


async def test_index_with_other_fields_or_not_unique_is_a_problem(client: Client, database_prefix: str) -> None:
    identifiers = client[f"{database_prefix}auth"]["identifiers"]
    indexes = await identifiers.index_information()
    name = next(name for name, index in indexes.items() if index.get("unique"))
    await identifiers.drop_index(name)
    await identifiers.create_index("createdAt", name=name)
    problems = await index_problems(client, database_prefix)
    assert f"auth.identifiers: the index {name} has another unique" in problems
    assert f"auth.identifiers: the index {name} has another key" in problems


async def test_expired_row_that_was_not_deleted_is_a_problem(client: Client, database_prefix: str) -> None:
    inbox = client[f"{database_prefix}auth"]["inbox"]
    # With the index MongoDB could delete the row before the check.
    await inbox.drop_index("at_1")
    await inbox.insert_one({"at": datetime.now(UTC) - INBOX_RETENTION - CLOCK_MARGIN - timedelta(hours=2)})
    assert "auth.inbox keeps rows that have expired" in await index_problems(client, database_prefix)


async def test_overdue_timers_are_counted(client: Client, database_prefix: str) -> None:
    timers = client[f"{database_prefix}auth"]["timers"]
    assert await levels(check_timers(databases_of(client, database_prefix))) == [(Level.OK, "none is overdue")]
    await timers.insert_one({"at": datetime.now(UTC) - timedelta(minutes=2)})
    await timers.insert_one({"at": datetime.now(UTC) + timedelta(minutes=2)})
    overdue = await levels(check_timers(databases_of(client, database_prefix)))
    assert overdue == [(Level.PROBLEM, "1 messages of auth are overdue")]


async def test_pending_stripe_events_are_named_oldest_first(client: Client, database_prefix: str) -> None:
    events = client[f"{database_prefix}billing"]["stripe_events"]
    none = await levels(check_stripe_events(databases_of(client, database_prefix)))
    assert none == [(Level.OK, "none is pending for half an hour")]
    now = datetime.now(UTC)
    await events.insert_many(
        [
            {"stpEventId": "evt_young", "handledAt": None, "receivedAt": now - timedelta(minutes=20)},
            {"stpEventId": "evt_done", "handledAt": now, "receivedAt": now - timedelta(minutes=50)},
            {"stpEventId": "evt_second", "handledAt": None, "receivedAt": now - timedelta(minutes=40)},
            {"stpEventId": "evt_first", "handledAt": None, "receivedAt": now - timedelta(minutes=50)},
        ]
    )
    assert await levels(check_stripe_events(databases_of(client, database_prefix))) == [
        (Level.WARNING, "2 are pending for half an hour, the oldest: evt_first, evt_second")
    ]


class MongoStub:
    """Stub of MongoDBs that tests do not have: old ones, single ones, ones with another clock."""

    def __init__(self, hello: dict[str, Any], version: list[int], seconds: int) -> None:
        self._hello, self._version, self._seconds = hello, version, seconds
        self.admin = self

    async def command(self, _name: str) -> dict[str, Any]:
        local = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=self._seconds)
        return {**self._hello, "localTime": local}

    async def server_info(self) -> dict[str, Any]:
        return {"version": ".".join(map(str, self._version)), "versionArray": self._version}


async def findings_of(mongo: Any) -> list[Finding]:
    return [finding async for finding in check_mongo(mongo)]


@pytest.mark.parametrize(
    ("hello", "version", "seconds", "text"),
    [
        ({}, [7, 0, 0], 0, "not a replica set"),
        ({"setName": "rs0"}, [5, 0, 9], 0, "version 5.0.9"),
        ({"setName": "rs0", "hosts": ["a"]}, [8, 0, 0], 0, "the loss of one machine"),
        ({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], -60, "60 s behind"),
        ({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], 5, "5 s ahead"),
    ],
)
async def test_faulty_mongodb_is_reported(hello: dict[str, Any], version: list[int], seconds: int, text: str) -> None:
    findings = await findings_of(MongoStub(hello, version, seconds))
    (finding,) = [finding for finding in findings if finding.level is not Level.OK]
    assert text in finding.says
    assert finding.do


async def test_replica_set_of_three_with_the_right_time_is_ok() -> None:
    findings = await findings_of(MongoStub({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], 0))
    assert [(finding.level, finding.area) for finding in findings] == [(Level.OK, ""), (Level.OK, "clock")]
