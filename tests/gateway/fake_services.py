"""Stand-ins for the services behind the gateway: they consume its messages from Kafka and send prepared replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from shared.bus import topics
from shared.bus.envelope import HANDLING_TIME, Envelope, Record
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topic_reader import TopicReader
from shared.messages.auth.sealing_keys import CountSealedMessages
from shared.sealing import Sealer

PrepareReply = Callable[[Envelope], Any]
"""From a message to its reply: JSON or bytes, None for no content, a ``Refused``, or ``NO_REPLY``."""
NO_REPLY = object()


class Refused:
    """A refusal as reply."""

    def __init__(self, kind: str, code: str, **meta: Any) -> None:
        self.kind = kind
        self.body = {"code": code, **({"meta": meta} if meta else {})}


class FakeServices:
    """All services behind the gateway.

    Attributes:
        replies: by wire name; without an entry the reply is empty.
        received: every message, in order of arrival.
        records: their Kafka records.
        before_reply: awaited before each reply.
        handling_milliseconds: how long the handling took, as each reply states it; None to omit it.
    """

    def __init__(self, bootstrap: str, prefix: str, sealer: Sealer) -> None:
        self.replies: dict[str, PrepareReply] = {}
        self.received: list[Envelope] = []
        self.records: list[Record] = []
        self.before_reply: Callable[[Envelope], Awaitable[None]] | None = None
        self.handling_milliseconds: int | None = None
        self.sealer = sealer
        macs = RecordMacs(sealer, prefix=prefix)
        self.producer = Producer(KafkaConnection(bootstrap), macs=macs, prefix=prefix, client_id="fake-services")
        self._prefix = prefix
        commands = [f"{service}.commands" for service in topics.SERVICES]
        self._topics = [prefix + topic for topic in (*commands, "stripe.webhooks")]
        self._reader = TopicReader(KafkaConnection(bootstrap), macs=macs)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.producer.start()
        await self._reader.follow(dict.fromkeys(self._topics, self._receive))

    async def stop(self) -> None:
        await self._reader.stop()
        await asyncio.gather(*self._tasks)
        await self.producer.stop()

    def reset(self) -> None:
        self.replies.clear()
        self.received.clear()
        self.records.clear()
        self.before_reply = None
        self.handling_milliseconds = None

    def _receive(self, record: Record) -> None:
        envelope = Envelope.of(record, record.topic.removeprefix(self._prefix))
        if envelope.wire == CountSealedMessages.wire:
            # Of the gateway itself, at any time.
            return
        self.received.append(envelope)
        self.records.append(record)
        if envelope.reply_to is not None:
            task = asyncio.create_task(self._reply(envelope))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, envelope: Envelope) -> None:
        if self.before_reply is not None:
            await self.before_reply(envelope)
        prepare = self.replies.get(envelope.wire)
        reply = prepare(envelope) if prepare is not None else None
        if reply is NO_REPLY:
            return
        if isinstance(reply, Refused):
            await self.reply(envelope, reply.body, kind=reply.kind)
        else:
            await self.reply(envelope, reply)

    async def reply(self, envelope: Envelope, body: Any, *, kind: str = "done", replayed: bool = False) -> None:
        """Send a reply: bytes unchanged, None as an empty body, anything else as JSON."""
        value = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = [("id", envelope.reply_id.encode()), ("kind", kind.encode())]
        if self.handling_milliseconds is not None:
            headers.append((HANDLING_TIME, b"%d" % self.handling_milliseconds))
        if replayed:
            headers.append(("replayed", b"1"))
        await self.producer.send_record("gateway.replies", value, headers, partition=envelope.reply_to)
