"""Runs single messages through a service's handlers and its real database, without Kafka.

What a handler says is kept in ``published`` instead of being sent; the same id twice is a second delivery.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from pymongo import IndexModel

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.handling import Handlers, Handling
from shared.bus.inbox import DONE, Inbox
from shared.bus.row_encryption import RowEncryption
from shared.ids import Ids, new_message_id
from shared.messages import ANONYMOUS, MESSAGES, Caller, Message, Sealed
from shared.messages.auth.audit import Audited, AuditEntryView, RecordAuditEntry
from shared.mongo import connect, database, ensure_indexes
from shared.sealing import Sealer
from shared.service import OpenContext, Resources


class Refused(Exception):
    """A handler's no, as the caller reads it."""

    def __init__(self, kind: str, body: dict[str, Any]) -> None:
        super().__init__(f"{kind}: {body}")
        self.kind = kind
        self.code: str = body["code"]
        self.meta: dict[str, Any] = body.get("meta", {})


@dataclass
class TopicRecord:
    """What a follower of a topic reads of a record."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class ServiceHarness:
    """One service's handlers on a real database; enter it with ``async with``.

    Args:
        mongo_url: a replica set.
        database_name: a database of this test's own.
        service: the service's name, as its secrets are sealed for it.
        handlers: its table.
        indexes: its collections' indexes.
        open_context: makes its context, as its ``app.py`` does.
        master_keys: for the sealer.

    Attributes:
        now: the time that handlers see; move it as you like.
        published: the messages said since the last ``clear``, in order; repeats of one id are left out.
        audited: the entries of the audit among them, which are kept apart: nearly every message makes one.
        recorded: what auth was told of operators' orders, kept apart too.
        published_at_start: what was said at start-up.
        topic: the records that whoever follows a topic finds there; to be set before entering.
        context: the handlers' third argument.
    """

    def __init__(
        self,
        mongo_url: str,
        database_name: str,
        *,
        service: str,
        handlers: Handlers,
        indexes: Mapping[str, Sequence[IndexModel]],
        open_context: OpenContext,
        master_keys: Mapping[str, bytes] | None = None,
    ) -> None:
        self.now = datetime.now(UTC)
        self.published: list[Message] = []
        self.audited: list[AuditEntryView] = []
        self.recorded: list[RecordAuditEntry] = []
        self.published_at_start: list[Message] = []
        self.topic: list[TopicRecord] = []
        self._followers: list[tuple[str, Callable[[Any], None]]] = []
        self.sealer = Sealer(master_keys or {"test": bytes(range(32))})
        self.ids = Ids("test")
        self._seen: set[str] = set()
        self._service = service
        self._handlers = handlers
        self._indexes = indexes
        self._client = connect(mongo_url, application="tests")
        self.database = database(self._client, database_name)
        self._encryption = RowEncryption(self.sealer, service)
        self.inbox = Inbox(
            self._client, self.database, retention=timedelta(days=8), service=service, encryption=self._encryption
        )
        self._open_context = open_context
        self.context: Any = None

    async def __aenter__(self) -> Self:
        await ensure_indexes(self.database, {**self.inbox.indexes(), **self._indexes})
        resources = Resources(
            database=self.database,
            ids=self.ids,
            sealer=self.sealer,
            publish=self._publish_at_start,
            follow=self._follow,
            clock=lambda: self.now,
        )
        self._opened = self._open_context(resources)
        try:
            self.context = await self._opened.__aenter__()
        except BaseException:
            await self._client.close()
            raise
        self._handling = Handling(
            service=self._service,
            handlers=self._handlers,
            context=self.context,
            inbox=self.inbox,
            ids=self.ids,
            sealer=self.sealer,
            clock=lambda: self.now,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.__aexit__(None, None, None)
        await self._client.close()

    async def deliver(
        self,
        message: Message,
        *,
        caller: Caller = ANONYMOUS,
        id: str | None = None,  # noqa: A002 -- the field's name
        body: bytes | None = None,
    ) -> Any:
        """Deliver a message.

        Args:
            message: what is delivered, after a trip through its JSON.
            caller: who asked.
            id: the message's id; a new one by default.
            body: raw bytes instead of the message's own JSON.

        Returns:
            The reply as the caller reads it: parsed JSON, opened if it was sealed; None for no body, or when the
            message was forwarded.

        Raises:
            Refused: the handler said no.
        """
        envelope = Envelope(
            id=id or new_message_id(),
            wire=message.wire,
            topic=message.topic,
            key=message.key,
            body=body if body is not None else encode(message, self.sealer),
            time=unix_milliseconds(),
            caller=caller,
        )
        outcome = await self._handling.handle(envelope, self._handling.decode(envelope))
        for said in outcome.messages:
            if said.id not in self._seen:
                self._seen.add(said.id)
                # A tombstone has no body.
                self._hear(MESSAGES[said.wire].model_validate_json(said.body or b"{}"))
                self._tell(TopicRecord(said.topic, said.key.encode(), said.body or None))
        if outcome.kind != DONE:
            raise Refused(outcome.kind, json.loads(outcome.body or b"{}"))
        if not outcome.body:
            return None
        sealed = MESSAGES[message.wire].reply_sealed
        return json.loads(self.sealer.unseal("gateway", outcome.body.decode()) if sealed else outcome.body)

    def publish_to_followers(self, message: Message) -> None:
        """Have it said on a topic that the service follows."""
        self._tell(TopicRecord(message.topic, message.key.encode(), encode(message, self.sealer) or None))

    def published_of(self, kind: type[Message]) -> list[Any]:
        """The published messages of one class."""
        return [message for message in self.published if isinstance(message, kind)]

    def clear(self) -> None:
        """Forget what was published; not what was seen."""
        self.published.clear()
        self.audited.clear()
        self.recorded.clear()

    async def delayed(self) -> list[tuple[datetime, Message]]:
        """The messages that wait for their time, with it, soonest first."""
        rows = await self.database[Inbox.TIMERS].find().sort("at").to_list()
        kept = [(row["at"], self._encryption.message_of(row)) for row in rows]
        return [(at, MESSAGES[message.wire].model_validate_json(message.body)) for at, message in kept]

    def unseal_secret(self, receiver: str, secret: Sealed) -> str:
        """What a published secret says to its receiver."""
        return self.sealer.unseal_secret(receiver, secret)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Audited):
            self.audited.append(message.entry)
        elif isinstance(message, RecordAuditEntry):
            self.recorded.append(message)
        else:
            self.published.append(message)

    async def _publish_at_start(self, message: Message) -> None:
        self.published_at_start.append(message)
        self.publish_to_followers(message)

    async def _follow(self, topic: str, take: Callable[[Any], None]) -> None:
        for record in self.topic:
            if record.topic == topic:
                take(record)
        self._followers.append((topic, take))

    def _tell(self, record: TopicRecord) -> None:
        for topic, take in self._followers:
            if topic == record.topic:
                take(record)
