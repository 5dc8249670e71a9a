"""Checks of MongoDB: replica set, clock, indexes, expiry, outbox timers, pending Stripe events and sealing keys."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

from pymongo import IndexModel
from pymongo.errors import OperationFailure

from services.auth.audit.store import AuditEntries
from services.auth.sealing_keys.store import SealingKeys
from services.auth.signing_keys.key_pairs import unseal_private_key
from services.auth.signing_keys.models import KEY_SET_ID, KeyState
from services.auth.signing_keys.store import SigningKeys
from services.mailer.deliveries.store import Deliveries
from services.operator.doctor.access import MongoAccess, variable_of
from services.operator.doctor.findings import Finding, Level, ok, problem, skipped, warning
from services.operator.doctor.http import clock_finding
from shared.bus.inbox import CLOCK_MARGIN, THROTTLED_EXPIRY, Inbox
from shared.bus.topics import SERVICES
from shared.database_version import refusal_of, stored_version
from shared.indexes import expiry_index
from shared.mongo import Client, Database, refusal
from shared.sealing import Sealer

Databases = Mapping[str, Database]
"""The databases that are checked, by service."""
ACCESS: Final = "run nest doctor in the environment of that service, or with a user who may read every database"
OLDEST_VERSION: Final = (6, 0)
TIMER_DELAY: Final = timedelta(minutes=1)
PENDING: Final = timedelta(minutes=30)
"""Age from which a pending event is reported, as in the alert."""
EVENTS_SHOWN: Final = 5
MANY_SEALED_MESSAGES: Final = 2**31
"""Messages under one sealing key from which it is to be replaced. Random nonces are safe for 2^32 (NIST SP 800-38D)."""
MOST_SEALED_MESSAGES: Final = 3 * 2**30
OPTIONS: Final = ("unique", "partialFilterExpression", "expireAfterSeconds", "sparse")
"""Compared options of an index."""
ANY_EXPIRY: Final = -1
"""Expiry of an index whose retention setting is unknown."""
EXPIRY_DELAY: Final = timedelta(hours=1)
"""MongoDB deletes expired rows every minute, but may take long if there are many."""


async def check_access(access: MongoAccess) -> AsyncIterator[Finding]:
    """Check every server, as ``check_mongo``, and that its user may log in and read the databases of the services."""
    for line in access.invalid:
        yield problem(line, "correct the connection string")
    shown: list[Finding] = []
    for client, services in access.clients:
        # Each service may have a user of its own on the same server.
        shown += [finding for finding in await _check_login(client, services) if finding not in shown]
    for finding in shown:
        yield finding
    if shown and not any(finding.level is Level.PROBLEM for finding in shown):
        for finding in await _check_rights(access):
            yield finding
    for service in SERVICES:
        if service not in access.databases and not access.invalid:
            yield skipped(f"the database of {service} is not checked: {variable_of(service)} is not set", ACCESS)


async def _check_login(client: Client, services: Sequence[str]) -> list[Finding]:
    try:
        return [finding async for finding in check_mongo(client)]
    except OperationFailure as failure:
        if (reason := refusal(failure)) is None:
            raise
        return [problem(f"{reason} ({', '.join(services)})", f"check {variable_of(services[0])}")]


async def _check_rights(access: MongoAccess) -> list[Finding]:
    """Check that the users may read the databases: at least one, and those of the services of this environment."""
    readable = await access.readable()
    findings = []
    for service, own in access.databases.items():
        says = f"the MongoDB user may not read {own.name}"
        if service in readable:
            continue
        if service in access.required or not readable:
            findings.append(problem(says, f"grant it the role readWrite on {own.name}; see 'Access to MongoDB'"))
        else:
            findings.append(skipped(f"not checked: {says}", ACCESS))
    return findings


async def check_mongo(client: Client) -> AsyncIterator[Finding]:
    """Check the replica set, the version and the clock."""
    started, began = time.time(), time.monotonic()
    hello = await client.admin.command("hello")
    took = time.monotonic() - began
    info = await client.server_info()
    version = info["version"]
    if not hello.get("setName"):
        yield problem("not a replica set, so it has no transactions", "start it with --replSet, then run rs.initiate()")
    elif tuple(info["versionArray"][:2]) < OLDEST_VERSION:
        yield problem(f"version {version}", "update it to 6.0 or later")
    else:
        members = len(hello.get("hosts", []))
        yield ok(f"version {version}, replica set {hello['setName']} of {members}")
        if members < 3:  # noqa: PLR2004 -- a majority of fewer members is all of them
            yield warning(
                "the loss of one machine stops it or loses data",
                "run a replica set of three",
                embedded="one member, which is enough for a developer's machine",
            )
    offset = hello["localTime"].replace(tzinfo=UTC).timestamp() - (started + took / 2)
    yield clock_finding("the clock of MongoDB", offset)


async def check_indexes(databases: Databases, settings: Mapping[str, Any]) -> AsyncIterator[Finding]:
    """Compare the indexes with this release's declaration, and find rows that expired and were not deleted.

    The known settings by service contain the retentions.
    """
    complete = True
    for service, own in databases.items():
        collections = set(await own.list_collection_names())
        if not collections:
            complete = False
            yield warning(f"the database {own.name} is empty", f"start {service} once: it creates its indexes")
            continue
        for name, indexes in _declared(service, settings.get(service)).items():
            missing = [f"{own.name}.{name} is missing"]
            for says in await _differences(own, name, indexes) if name in collections else missing:
                complete = False
                yield problem(says, f"restart {service}; if that does not help, drop the index and restart it")
        if await own[Inbox.COLLECTION].find_one({"at": {"$lt": _oldest_inbox_row(settings.get(service))}}):
            complete = False
            yield problem(
                f"{own.name}.inbox keeps rows that have expired",
                "set MongoDB's ttlMonitorEnabled to true, and check whether deletion keeps up",
            )
    if complete:
        yield ok("all are as declared, and expired rows are deleted")


def _declared(service: str, settings: Any) -> dict[str, Sequence[IndexModel]]:
    """Return the indexes of a service by collection, with those whose expiry is a setting."""
    declared = dict(import_module(f"services.{service}.app").INDEXES)
    inbox = None if settings is None else settings.inbox_retention + CLOCK_MARGIN
    declared[Inbox.COLLECTION] = [_expiry(inbox), THROTTLED_EXPIRY]
    declared[Inbox.TIMERS] = [IndexModel([("at", 1)]), _expiry(inbox, "sentAt")]
    if service == "auth":
        audit = None if settings is None else settings.audit_retention
        declared[AuditEntries.COLLECTION] = [*declared[AuditEntries.COLLECTION], _expiry(audit)]
    if service == "mailer":
        deliveries = None if settings is None else settings.delivery_retention
        declared[Deliveries.COLLECTION] = [*declared[Deliveries.COLLECTION], _expiry(deliveries, "updatedAt")]
    return declared


def _expiry(retention: timedelta | None, field: str = "at") -> IndexModel:
    return expiry_index(field, timedelta(seconds=ANY_EXPIRY) if retention is None else retention)


def _oldest_inbox_row(settings: Any) -> datetime:
    retention: timedelta = timedelta(days=3650) if settings is None else settings.inbox_retention
    return datetime.now(UTC) - retention - CLOCK_MARGIN - EXPIRY_DELAY


async def _differences(own: Database, name: str, indexes: Sequence[IndexModel]) -> list[str]:
    existing = {index["name"]: index async for index in await own[name].list_indexes()}
    differences = []
    for declared in (index.document for index in indexes):
        index = existing.get(declared["name"])
        if index is None:
            differences.append(f"{own.name}.{name} lacks the index {declared['name']}")
            continue
        options = [option for option in OPTIONS if not _same(index.get(option), declared.get(option))]
        if list(index["key"].items()) != list(declared["key"].items()):
            options.append("key")
        differences += [f"{own.name}.{name}: the index {declared['name']} has another {option}" for option in options]
    return differences


def _same(existing: Any, declared: Any) -> bool:
    """Compare an option; a missing one equals false, but not 0."""
    if declared == ANY_EXPIRY:
        return existing is not None
    return (None if existing is False else existing) == (None if declared is False else declared)


async def check_versions(databases: Databases) -> AsyncIterator[Finding]:
    """Check that this release can use each database, and that each is migrated."""
    complete = True
    for service, own in databases.items():
        migrations = import_module(f"services.{service}.app").MIGRATIONS
        version = await stored_version(own)
        if (refusal := refusal_of(own.name, version, oldest=migrations.oldest, known=migrations.known)) is not None:
            complete = False
            yield problem(refusal.partition(": ")[0], refusal.partition(": ")[2])
        elif version < migrations.known:
            complete = False
            yield warning(
                f"{own.name} has version {version} of {migrations.known}",
                "run nest database migrate once every instance runs this release",
            )
    if complete:
        yield ok("every database has the version of this release")


async def check_timers(databases: Databases) -> AsyncIterator[Finding]:
    """Check that no outbox timer is overdue."""
    overdue = False
    for service, own in databases.items():
        timers = own[Inbox.TIMERS]
        overdue_since = {"$lt": datetime.now(UTC) - TIMER_DELAY}
        # A row that an instance has leased has a later ``at``.
        count = await timers.count_documents({"$or": [{"at": overdue_since}, {"dueAt": overdue_since}]})
        if count:
            overdue = True
            yield problem(f"{count} messages of {service} are overdue", f"check that {service} runs, and read its log")
    if not overdue:
        yield ok("none is overdue")


async def check_stripe_events(databases: Databases) -> AsyncIterator[Finding]:
    """Check that no event is pending for half an hour."""
    events = databases["billing"]["stripe_events"]
    pending = {"handledAt": None, "receivedAt": {"$lt": datetime.now(UTC) - PENDING}}
    first = await events.find(pending).sort("receivedAt").limit(EVENTS_SHOWN).to_list()
    if not first:
        yield ok("none is pending for half an hour")
        return
    count = await events.count_documents(pending)
    ids = ", ".join(event["stpEventId"] for event in first)
    yield warning(f"{count} are pending for half an hour, the oldest: {ids}", "see 'Pending events' in docs/stripe.md")


async def _check_sealed_messages(databases: Databases, active: str) -> AsyncIterator[Finding]:
    key = await SealingKeys(databases["auth"]).find(active)
    sealed = 0 if key is None else key.messages
    says = f"{active} has sealed {sealed:,} messages at most, of 2^32"
    do = "put a new sealing key first, then run nest keys reseal; see 'Sealing keys' in docs/operations.md"
    if sealed >= MOST_SEALED_MESSAGES:
        yield problem(says, do)
    elif sealed >= MANY_SEALED_MESSAGES:
        yield warning(says, do)
    else:
        yield ok(says)


async def check_sealing_keys(databases: Databases, master_keys: dict[str, bytes]) -> AsyncIterator[Finding]:
    """Check that the sealing keys unseal the private signing keys, and how many messages each has sealed."""
    async for finding in _check_sealed_messages(databases, next(iter(master_keys))):
        yield finding
    ring = await SigningKeys(databases["auth"]).find(KEY_SET_ID)
    if ring is None:
        yield warning("there are no signing keys yet", "start auth once: it creates the first")
        return
    sealer = Sealer(master_keys)
    failed = []
    for key in ring.keys:
        if key.state is KeyState.RETIRED:
            continue
        try:
            unseal_private_key(key, sealer)
        except Exception as failure:  # noqa: BLE001 -- auth does not start after any failure
            failed.append(f"{key.id} ({type(failure).__name__})")
    if failed:
        yield problem(f"they do not unseal signing keys: {', '.join(failed)}", "append the old key to the new one")
    else:
        yield ok(f"{len(master_keys)}, they unseal every signing key")
