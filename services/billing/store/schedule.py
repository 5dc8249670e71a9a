"""How is kept when the clock begins the next run, and when an account was taken over?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pymongo import IndexModel

from shared.bus.work import Work
from shared.messages.billing.runs import Scheduled
from shared.mongo import Database, Document

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {"stripe_schedule": [], "stripe_takeover": []}
ACCOUNT: Final = "account"


class Schedule:
    """The collection ``stripe_schedule``: for each kind of run the time of the next one."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_schedule"]

    async def find(self, kind: Scheduled) -> Document | None:
        """The document of a kind: ``nextAt`` and its ``version``."""
        return await self._collection.find_one({"_id": kind})

    def set(self, kind: Scheduled, next_at: datetime, held: Document | None, work: Work) -> None:
        """Set the time of the next run, if nobody has since ``held`` was read; otherwise the handler runs again."""
        if held is None:
            work.insert(self._collection, {"_id": kind, "nextAt": next_at, "version": 1})
        else:
            work.replace(self._collection, {**held, "nextAt": next_at}, version=held["version"])


class Takeover:
    """The collection ``stripe_takeover``: one document that says until when all that Stripe had was taken over.

    What was made in Stripe by then and is first seen later is no news to anybody: nobody is written to about it,
    whether the import itself, a webhook or a sweep comes across it first. What is made afterwards is news.
    """

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_takeover"]

    async def covers(self, made_at: datetime) -> bool:
        """Whether something made in Stripe at this time came with the account."""
        document = await self._collection.find_one({"_id": ACCOUNT})
        return document is not None and bool(made_at <= document["until"])

    async def extend(self, until: datetime, work: Work) -> None:
        """Take over all that there is by now."""
        document = await self._collection.find_one({"_id": ACCOUNT})
        if document is None:
            work.insert(self._collection, {"_id": ACCOUNT, "until": until, "version": 1})
        elif document["until"] < until:
            work.replace(self._collection, {**document, "until": until}, version=document["version"])
