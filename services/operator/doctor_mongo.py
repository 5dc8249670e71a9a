"""Is MongoDB there as Nest needs it, are the indexes, is the clock right, do the sealing keys open, do timers fire?"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

from pymongo import IndexModel

from services.auth.key_pairs import open_private
from services.auth.models.signing_keys import KeyState
from services.auth.store.signing_keys import SigningKeys
from services.operator.doctor_findings import Finding, ok, problem, warning
from shared.inbox import Inbox
from shared.mongo import Client, Database, database
from shared.sealed import Sealer
from shared.topics import SERVICES

OLDEST_VERSION: Final = (6, 0)
CLOCK_WARNING: Final = 2.0
"""Seconds; a token's or a code's time is judged to the second."""
CLOCK_PROBLEM: Final = 30.0
OVERDUE: Final = timedelta(minutes=1)
OF_EVERY_SERVICE: Final = {name: [IndexModel([("at", 1)])] for name in (Inbox.COLLECTION, Inbox.TIMERS)}
COMPARED: Final = ("unique", "partialFilterExpression", "expireAfterSeconds", "sparse")


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


def clock(whose: str, offset: float) -> Finding:
    """How far somebody's clock is from ours, in seconds."""
    says = f"{whose} is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    if abs(offset) >= CLOCK_PROBLEM:
        return problem("clock", says, "run NTP on both: codes and tokens are refused, or live too long")
    if abs(offset) >= CLOCK_WARNING:
        return warning("clock", says, "run NTP on both")
    return ok("clock", says)


async def look_at_indexes(client: Client, prefix: str) -> AsyncIterator[Finding]:
    """What differs from the indexes that this release declares."""
    wrong = 0
    for service in SERVICES:
        own = database(client, prefix + service)
        declared = {**OF_EVERY_SERVICE, **import_module(f"services.{service}.store").INDEXES}
        there = set(await own.list_collection_names())
        if not there:
            wrong += 1
            yield warning(
                "indexes", f"the database {own.name} is empty", f"start {service} once: it makes what it needs"
            )
            continue
        for name, indexes in declared.items():
            for says in await _differing(own, name, indexes) if name in there else [f"{own.name}.{name} is missing"]:
                wrong += 1
                yield problem("indexes", says, f"restart {service}; if it stays, drop the index, and restart")
    if not wrong:
        yield ok("indexes", "all are there")


async def _differing(own: Database, name: str, indexes: Sequence[IndexModel]) -> list[str]:
    present = {index["name"]: index async for index in await own[name].list_indexes()}
    says = []
    for index in indexes:
        wanted: dict[str, Any] = index.document
        found = present.get(wanted["name"])
        if found is None:
            says.append(f"{own.name}.{name} lacks the index {wanted['name']}")
            continue
        # How long the inbox remembers is a setting.
        compared = [option for option in COMPARED if not (name == Inbox.COLLECTION and option == "expireAfterSeconds")]
        differs = [option for option in compared if _plain(found.get(option)) != _plain(wanted.get(option))]
        if dict(found["key"]) != dict(wanted["key"]):
            differs.append("key")
        says += [f"{own.name}.{name}: the index {wanted['name']} has another {option}" for option in differs]
    return says


def _plain(value: Any) -> Any:
    return None if value is False else value


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


async def look_at_sealing_keys(client: Client, prefix: str, master_keys: dict[str, bytes]) -> AsyncIterator[Finding]:
    """Whether the sealing keys open the private halves of the signing keys."""
    ring = await SigningKeys(database(client, f"{prefix}auth")).find()
    if ring is None:
        yield warning("sealing keys", "there are no signing keys yet", "start auth once: it makes the first")
        return
    sealer = Sealer(master_keys)
    closed = []
    for key in ring.keys:
        if key.state is KeyState.RETIRED:
            continue
        try:
            open_private(key, sealer)
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
