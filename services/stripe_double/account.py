"""Objects of one Stripe account, changed in transactions, in memory and in SQLite."""

import random
import sqlite3
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from services.stripe_double.clock import Clock
from services.stripe_double.errors import resource_missing

API_VERSION = "2026-10-28.endive"
"""The only version of Stripe's API that the double implements: the one that stripe-python 16.1 pins."""

Json = dict[str, Any]
"""A Stripe object as JSON. It is never mutated: a change puts a new object under the same ID.

So an event can keep a reference to the object that it reports, and a rollback puts the old object
back. Members whose names begin with `_` are internal and never leave the double.
"""

OWNERS = {
    "invoice_payment": "invoice",
    "credit_note": "invoice",
    "refund": "charge",
    "dispute": "charge",
    "product_feature": "_product",
    "_delivery": "event",
}
"""Member with the ID of an object's owner, for the kinds whose owner is not their customer."""

ID_PREFIXES = {
    "account": "acct_1",
    "balance_transaction": "txn_3",
    "billing.meter": "mtr_test_6",
    "billing_portal.configuration": "bpc_1",
    "billing_portal.session": "bps_1",
    "charge": "ch_3",
    "checkout.session": "cs_test_a1",
    "coupon": "",
    "credit_note": "cn_1",
    "customer": "cus_",
    "customer_balance_transaction": "cbtxn_1",
    "discount": "di_1",
    "dispute": "du_1",
    "entitlements.feature": "feat_",
    "event": "evt_1",
    "invoice": "in_1",
    "invoice_payment": "inpay_1",
    "invoiceitem": "ii_1",
    "line_item": "il_1",
    "payment_intent": "pi_3",
    "payment_method": "pm_1",
    "price": "price_1",
    "product": "prod_",
    "product_feature": "prodft_",
    "promotion_code": "promo_1",
    "refund": "re_3",
    "request": "req_",
    "subscription": "sub_1",
    "subscription_item": "si_",
    "subscription_schedule": "sub_sched_1",
    "tax_rate": "txr_1",
    "webhook_endpoint": "we_1",
}
_ID_LENGTHS = {
    "checkout.session": 56,
    "coupon": 8,
    "customer": 14,
    "product": 14,
    "request": 14,
    "subscription_item": 14,
}
_ALPHABET = string.ascii_letters + string.digits
# Seeded by the operating system, never by a test: an account that is loaded again must not repeat its IDs.
_RANDOM = random.Random()  # noqa: S311 - IDs, not secrets


def new_id(kind: str) -> str:
    """Return a random ID that looks like Stripe's: the prefix of the kind, then letters and digits."""
    return ID_PREFIXES[kind] + random_string(_ID_LENGTHS.get(kind, 23))


