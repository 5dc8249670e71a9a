"""What does the Stripe account hold? Its objects, changed together or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.stripe_double.clock import Clock
from services.stripe_double.errors import missing
from services.stripe_double.ids import new_id
from services.stripe_double.journal import Journal

API_VERSION = "2026-10-28.endive"
"""The version of Stripe's API that the double speaks: the one that stripe-python 16.1 pins."""

Json = dict[str, Any]
"""A Stripe object as JSON. Never changed in place: who changes one puts a new one.

So an event may keep the very object that it reports, and a change is undone by putting the old
one back. Members whose names begin with `_` are the double's own and are never shown.
"""

OWNERS = {"invoice_payment": "invoice", "refund": "charge", "dispute": "charge", "_delivery": "event"}
"""The member that names an object's owner, where that isn't its customer."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the owner of a Stripe account chooses in the Dashboard."""

    retry_days: tuple[int, ...] = (3, 5, 7)
    """Days between the attempts to collect a renewal; after the last one `after_retries` follows."""
    after_retries: str = "canceled"
    """What becomes of the subscription then: `canceled`, `unpaid` or `past_due` (for ever)."""
    upcoming_days: int = 7
    """How many days before a renewal `invoice.upcoming` is announced; 0 for never."""
    country: str = "US"
    currency: str = "usd"


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """The call that causes a change; its events name it."""

    id: str
    idempotency_key: str | None = None


class Account:
    """All objects of one Stripe account in test mode, in memory and, with a journal, on disk.

    Args:
        clock: The time.
        journal: Where changes are kept; None keeps them in memory alone.
        settings: The owner's choices.
    """

    def __init__(self, clock: Clock, journal: Journal | None, settings: Settings) -> None:
        self.clock = clock
        self.settings = settings
        self.request: ApiRequest | None = None
        self.on_put: list[Callable[[Json], None]] = []
        """Told of each object put, at start-up too."""
        self.on_events: list[Callable[[list[Json]], None]] = []
        """Told of the events of a change, before it is written, to add to it what follows from them."""
        self.on_commit: list[Callable[[], None]] = []
        """Told after a change was written."""
        self.latest = 0
        """When the account last changed, in Unix seconds; nothing happens before that any more."""
        self._journal = journal
        self._objects: dict[str, dict[str, Json]] = {}
        self._owned: dict[tuple[str, str], dict[str, None]] = {}
        self._before: dict[tuple[str, str], Json | None] | None = None
        self._events: list[Json] = []

    @property
    def now(self) -> int:
        """The account's time, in Unix seconds."""
        return self.clock.now()

    def load(self) -> None:
        """Reads what the journal kept."""
        if self._journal is not None:
            for entry in self._journal.load():
                self._place(entry)
                if entry["object"] == "event":
                    self.latest = max(self.latest, entry["created"])

    @contextmanager
    def change(self, request: ApiRequest | None = None) -> Iterator[None]:
        """Everything put inside the block is kept together; an exception undoes all of it.

        The block must not await: changes come one after the other.
        """
        if self._before is not None:
            raise RuntimeError("A change of the account is already under way.")
        self._before, self._events, self.request = {}, [], request
        try:
            yield
            if self._events:
                for plan in self.on_events:
                    plan(self._events)
            self._write()
            self.latest = max(self.latest, self.now)
        except BaseException:
            for (kind, identifier), before in reversed(self._before.items()):
                self._restore(kind, identifier, before)
            raise
        finally:
            self._before, self.request = None, None
        for notice in self.on_commit:
            notice()

    def _write(self) -> None:
        if self._journal is None or not self._before:
            return
        kept = [entry for kind, identifier in self._before if (entry := self.find(kind, identifier)) is not None]
        removed = [key for key in self._before if self.find(*key) is None]
        self._journal.write(kept, removed)

    def put(self, entry: Json) -> Json:
        """Keeps an object under its kind and id, in place of an earlier one; returns it."""
        kind, identifier = entry["object"], entry["id"]
        self._remember(kind, identifier)
        self._place(entry)
        return entry

    def update(self, entry: Json, **changes: Any) -> Json:
        """Puts the object with some members changed; returns the new one."""
        return self.put({**entry, **changes})

    def remove(self, kind: str, identifier: str) -> None:
        """Forgets an object."""
        self._remember(kind, identifier)
        self._restore(kind, identifier, None)

    def note(self, event: Json) -> None:
        """Puts an event and has it delivered when the change is kept."""
        self.put(event)
        self._events.append(event)

    def find(self, kind: str, identifier: str) -> Json | None:
        """Returns an object, deleted ones as their tombstone; None when it never was."""
        return self._objects.get(kind, {}).get(identifier)

    def get(self, kind: str, identifier: str, *, param: str | None = None) -> Json:
        """Returns an object that a path names, or with `param` one that a parameter names.

        Raises:
            StripeApiError: `resource_missing`, when it isn't there; for a parameter also when deleted.
        """
        entry = self.find(kind, identifier)
        if entry is None or (param is not None and entry.get("deleted")):
            raise missing(kind, identifier, param=param)
        return entry

    def all(self, kind: str) -> list[Json]:
        """Returns the objects of a kind, newest first."""
        return list(reversed(self._objects.get(kind, {}).values()))

    def owned(self, kind: str, owner: str) -> list[Json]:
        """Returns the objects of a kind that belong to an owner, newest first.

        The owner of most is their customer; of the kinds in `OWNERS`, another object.
        """
        known = self._objects.get(kind, {})
        return [known[identifier] for identifier in reversed(self._owned.get((kind, owner), {}))]

    def new(self, kind: str, **members: Any) -> Json:
        """Returns a fresh object with what all objects have; it is not yet put."""
        return {
            "id": new_id(kind),
            "object": kind,
            "created": self.now,
            "livemode": False,
            **members,
        }

    def _remember(self, kind: str, identifier: str) -> None:
        if self._before is None:
            raise RuntimeError("Objects are put inside `with account.change():`.")
        self._before.setdefault((kind, identifier), self.find(kind, identifier))

    def _restore(self, kind: str, identifier: str, entry: Json | None) -> None:
        if entry is not None:
            self._place(entry)
            return
        gone = self._objects.get(kind, {}).pop(identifier, None)
        if gone is not None:
            self._disown(gone)

    def _place(self, entry: Json) -> None:
        kind, identifier = entry["object"], entry["id"]
        known = self._objects.setdefault(kind, {})
        before, owner = known.get(identifier), _owner(entry)
        if before is not None and _owner(before) != owner:
            self._disown(before)
        known[identifier] = entry
        if owner is not None:
            self._owned.setdefault((kind, owner), {})[identifier] = None
        for observe in self.on_put:
            observe(entry)

    def _disown(self, entry: Json) -> None:
        owner = _owner(entry)
        if owner is not None:
            self._owned.get((entry["object"], owner), {}).pop(entry["id"], None)


def _owner(entry: Json) -> str | None:
    owner = entry.get(OWNERS.get(entry["object"], "customer"))
    return owner if isinstance(owner, str) else None
