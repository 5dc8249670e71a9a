"""Test harness of the inbox: works and commits on a real MongoDB, without Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import REGISTRY
from pymongo import ASCENDING, IndexModel

from shared.bus.envelope import Envelope, unix_milliseconds
from shared.bus.handling import Handlers, Handling
from shared.bus.inbox import Inbox, Outcome
from shared.bus.row_encryption import RowEncryption
from shared.bus.work import Work
from shared.ids import Ids, new_message_id
from shared.messages import Message
from shared.mongo import Client, Collection, Database, connect, database, ensure_indexes
from shared.sealing import Sealer
from tests.shared.sample_services import INDEXES, Ledger

SEALER = Sealer({"test": bytes(range(32))})
IDS = Ids("test")
ROW_ENCRYPTION = RowEncryption(SEALER, "ledger")


class InboxHarness:
    """The inbox of one instance of a service.

    Attributes:
        things: a collection with a unique index on ``name``.
        database: the database of the instance.
    """

    def __init__(self, client: Client, database: Database, mongo_url: str) -> None:
        self.client = client
        self.mongo_url = mongo_url
        self.database = database
        self.things: Collection = database["things"]
        self.inbox = Inbox(
            client, database, retention=timedelta(days=8), service=database.name, encryption=ROW_ENCRYPTION
        )

    async def prepare(self) -> None:
        """Create the collections and indexes."""
        names = IndexModel([("name", ASCENDING)], unique=True, partialFilterExpression={"name": {"$type": "string"}})
        await ensure_indexes(self.database, {**self.inbox.indexes(), **INDEXES, "things": [names]})

    def another(self) -> InboxHarness:
        """Return a second instance on the same database."""
        return InboxHarness(self.client, self.database, self.mongo_url)

    def work(self, id: str | None = None, **fields: Any) -> Work:  # noqa: A002 -- the field's name
        """Return an empty work."""
        return Work(envelope(id, **fields), now=datetime.now(UTC), ids=IDS, sealer=SEALER)

    async def commit(self, work: Work, body: bytes = b'{"done":true}') -> None:
        """Commit a work with the outcome ``done``."""
        await self.inbox.commit(work, Outcome(body=body, messages=work.immediate(), replies=work.replies))

    async def row(self, id: str) -> dict[str, Any] | None:  # noqa: A002 -- the field's name
        """Return an inbox row."""
        return await self.database[Inbox.COLLECTION].find_one({"_id": id})

    def commits(self) -> tuple[float, float]:
        """Return the number of commits and of the works in them."""
        labels = {"service": self.database.name}
        counts = [REGISTRY.get_sample_value(f"nest_commit_messages_{what}", labels) for what in ("count", "sum")]
        return counts[0] or 0, counts[1] or 0

    def handling(self, handlers: Handlers) -> Handling:
        """Return the handling of messages by these handlers."""
        return Handling(
            service="ledger",
            handlers=handlers,
            context=self.ledger(),
            inbox=self.inbox,
            ids=IDS,
            sealer=SEALER,
        )

    def ledger(self) -> Ledger:
        """Return the context of the handlers, always the same."""
        if not hasattr(self, "_ledger"):
            self._ledger = Ledger(
                self.database["subjects"],
                self.database["entries"],
                lambda secret: SEALER.unseal_secret("ledger", secret),
            )
        return self._ledger


@asynccontextmanager
async def inbox_harness(mongo_url: str, name: str, *, timeout: float = 5.0) -> AsyncIterator[InboxHarness]:
    """Open a harness whose collections exist."""
    client = connect(mongo_url, application=name, timeout=timeout)
    harness = InboxHarness(client, database(client, name), mongo_url)
    try:
        await harness.prepare()
        yield harness
    finally:
        await client.close()


def envelope(id: str | None = None, **fields: Any) -> Envelope:  # noqa: A002 -- the field's name
    """Return an envelope of an empty message with these fields."""
    usual = {"wire": "ledger.append", "topic": "ledger.commands", "key": "", "body": b"{}", "time": unix_milliseconds()}
    return Envelope(**{**usual, "id": id or new_message_id(), **fields})


def enveloped(message: Message, id: str | None = None, **fields: Any) -> Envelope:  # noqa: A002 -- the field's name
    """Return the envelope of a message."""
    body = message.__pydantic_serializer__.to_json(message, context={"seal": SEALER.sealer_for(message.service)})
    return envelope(id, **{"wire": message.wire, "topic": message.topic, "key": message.key, "body": body, **fields})