def random_string(length: int) -> str:
    """Return random letters and digits."""
    return "".join(_RANDOM.choices(_ALPHABET, k=length))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Stripe account, which its owner chooses in the Dashboard."""

    retry_days: tuple[int, ...] = (3, 5, 7)
    """Days between the attempts to collect a renewal; `after_retries` applies after the last one."""
    after_retries: str = "canceled"
    """Status of the subscription after the last attempt: `canceled`, `unpaid` or `past_due`."""
    upcoming_days: int = 7
    """Days between `invoice.upcoming` and the renewal; 0 for no such event."""
    country: str = "US"
    currency: str = "usd"


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """The request that causes a change; the events of the change name it."""

    id: str
    idempotency_key: str | None = None


class Account:
    """All objects of one Stripe account in test mode.

    Args:
        clock: The account's time.
        database: Where changes are stored; None keeps them in memory only.
        settings: The account's settings.
    """

    def __init__(self, clock: Clock, database: "Database | None", settings: Settings) -> None:
        self.clock = clock
        self.settings = settings
        self.request: ApiRequest | None = None
        self.on_put: list[Callable[[Json], None]] = []
        """Called with each object that is put or loaded."""
        self.on_events: list[Callable[[list[Json]], None]] = []
        """Called with the events of a change before it is stored, to add objects that follow from them."""
        self.on_commit: list[Callable[[], None]] = []
        """Called after a change is stored."""
        self.pages_url = ""
        """Base URL of the pages for customers; `server` sets it."""
        self.last_changed = 0
        """Time of the last change in Unix seconds; later changes never get an earlier time."""
        self._database = database
        self._objects: dict[str, dict[str, Json]] = {}
        self._owned: dict[tuple[str, str], dict[str, None]] = {}
        self._before: dict[tuple[str, str], Json | None] | None = None
        self._events: list[Json] = []

    @property
    def now(self) -> int:
        """The account's time in Unix seconds."""
        return self.clock.now()

    def load(self) -> None:
        """Load the objects from the database."""
        if self._database is not None:
            for entry in self._database.load():
                self._store(entry)
                if entry["object"] == "event":
                    self.last_changed = max(self.last_changed, entry["created"])

    @contextmanager
    def change(self, request: ApiRequest | None = None) -> Iterator[None]:
        """Open a transaction: store everything that is put inside the block, or nothing if it raises.

        The block must not await, because only one transaction can be open at a time.
        """
        if self._before is not None:
            raise RuntimeError("A change of the account is already open.")
        self._before, self._events, self.request = {}, [], request
        try:
            yield
            if self._events:
                for listener in self.on_events:
                    listener(self._events)
            self._write()
            self.last_changed = max(self.last_changed, self.now)
        except BaseException:
            for (kind, identifier), before in reversed(self._before.items()):
                self._restore(kind, identifier, before)
            raise
        finally:
            self._before, self.request = None, None
        for notify in self.on_commit:
            notify()

    @contextmanager
    def tentative(self) -> Iterator[None]:
        """Undo everything that is put inside the block, within an open transaction: for a preview of a change."""
        outer, self._before = self._before, {}
        events, self._events = self._events, []
        try:
            yield
        finally:
            for (kind, identifier), before in reversed(self._before.items()):
                self._restore(kind, identifier, before)
            self._before, self._events = outer, events

    def _write(self) -> None:
        if self._database is None or not self._before:
            return
        changed = [entry for kind, identifier in self._before if (entry := self.find(kind, identifier)) is not None]
        removed = [key for key in self._before if self.find(*key) is None]
        self._database.write(changed, removed)

    def put(self, entry: Json) -> Json:
        """Put an object under its kind and ID, replacing an earlier one; return it."""
        kind, identifier = entry["object"], entry["id"]
        self._save_before(kind, identifier)
        self._store(entry)
        return entry

    def update(self, entry: Json, **changes: Any) -> Json:
        """Put the object with some members changed; return the new object."""
        return self.put({**entry, **changes})

    def remove(self, kind: str, identifier: str) -> None:
        """Remove an object; unlike a deleted customer it leaves no tombstone."""
        self._save_before(kind, identifier)
        self._restore(kind, identifier, None)

    def record_event(self, event: Json) -> None:
        """Put an event; its deliveries are planned when the change is stored."""
        self.put(event)
        self._events.append(event)

    def find(self, kind: str, identifier: str) -> Json | None:
        """Return an object, or its tombstone (`deleted: true`); None if it never existed."""
        return self._objects.get(kind, {}).get(identifier)

    def get(self, kind: str, identifier: str, *, param: str | None = None) -> Json:
        """Return an object that a path names, or with `param` one that a parameter names.

        Raises:
            StripeApiError: `resource_missing`; for a parameter also if the object is deleted.
        """
        entry = self.find(kind, identifier)
        if entry is None or (param is not None and entry.get("deleted")):
            raise resource_missing(kind, identifier, param=param)
        return entry

    def all(self, kind: str) -> list[Json]:
        """Return the objects of a kind, newest first."""
        return list(reversed(self._objects.get(kind, {}).values()))

    def owned(self, kind: str, owner: str) -> list[Json]:
        """Return the objects of a kind that belong to an owner, newest first.

        The owner is the customer, except for the kinds in `OWNERS`.
        """
        objects = self._objects.get(kind, {})
        return [objects[identifier] for identifier in reversed(self._owned.get((kind, owner), {}))]

    def new(self, kind: str, **members: Any) -> Json:
        """Return a new object with the members common to all; the caller puts it."""
        return {
            "id": new_id(kind),
            "object": kind,
            "created": self.now,
            "livemode": False,
            **members,
        }

    def _save_before(self, kind: str, identifier: str) -> None:
        if self._before is None:
            raise RuntimeError("Objects can be put only inside `with account.change():`.")
        self._before.setdefault((kind, identifier), self.find(kind, identifier))

    def _restore(self, kind: str, identifier: str, entry: Json | None) -> None:
        if entry is not None:
            self._store(entry)
            return
        removed = self._objects.get(kind, {}).pop(identifier, None)
        if removed is not None:
            self._remove_from_owner(removed)

    def _store(self, entry: Json) -> None:
        kind, identifier = entry["object"], entry["id"]
        objects = self._objects.setdefault(kind, {})
        before, owner = objects.get(identifier), _owner(entry)
        if before is not None and _owner(before) != owner:
            self._remove_from_owner(before)
        objects[identifier] = entry
        if owner is not None:
            self._owned.setdefault((kind, owner), {})[identifier] = None
        for listener in self.on_put:
            listener(entry)

    def _remove_from_owner(self, entry: Json) -> None:
        owner = _owner(entry)
        if owner is not None:
            self._owned.get((entry["object"], owner), {}).pop(entry["id"], None)


