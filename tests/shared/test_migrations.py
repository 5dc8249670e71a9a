"""Versions of databases and their migrations, on a real MongoDB."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from services.auth.app import MIGRATIONS
from services.operator import database as commands
from services.operator import databases
from services.operator.client import CommandError
from shared import migrations as module
from shared.database_version import DatabaseVersion, refusal_of, stored_version
from shared.migrations import (
    CannotMigrate,
    Migration,
    MigrationContext,
    MigrationJob,
    Migrations,
    Progress,
    replacing,
    status,
)
from shared.mongo import Database, Document, connect, database
from shared.sealing import Sealer
from shared.settings import SettingsError
from tests import forked
from tests.forked import ForkedCommand
from tests.shared.bus_harness import BusHarness
from tests.shared.sample_services import Append
from tests.stack import eventually

ROWS = 40


def in_cents(document: Document) -> Document:
    """A document with a price in cents instead of euros."""
    changed = {name: value for name, value in document.items() if name != "euros"}
    return {**changed, "cents": 100 * document["euros"]} if "euros" in document else document


PRICES = Migration(
    version=1,
    title="prices in cents",
    collection="prices",
    older={"euros": {"$exists": True}},
    change=replacing(in_cents),
)
KNOWN = Migrations((PRICES,))


@pytest.fixture
async def own(mongo_url: str, database_prefix: str) -> AsyncIterator[Database]:
    """A database with documents of the older shape, as a release without versions leaves it."""
    client = connect(mongo_url, application="tests", timeout=20)
    found = database(client, f"{database_prefix}ledger")
    await found["inbox"].insert_one({"_id": "row"})
    await found["prices"].insert_many([{"_id": f"{n:04}", "euros": n, "version": 1} for n in range(ROWS)])
    yield found
    await client.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)


def job(own: Database, migrations: Migrations = KNOWN, **options: Any) -> MigrationJob:
    reports: list[Progress] = options.pop("reports", [])
    return MigrationJob(MigrationContext(own, Sealer({"test": bytes(32)})), migrations, reports.append, **options)


async def cents(own: Database) -> list[int]:
    return [each.get("cents", -1) for each in await own["prices"].find().sort("_id", 1).to_list()]


MIGRATED = [100 * n for n in range(ROWS)]


async def test_documents_are_rewritten_and_the_version_rises(own: Database) -> None:
    before = await status(own, KNOWN)
    assert (before.version, before.known, [left for _, left in before.left]) == (0, 1, [ROWS])
    reports: list[Progress] = []
    assert await job(own, reports=reports).run() == ROWS
    assert await cents(own) == MIGRATED
    assert (reports[0].done, reports[0].total) == (0, ROWS)
    assert (reports[-1].done, reports[-1].total) == (ROWS, ROWS)
    assert (await status(own, KNOWN)).left == ()
    assert await job(own).run() == 0


async def test_an_interrupted_job_continues_where_it_ended(own: Database) -> None:
    seen: list[str] = []
    killed = asyncio.Event()

    async def recorded(context: MigrationContext, collection: Any, documents: Sequence[Document]) -> int:
        if len(seen) >= 14 and not killed.is_set():
            killed.set()
            raise asyncio.CancelledError
        seen.extend(each["_id"] for each in documents)
        return await PRICES.change(context, collection, documents)

    step = Migration(version=1, title="prices", collection="prices", older=PRICES.older, change=recorded)
    with pytest.raises(asyncio.CancelledError):
        await job(own, Migrations((step,))).run()
    # What the killed job has already passed is read again only in a second pass, and there is none.
    reports: list[Progress] = []
    assert await job(own, Migrations((step,)), reports=reports).run() == ROWS - 14
    assert (reports[0].done, reports[0].total) == (14, ROWS)
    assert seen == sorted(seen)
    assert await cents(own) == MIGRATED


async def test_of_two_jobs_one_waits_and_finds_nothing_to_do(own: Database) -> None:
    counts = await asyncio.gather(job(own).run(), job(own).run())
    assert sorted(counts) == [0, ROWS]
    assert await cents(own) == MIGRATED


async def test_a_second_job_ends_if_the_first_runs_too_long(own: Database) -> None:
    await own["schema"].insert_one({"_id": "job", "owner": "first"})
    await own["schema"].update_one({"_id": "job"}, [{"$set": {"until": {"$add": ["$$NOW", 60_000]}}}])
    with pytest.raises(CannotMigrate, match=r"another job migrates .*ledger"):
        await job(own, wait_seconds=0).run()
    # The lease of a killed job ends.
    await own["schema"].update_one({"_id": "job"}, [{"$set": {"until": "$$NOW"}}])
    assert await job(own).run() == ROWS


async def test_a_document_that_changes_meanwhile_keeps_the_change(
    own: Database, mongo_client: MongoClient[dict[str, Any]]
) -> None:
    changed: set[str] = set()

    def changing(document: Document) -> Document:
        if document["_id"] not in changed:
            changed.add(document["_id"])
            collection = mongo_client[own.name]["prices"]
            collection.update_one({"_id": document["_id"]}, {"$inc": {"version": 1}, "$set": {"note": "kept"}})
        return in_cents(document)

    step = Migration(version=1, title="prices", collection="prices", older=PRICES.older, change=replacing(changing))
    assert await job(own, Migrations((step,))).run() == ROWS
    assert await cents(own) == MIGRATED
    assert await own["prices"].count_documents({"note": "kept"}) == ROWS


async def test_documents_that_cannot_be_rewritten_end_the_job(own: Database) -> None:
    step = Migration(
        version=1, title="prices", collection="prices", older=PRICES.older, change=replacing(lambda each: each)
    )
    with pytest.raises(CannotMigrate, match=f"{ROWS} documents in .* can't be rewritten"):
        await job(own, Migrations((step,))).run()
    assert await stored_version(own) == 0


async def test_rate_bounds_the_documents_per_second(own: Database) -> None:
    began = asyncio.get_running_loop().time()
    await job(own, rate=200).run()
    assert asyncio.get_running_loop().time() - began >= (ROWS - 7) / 200


@pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1)])
def test_versions_follow_one_by_one(versions: tuple[int, ...]) -> None:
    steps = tuple(
        Migration(version=each, title="", collection="prices", older={}, change=PRICES.change) for each in versions
    )
    with pytest.raises(ValueError, match="do not follow 0"):
        Migrations(steps)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (
            0,
            "nest_auth has version 0, and this release reads versions from 1: run nest database migrate of the release",
        ),
        (1, None),
        (3, None),
        (4, "nest_auth has version 4, and this release knows versions up to 3: start the release that migrated it"),
    ],
)
def test_refusals_name_both_versions_and_the_remedy(version: int, text: str | None) -> None:
    refused = refusal_of("nest_auth", version, oldest=1, known=3)
    assert (refused is None) == (text is None)
    assert refused is None or (text is not None and text in refused and "\n" not in refused)


async def test_a_new_database_has_the_newest_version(mongo_url: str, database_prefix: str) -> None:
    client = connect(mongo_url, application="tests", timeout=20)
    try:
        own = database(client, f"{database_prefix}new")
        await DatabaseVersion(own, oldest=0, known=4).check()
        assert await stored_version(own) == 4
        with pytest.raises(SettingsError, match="version 4, and this release knows versions up to 3"):
            await DatabaseVersion(own, oldest=0, known=3).check()
    finally:
        await client.close()


async def test_contract_waits_for_the_instances_of_the_release_before(own: Database) -> None:
    old = DatabaseVersion(own, oldest=0, known=0)
    await old.check()
    await old.begin("auth-1")
    with pytest.raises(CannotMigrate, match=r"instances of an older release run \(auth-1 knows version 0\)"):
        await job(own, wait_seconds=0).run()
    assert await cents(own) == MIGRATED
    # It still serves, starts again, and writes the older shape.
    await DatabaseVersion(own, oldest=0, known=0).check()
    await own["prices"].insert_one({"_id": "late", "euros": 7, "version": 1})
    await old.stop()
    assert await job(own).run() == 1
    assert await own["prices"].find_one({"_id": "late"}) == {"_id": "late", "cents": 700, "version": 1}
    with pytest.raises(SettingsError, match="version 1, and this release knows versions up to 0"):
        await DatabaseVersion(own, oldest=0, known=0).check()


async def test_an_instance_that_was_not_seen_fails_its_health_check(bus: BusHarness) -> None:
    async with bus.running() as running:
        version = running.service._version
        assert version is not None
        await bus.database()["schema"].update_one({"_id": "version"}, {"$set": {"version": 5}})
        await version._report()
        assert any("has version 5" in each for each in running.service.problems())


async def test_instances_of_both_releases_serve_during_the_job(bus: BusHarness) -> None:
    own = bus.database()
    async with bus.running():
        await own["schema"].update_one({"_id": "version"}, {"$set": {"version": 0}})
        await own["prices"].insert_many([{"_id": f"{n:04}", "euros": n, "version": 1} for n in range(ROWS)])
        async with bus.running(migrations=KNOWN):
            running = asyncio.create_task(job(own, rate=100).run())
            await asyncio.gather(*(bus.call(Append(subject=str(n), number=0, key=str(n))) for n in range(20)))
            assert await cents(own) != []
    assert await running == ROWS
    assert (await stored_version(own), await cents(own)) == (1, MIGRATED)
    with pytest.raises(SettingsError, match="version 1, and this release knows versions up to 0"):
        async with bus.running():
            pass


async def test_a_start_with_a_newer_database_exits_with_78_and_one_line(bus: BusHarness) -> None:
    own = bus.database()
    await own["schema"].insert_one({"_id": "version", "version": 9})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.shared.sample_services", "ledger"),
        env=bus.environment(),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 78
    title, line = (line for line in err.decode().splitlines() if not line.startswith("{"))
    assert title == "nest ledger can't start:"
    assert line == refusal_of(own.name, 9, oldest=0, known=0)


async def test_a_killed_command_is_continued_by_the_next_run(
    mongo_client: MongoClient[dict[str, Any]], mongo_url: str, database_prefix: str, tmp_path: Path
) -> None:
    auth = mongo_client[f"{database_prefix}auth"]
    grant = {"type": "authorization_code", "value": "code_1"}
    token = {"grant": grant, "rootGrant": "code_1", "network": "203.0.113.0/24", "version": 3}
    tokens = 2_000
    auth["access_tokens"].insert_many([{**token, "_id": f"acstok_{number:05}"} for number in range(tokens)])
    environment = {
        "PATH": "/usr/bin:/bin",
        "NEST_SEALING_KEYS": f"k1:{base64.b64encode(bytes(32)).decode()}",
        "NEST_MONGO_URL": mongo_url,
        "NEST_DATABASE_PREFIX": database_prefix,
    }
    out = tmp_path / "out"
    killed = ForkedCommand(("database", "migrate", "--service", "auth", "--rate", "500"), environment, out, out)
    await killed.start()
    await eventually(lambda: auth["schema"].find_one({"_id": "migration 1", "position": {"$ne": None}}))
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    left = auth["access_tokens"].count_documents({"rootGrant": "code_1"})
    assert 0 < left < tokens
    # Otherwise the next run waits for a minute.
    auth["schema"].update_one({"_id": "job"}, [{"$set": {"until": "$$NOW"}}])
    done = await forked.run("database", "migrate", "--service", "auth", environment=environment)
    assert (done.code, done.err) == (0, "")
    first, *_, last = done.out.splitlines()
    assert first == f"auth: access tokens with typed root grants: {tokens - left} of {tokens} documents"
    assert last == f"auth: version {MIGRATIONS.known}, {left} documents rewritten"
    expected = {"rootGrant": grant, "cidrBlocks": ["203.0.113.0/24"], "network": None, "version": 3}
    assert auth["access_tokens"].count_documents(expected) == tokens


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, mongo_url: str, database_prefix: str) -> None:
    keys = f"k1:{base64.b64encode(bytes(32)).decode()}"
    for name, value in (("SEALING_KEYS", keys), ("MONGO_URL", mongo_url), ("DATABASE_PREFIX", database_prefix)):
        monkeypatch.setenv(f"NEST_{name}", value)
    monkeypatch.setattr(databases, "migrations_of", lambda service: KNOWN if service == "auth" else Migrations())


@pytest.mark.usefixtures("environment")
async def test_command_prints_the_progress_and_the_versions(
    own: Database, mongo_client: MongoClient[dict[str, Any]], database_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = mongo_client[f"{database_prefix}auth"]
    auth["prices"].insert_many(await own["prices"].find().to_list())
    commands._print_status(await commands._statuses(None), as_json=False)
    assert f"auth: 1 prices in cents: {ROWS} documents to rewrite" in capsys.readouterr().out
    lines: list[str] = []
    await commands.migrate_all(say=lines.append)
    assert lines[0] == f"auth: prices in cents: 0 of {ROWS} documents"
    assert f"auth: version 1, {ROWS} documents rewritten" in lines
    assert [line for line in lines if line.endswith(", 0 documents rewritten")] == [
        f"{service}: version 0, 0 documents rewritten" for service in ("billing", "mailer", "news")
    ]
    commands._print_status(await commands._statuses(["auth"]), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"auth": {"version": 1, "known": 1, "pending": []}}
    auth["schema"].update_one({"_id": "version"}, {"$set": {"version": 2}})
    with pytest.raises(CommandError, match="has version 2, and this release knows versions up to 1"):
        await commands.migrate_all()
