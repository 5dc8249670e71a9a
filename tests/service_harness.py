"""Test harness of a service: runs single messages through its handlers and a real MongoDB, without Kafka.

Published messages are collected in ``published`` instead of being sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from pymongo import IndexModel

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.handling import Handlers, Handling
from shared.bus.inbox import DONE, Inbox
from shared.bus.record_macs import RecordMacs
from shared.bus.row_encryption import RowEncryption
from shared.bus.topics import WRITERS
from shared.ids import Ids, new_message_id
from shared.messages import ANONYMOUS, MESSAGES, Caller, Message, Sealed
from shared.messages.auth.audit import Audited, AuditEntryView, RecordAuditEntry
from shared.messages.mailer.mails import VARIABLES, SendMail
from shared.messages.mailer.texts import TEXT_VARIABLES, SendText
from shared.migrations import MigrationContext, MigrationJob, Migrations
from shared.mongo import connect, database, ensure_indexes
from shared.sealing import Sealer
from shared.service import OpenContext, Resources

_ENSURED: Final[dict[str, Any]] = {}
"""The indexes of databases that exist: tests share databases, and creating existing indexes takes a while too."""


class Refused(Exception):
    """The handler refused the message."""

    def __init__(self, kind: str, body: dict[str, Any]) -> None:
        super().__init__(f"{kind}: {body}")
        self.kind = kind
        self.code: str = body["code"]
        self.meta: dict[str, Any] = body.get("meta", {})


@dataclass
class TopicRecord:
    """A Kafka record for the followers of a topic."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = (("mac", b"test.checked before"),)


class ServiceHarness:
    """The handlers of one service on a real database; an async context manager.

    Args:
        mongo_url: URL of a replica set.
        database_name: a database for this test alone.
        service: service name, the receiver of its secrets.
        handlers: handler of each message class.
        indexes: indexes of its collections.
        open_context: opens the handlers' context.
        master_keys: keys of the sealer.
        topic_prefix: prefix of the topics, if the service reads or writes Kafka by itself.

    Attributes:
        now: current time of the handlers; tests may change it.
        published: messages published since the last ``clear``, in order, each message ID once.
        audited: audit entries published since the last ``clear``; nearly every message of auth publishes one.
        recorded: reports to auth's audit published since the last ``clear``.
        published_at_start: messages published while the context was opened.
        topic: existing records of the topics that the service follows; set it before the start.
        context: third argument of the handlers.
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
        topic_prefix: str = "",
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
        self._topic_prefix = topic_prefix
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
        indexes = {**self.inbox.indexes(), **self._indexes}
        documents = {name: [index.document for index in wanted] for name, wanted in indexes.items()}
        if _ENSURED.get(self.database.name) != documents:
            await ensure_indexes(self.database, indexes)
            _ENSURED[self.database.name] = documents
        resources = Resources(
            database=self.database,
            ids=self.ids,
            sealer=self.sealer,
            macs=RecordMacs(self.sealer, prefix=self._topic_prefix),
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

    async def migrate(self, migrations: Migrations) -> int:
        """Run the job with these migrations; return the number of rewritten documents."""
        return await MigrationJob(MigrationContext(self.database, self.sealer), migrations, lambda _: None).run()

    async def deliver(
        self,
        message: Message,
        *,
        caller: Caller = ANONYMOUS,
        id: str | None = None,  # noqa: A002 -- the field's name
        body: bytes | None = None,
        reply_id: str = "",
        seconds: float | None = None,
    ) -> Any:
        """Deliver a message; with an ID that was used before it is a repeated delivery.

        Args:
            message: the message; the handler receives it parsed from its JSON.
            caller: the caller.
            id: message ID; a new one by default.
            body: raw bytes to deliver instead of the message's JSON.
            reply_id: the waiting call; a redelivery of a record has the same, a client's repeat another one.
            seconds: how long the caller waits; None for a message without a deadline.

        Returns:
            The parsed JSON of the reply, unsealed if necessary; None if there is no body or the message was forwarded.

        Raises:
            Refused: the handler refused it.
        """
        envelope = Envelope(
            id=id or new_message_id(),
            wire=message.wire,
            topic=message.topic,
            key=message.key,
            body=body if body is not None else encode(message, self.sealer),
            time=unix_milliseconds(),
            caller=caller,
            reply_id=reply_id,
            deadline=0 if seconds is None else unix_milliseconds() + int(1000 * seconds),
        )
        outcome = await self._handling.handle(envelope, self._handling.decode(envelope))
        for sent in outcome.messages:
            if sent.id not in self._seen:
                self._seen.add(sent.id)
                # A tombstone has no body.
                self._collect(MESSAGES[sent.wire].model_validate_json(sent.body or b"{}"))
                self._notify_followers(TopicRecord(sent.topic, sent.key.encode(), sent.body or None))
        if outcome.kind != DONE:
            raise Refused(outcome.kind, json.loads(outcome.body or b"{}"))
        if not outcome.body:
            return None
        sealed = MESSAGES[message.wire].reply_sealed
        return json.loads(self.sealer.unseal("gateway", outcome.body.decode()) if sealed else outcome.body)

    def publish_to_followers(self, message: Message) -> None:
        """Publish a message on a topic that the service follows."""
        self._notify_followers(TopicRecord(message.topic, message.key.encode(), encode(message, self.sealer) or None))

    def published_of(self, kind: type[Message]) -> list[Any]:
        """Return the published messages of one class."""
        return [message for message in self.published if isinstance(message, kind)]

    def clear(self) -> None:
        """Empty the lists of published messages."""
        self.published.clear()
        self.audited.clear()
        self.recorded.clear()

    async def delayed(self) -> list[tuple[datetime, Message]]:
        """Return the delayed messages with their due times, soonest first."""
        rows = await self.database[Inbox.TIMERS].find().sort("at").to_list()
        messages = [(row["at"], self._encryption.message_of(row)) for row in rows]
        return [(at, MESSAGES[message.wire].model_validate_json(message.body)) for at, message in messages]

    def unseal_secret(self, receiver: str, secret: Sealed) -> str:
        """Return the plain text of a published secret."""
        return self.sealer.unseal_secret(receiver, secret)

    def variables_of(self, order: SendMail | SendText) -> dict[str, Any]:
        """Return all variables of an ordered mail or text, as the mailer reads them."""
        kind = VARIABLES[order.template] if isinstance(order, SendMail) else TEXT_VARIABLES[order.template]
        text = self.unseal_secret("mailer", order.variables)
        return kind.model_validate_json(text).model_dump(mode="json")

    def _collect(self, message: Message) -> None:
        assert self._service in WRITERS[message.topic], f"{self._service} may not write {message.topic}"
        if isinstance(message, Audited):
            self.audited.append(message.entry)
        elif isinstance(message, RecordAuditEntry):
            self.recorded.append(message)
        else:
            self.published.append(message)

    async def _publish_at_start(self, message: Message) -> None:
        assert self._service in WRITERS[message.topic], f"{self._service} may not write {message.topic}"
        self.published_at_start.append(message)
        self.publish_to_followers(message)

    async def _follow(self, topic: str, on_record: Callable[[Any], None]) -> None:
        for record in self.topic:
            if record.topic == topic:
                on_record(record)
        self._followers.append((topic, on_record))

    def _notify_followers(self, record: TopicRecord) -> None:
        for topic, on_record in self._followers:
            if topic == record.topic:
                on_record(record)