def _owner(entry: Json) -> str | None:
    owner = entry.get(OWNERS.get(entry["object"], "customer"))
    return owner if isinstance(owner, str) else None


class Database:
    """One SQLite file with a row for each object; each write is one transaction and survives kill -9.

    SQLite hands its write-ahead log to the kernel at each commit and flushes it only at checkpoints:
    a power cut may lose the last changes but does not corrupt the file.

    Args:
        folder: Folder of `stripe.sqlite`; created if missing.

    Raises:
        sqlite3.OperationalError: The file can't be written, or another double has it open.
    """

    _SCHEMA = """
        CREATE TABLE IF NOT EXISTS objects (
            position INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            body BLOB NOT NULL,
            UNIQUE (kind, id)
        )
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "stripe.sqlite", isolation_level=None, timeout=0)
        # Two doubles on one file would overwrite each other's objects. The lock ends with the process.
        self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(self._SCHEMA)

    def load(self) -> Iterator[Json]:
        """Yield every object, the oldest first."""
        for (body,) in self._connection.execute("SELECT body FROM objects ORDER BY position"):
            yield _with_current_names(from_json(body))

    def write(self, changed: Iterable[Json], removed: Iterable[tuple[str, str]]) -> None:
        """Store objects, and remove others by kind and ID, in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(
                "INSERT INTO objects (kind, id, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                [(entry["object"], entry["id"], to_json(entry)) for entry in changed],
            )
            self._connection.executemany("DELETE FROM objects WHERE kind = ? AND id = ?", list(removed))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; no write may follow."""
        self._connection.close()


_FORMER_NAMES = {
    "_key": {"asked": "fingerprint"},
    "subscription": {
        "_quiet": "_defer_events",
        "_told_renewal": "_notified_renewal",
        "_told_trial_end": "_notified_trial_end",
    },
}
"""Internal members that earlier versions stored under other names, by kind of object."""


def _with_current_names(entry: Json) -> Json:
    names = _FORMER_NAMES.get(entry["object"])
    return {names.get(name, name): value for name, value in entry.items()} if names else entry
