"""Is MongoDB there as Nest needs it, are the indexes, is the clock right, do sealing keys open, does anything wait?"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

from pymongo import IndexModel

from services.auth.audit.store import AuditEntries
from services.auth.signing_keys.key_pairs import unseal_private_key
from services.auth.signing_keys.models import KEY_SET_ID, KeyState
from services.auth.signing_keys.store import SigningKeys
from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.http import clock
from shared.bus.inbox import CLOCK_MARGIN, Inbox
from shared.bus.topics import SERVICES
from shared.mongo import Client, Database, database
from shared.sealing import Sealer

OLDEST_VERSION: Final = (6, 0)
OVERDUE: Final = timedelta(minutes=1)
WAITED: Final = timedelta(minutes=30)
"""How long an event may wait before somebody should know: as the alarm says."""
SHOWN: Final = 5
COMPARED: Final = ("unique", "partialFilterExpression", "expireAfterSeconds", "sparse")
ANY: Final = -1
"""Rows expire, after whatever time: how long is a setting that was not told."""
LATE: Final = timedelta(hours=1)
"""MongoDB looks for what has expired every minute, and is slow about it when there is much to do."""


async def look_at_mongo(client: Client) -> AsyncIterator[Finding]:
    """Whether it answers, is a replica set, and is new enough; and what time it has."""
    asked, began = time.time(), time.monotonic()
    hello = await client.admin.command("hello")
    took = time.monotonic() - began
    info = await client.server_info()
    version = info["version"]
    if not hello.get("setName"):
        yield problem(
            "mongodb", "not a replica set: there are no transactions", "start it with --replSet and rs.initiate()"
        )
    elif tuple(info["versionArray"][:2]) < OLDEST_VERSION:
        yield problem("mongodb", f"version {version}", "update it to 6.0 or later")
    else:
        members = len(hello.get("hosts", []))
        yield ok("mongodb", f"version {version}, replica set {hello['setName']} of {members}")
        if members < 3:  # noqa: PLR2004 -- a majority of fewer is all of them
            yield warning("mongodb", "the loss of one machine stops it, or loses data", "run a replica set of three")
    offset = hello["localTime"].replace(tzinfo=UTC).timestamp() - (asked + took / 2)
    yield clock("the clock of MongoDB", offset)


async def look_at_indexes(client: Client, prefix: str, settings: Mapping[str, Any]) -> AsyncIterator[Finding]:
    """What differs from the indexes that this release declares, and what has expired and is still there.

    Args:
        client: of MongoDB.
        prefix: of the databases' names.
        settings: of the services, by name, as far as they are known: they say how long things are kept.
    """
    wrong = 0
    for service in SERVICES:
        own = database(client, prefix + service)
        there = set(await own.list_collection_names())
        if not there:
            wrong += 1
            yield warning(
                "indexes", f"the database {own.name} is empty", f"start {service} once: it makes what it needs"
            )
            continue
        for name, indexes in _declared(service, settings.get(service)).items():
            for says in await _differing(own, name, indexes) if name in there else [f"{own.name}.{name} is missing"]:
                wrong += 1
                yield problem("indexes", says, f"restart {service}; if it stays, drop the index, and restart")
        if await own[Inbox.COLLECTION].find_one({"at": {"$lt": datetime.now(UTC) - _kept(settings.get(service))}}):
            wrong += 1
            yield problem(
                "indexes",
                f"{own.name}.inbox keeps rows that have expired",
                "see that MongoDB's ttlMonitorEnabled is true, and whether it keeps up",
            )
    if not wrong:
        yield ok("indexes", "all are there, and what expires goes")


def _declared(service: str, settings: Any) -> dict[str, Sequence[IndexModel]]:
    """The indexes of a service, with those whose time is a setting."""
    declared = dict(import_module(f"services.{service}.app").INDEXES)
    retention = None if settings is None else settings.inbox_retention + CLOCK_MARGIN
    declared[Inbox.COLLECTION] = [_expiry("at", retention)]
    declared[Inbox.TIMERS] = [IndexModel([("at", 1)])]
    if service == "auth":
        kept = None if settings is None else settings.audit_retention
        declared[AuditEntries.COLLECTION] = [*declared[AuditEntries.COLLECTION], _expiry("at", kept)]
    return declared


def _expiry(field: str, kept: timedelta | None) -> IndexModel:
    return IndexModel([(field, 1)], expireAfterSeconds=ANY if kept is None else int(kept.total_seconds()))


def _kept(settings: Any) -> timedelta:
    """How old an inbox row may be."""
    retention: timedelta = timedelta(days=3650) if settings is None else settings.inbox_retention
    return retention + CLOCK_MARGIN + LATE


async def _differing(own: Database, name: str, indexes: Sequence[IndexModel]) -> list[str]:
    present = {index["name"]: index async for index in await own[name].list_indexes()}
    says = []
    for index in indexes:
        wanted: dict[str, Any] = index.document
        found = present.get(wanted["name"])
        if found is None:
            says.append(f"{own.name}.{name} lacks the index {wanted['name']}")
            continue
        differs = [option for option in COMPARED if not _same(found.get(option), wanted.get(option))]
        if list(found["key"].items()) != list(wanted["key"].items()):
            differs.append("key")
        says += [f"{own.name}.{name}: the index {wanted['name']} has another {option}" for option in differs]
    return says


def _same(found: Any, wanted: Any) -> bool:
    """Whether an option is as declared; what is not said is false. That rows expire at once is another thing."""
    if wanted == ANY:
        return found is not None
    return (None if found is False else found) == (None if wanted is False else wanted)


async def look_at_timers(client: Client, prefix: str) -> AsyncIterator[Finding]:
    """Whether messages for later leave when their time has come."""
    late = datetime.now(UTC) - OVERDUE
    overdue = 0
    for service in SERVICES:
        rows = database(client, prefix + service)[Inbox.TIMERS]
        count = await rows.count_documents({"at": {"$lt": late}})
        if count:
            overdue += count
            yield problem(
                "timers", f"{count} messages of {service} are overdue", f"see that {service} runs, and its log"
            )
    if not overdue:
        yield ok("timers", "none is overdue")


async def look_at_stripe_events(client: Client, prefix: str) -> AsyncIterator[Finding]:
    """Whether something has come of every event that was kept."""
    events = database(client, f"{prefix}billing")["stripe_events"]
    waiting = {"handledAt": None, "receivedAt": {"$lt": datetime.now(UTC) - WAITED}}
    first = await events.find(waiting).sort("receivedAt").limit(SHOWN).to_list()
    if not first:
        yield ok("stripe events", "none waits for long")
        return
    count = await events.count_documents(waiting)
    names = ", ".join(event["stpEventId"] for event in first)
    yield warning(
        "stripe events",
        f"{count} wait for more than half an hour, the first of them {names}",
        "see 'Pending events' in docs/stripe.md",
    )


async def look_at_sealing_keys(client: Client, prefix: str, master_keys: dict[str, bytes]) -> AsyncIterator[Finding]:
    """Whether the sealing keys open the private halves of the signing keys."""
    ring = await SigningKeys(database(client, f"{prefix}auth")).find(KEY_SET_ID)
    if ring is None:
        yield warning("sealing keys", "there are no signing keys yet", "start auth once: it makes the first")
        return
    sealer = Sealer(master_keys)
    closed = []
    for key in ring.keys:
        if key.state is KeyState.RETIRED:
            continue
        try:
            unseal_private_key(key, sealer)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, auth will not start with it
            closed.append(f"{key.id} ({type(failure).__name__})")
    if closed:
        yield problem(
            "sealing keys",
            f"they don't open signing keys: {', '.join(closed)}",
            "put the old key back behind the new one",
        )
    else:
        yield ok("sealing keys", f"they open every signing key; {len(master_keys)} given")
