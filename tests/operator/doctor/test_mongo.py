"""What the doctor says of databases, asked of a real MongoDB that is not as it should be."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.auth.app import INDEXES
from services.auth.audit.store import AuditEntries
from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.mongo import look_at_indexes, look_at_mongo, look_at_stripe_events, look_at_timers
from shared.bus.inbox import CLOCK_MARGIN
from shared.mongo import Client, connect, ensure_indexes

RETENTION = timedelta(days=8)
KEPT = timedelta(days=180)
SETTINGS = {"auth": SimpleNamespace(inbox_retention=RETENTION, audit_retention=KEPT)}


@pytest.fixture
async def client(mongo_url: str, database_prefix: str) -> AsyncIterator[Client]:
    """Reaches databases of which only that of auth is there, as auth leaves it, but for the bus."""
    client = connect(mongo_url, application="tests")
    auth = client[f"{database_prefix}auth"]
    try:
        audit = [*AuditEntries.INDEXES, AuditEntries.expiry(KEPT)]
        await ensure_indexes(auth, {**INDEXES, AuditEntries.COLLECTION: audit})
        await auth["timers"].create_index("at")
        await auth["inbox"].create_index("at", expireAfterSeconds=seconds(RETENTION + CLOCK_MARGIN))
        yield client
    finally:
        await client.drop_database(auth.name)
        await client.close()


def seconds(span: timedelta) -> int:
    return int(span.total_seconds())


async def problems(client: Client, prefix: str, settings: Any = SETTINGS) -> list[str]:
    looked = look_at_indexes(client, prefix, settings)
    return [finding.says.removeprefix(prefix) async for finding in looked if finding.level is Level.PROBLEM]


async def test_what_is_there_is_well_and_an_empty_database_is_told(client: Client, database_prefix: str) -> None:
    findings = [finding async for finding in look_at_indexes(client, database_prefix, SETTINGS)]
    assert [finding.level for finding in findings] == [Level.WARNING] * 3
    assert "billing is empty" in findings[0].says
    assert findings[0].do == "start billing once: it makes what it needs"


async def test_how_long_the_inbox_and_the_audit_keep_must_be_what_the_settings_say(
    client: Client, database_prefix: str
) -> None:
    audit, inbox = client[f"{database_prefix}auth"]["audit"], client[f"{database_prefix}auth"]["inbox"]
    await audit.drop_index("at_1")
    assert await problems(client, database_prefix) == ["auth.audit lacks the index at_1"]
    await audit.create_index("at", expireAfterSeconds=3600)
    await inbox.drop_index("at_1")
    await inbox.create_index("at", expireAfterSeconds=3600)
    told = [f"auth.{name}: the index at_1 has another expireAfterSeconds" for name in ("audit", "inbox")]
    assert sorted(await problems(client, database_prefix)) == told
    # Where nobody has told how long, it must be any time, but some.
    assert await problems(client, database_prefix, {}) == []
    await audit.drop_index("at_1")
    await audit.create_index("at")
    assert await problems(client, database_prefix, {}) == told[:1]


async def test_an_index_on_other_fields_or_not_unique_is_told(client: Client, database_prefix: str) -> None:
    identifiers = client[f"{database_prefix}auth"]["identifiers"]
    name, index = next(
        (name, index) for name, index in (await identifiers.index_information()).items() if index.get("unique")
    )
    await identifiers.drop_index(name)
    await identifiers.create_index("createdAt", name=name)
    said = await problems(client, database_prefix)
    assert f"auth.identifiers: the index {name} has another unique" in said
    assert f"auth.identifiers: the index {name} has another key" in said
    assert index["unique"]


async def test_rows_that_have_expired_and_stay_are_told(client: Client, database_prefix: str) -> None:
    inbox = client[f"{database_prefix}auth"]["inbox"]
    # Without it MongoDB removes the row within a minute, perhaps before anybody looks.
    await inbox.drop_index("at_1")
    await inbox.insert_one({"at": datetime.now(UTC) - RETENTION - CLOCK_MARGIN - timedelta(hours=2)})
    assert "auth.inbox keeps rows that have expired" in await problems(client, database_prefix)


async def test_messages_that_are_overdue_are_counted(client: Client, database_prefix: str) -> None:
    timers = client[f"{database_prefix}auth"]["timers"]
    assert await of_timers(client, database_prefix) == [(Level.OK, "none is overdue")]
    await timers.insert_one({"at": datetime.now(UTC) - timedelta(minutes=2)})
    await timers.insert_one({"at": datetime.now(UTC) + timedelta(minutes=2)})
    assert await of_timers(client, database_prefix) == [(Level.PROBLEM, "1 messages of auth are overdue")]


async def test_stripes_events_that_wait_are_named(client: Client, database_prefix: str) -> None:
    events = client[f"{database_prefix}billing"]["stripe_events"]
    assert await of_events(client, database_prefix) == [(Level.OK, "none waits for long")]
    now = datetime.now(UTC)
    await events.insert_many(
        [
            {"stpEventId": "evt_young", "handledAt": None, "receivedAt": now - timedelta(minutes=20)},
            {"stpEventId": "evt_done", "handledAt": now, "receivedAt": now - timedelta(minutes=50)},
            {"stpEventId": "evt_second", "handledAt": None, "receivedAt": now - timedelta(minutes=40)},
            {"stpEventId": "evt_first", "handledAt": None, "receivedAt": now - timedelta(minutes=50)},
        ]
    )
    assert await of_events(client, database_prefix) == [
        (Level.WARNING, "2 wait for more than half an hour, the first of them evt_first, evt_second")
    ]


async def of_events(client: Client, prefix: str) -> list[tuple[Level, str]]:
    return [(finding.level, finding.says) async for finding in look_at_stripe_events(client, prefix)]


async def of_timers(client: Client, prefix: str) -> list[tuple[Level, str]]:
    return [(finding.level, finding.says) async for finding in look_at_timers(client, prefix)]


@pytest.mark.parametrize(
    ("hello", "version", "seconds", "told"),
    [
        ({}, [7, 0, 0], 0, "not a replica set"),
        ({"setName": "rs0"}, [5, 0, 9], 0, "version 5.0.9"),
        ({"setName": "rs0", "hosts": ["a"]}, [8, 0, 0], 0, "the loss of one machine"),
        ({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], -60, "60 s behind"),
        ({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], 5, "5 s ahead"),
    ],
)
async def test_what_a_mongodb_says_of_itself_is_judged(
    hello: dict[str, Any], version: list[int], seconds: int, told: str
) -> None:
    findings = await said_by(Told(hello, version, seconds))
    (worst,) = [finding for finding in findings if finding.level is not Level.OK]
    assert told in worst.says
    assert worst.do


async def test_a_replica_set_of_three_with_the_right_time_is_well() -> None:
    findings = await said_by(Told({"setName": "rs0", "hosts": ["a", "b", "c"]}, [8, 0, 0], 0))
    assert [finding.area for finding in findings if finding.level is Level.OK] == ["mongodb", "clock"]


class Told:
    """Stands in for MongoDBs that nobody has here: old ones, ones alone, ones with another time."""

    def __init__(self, hello: dict[str, Any], version: list[int], seconds: int) -> None:
        self._hello, self._version, self._seconds = hello, version, seconds
        self.admin = self

    async def command(self, _name: str) -> dict[str, Any]:
        local = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=self._seconds)
        return {**self._hello, "localTime": local}

    async def server_info(self) -> dict[str, Any]:
        return {"version": ".".join(map(str, self._version)), "versionArray": self._version}


async def said_by(mongo: Any) -> list[Finding]:
    return [finding async for finding in look_at_mongo(mongo)]
