"""Stand-ins for the services behind the gateway: they read its commands from the real Kafka and answer as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from shared.bus import topics
from shared.bus.envelope import Envelope, Record
from shared.bus.producer import Producer
from shared.bus.topic_reader import TopicReader
from shared.sealing import Sealer

Answering = Callable[[Envelope], Any]
"""What a stand-in does with a message: returns JSON to answer with (None for 204), a ``Refused``, or ``SILENCE``."""
SILENCE = object()


class Refused:
    """A refusal to answer with."""

    def __init__(self, kind: str, code: str, **meta: Any) -> None:
        self.kind = kind
        self.body = {"code": code, **({"meta": meta} if meta else {})}


class Services:
    """Everything behind the gateway.

    Attributes:
        answers: what answers a message, by wire name; None (204) by default.
        heard: every message that came, in order of arrival.
        records: the same, as Kafka had them.
        before: awaited ahead of each answer.
    """

    def __init__(self, bootstrap: str, prefix: str, sealer: Sealer) -> None:
        self.answers: dict[str, Answering] = {}
        self.heard: list[Envelope] = []
        self.records: list[Record] = []
        self.before: Callable[[Envelope], Awaitable[None]] | None = None
        self.sealer = sealer
        self.producer = Producer(bootstrap, prefix=prefix, client_id="stand-ins")
        self._prefix = prefix
        commands = [f"{service}.commands" for service in topics.SERVICES]
        self._tails = [TopicReader(bootstrap, prefix + topic, self._take) for topic in (*commands, "stripe.webhooks")]
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.producer.start()
        for tail in self._tails:
            await tail.start()

    async def stop(self) -> None:
        for tail in self._tails:
            await tail.stop()
        await asyncio.gather(*self._tasks)
        await self.producer.stop()

    def forget(self) -> None:
        """Back to the beginning, for the next test."""
        self.answers.clear()
        self.heard.clear()
        self.records.clear()
        self.before = None

    def _take(self, record: Record) -> None:
        envelope = Envelope.of(record, record.topic.removeprefix(self._prefix))
        self.heard.append(envelope)
        self.records.append(record)
        if envelope.reply_to is not None:
            task = asyncio.create_task(self._reply(envelope))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, envelope: Envelope) -> None:
        if self.before is not None:
            await self.before(envelope)
        answering = self.answers.get(envelope.wire)
        found = answering(envelope) if answering is not None else None
        if found is SILENCE:
            return
        if isinstance(found, Refused):
            await self.reply(envelope, found.body, kind=found.kind)
        else:
            await self.reply(envelope, found)

    async def reply(self, envelope: Envelope, body: Any, *, kind: str = "done", replayed: bool = False) -> None:
        """Send a reply; bytes as they are, None as nothing, anything else as JSON."""
        value = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = [("id", envelope.reply_id.encode()), ("kind", kind.encode())]
        if replayed:
            headers.append(("replayed", b"1"))
        await self.producer.send_record("gateway.replies", value, headers, partition=envelope.reply_to)
