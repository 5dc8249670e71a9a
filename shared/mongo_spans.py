"""Spans of MongoDB's commands, within the span of a message; imported only where traces are exported.

OpenTelemetry's semantic conventions: https://opentelemetry.io/docs/specs/semconv/db/mongodb/. Commands and replies are
not recorded, since they hold documents; only their names, and those of database and collection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues
from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_BATCH_SIZE,
    DB_OPERATION_NAME,
    DB_RESPONSE_STATUS_CODE,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import SpanKind
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from shared.spans import RecordedSpan
from shared.tracing import ACTIVE

MAX_OPEN: Final = 4_096
"""Commands without a result that are remembered: pymongo reports none for a command that was cancelled."""
_OPERATIONS: Final = {"insert": "documents", "update": "updates", "delete": "deletes"}
"""Field with the operations of a command that can have several."""


class MongoSpans(CommandListener):
    """Listener of a client. Commands outside of a message or call, such as polls, have no span."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, RecordedSpan] = OrderedDict()

    def started(self, event: CommandStartedEvent) -> None:
        """Begin the span of a command."""
        active = ACTIVE.get()
        if active is None or not active.recording:
            return
        name, command = event.command_name, event.command
        collection = command.get("collection") if name == "getMore" else command.get(name)
        batch = command.get(_OPERATIONS.get(name, ""), ())
        host, port = event.connection_id
        attributes: dict[str, Any] = {
            DB_SYSTEM_NAME: DbSystemNameValues.MONGODB.value,
            DB_OPERATION_NAME: name,
            DB_NAMESPACE: event.database_name,
            SERVER_ADDRESS: host,
            **({} if port is None else {SERVER_PORT: port}),
            **({DB_COLLECTION_NAME: collection} if isinstance(collection, str) else {}),
            **({DB_OPERATION_BATCH_SIZE: len(batch)} if len(batch) > 1 else {}),
        }
        target = collection if isinstance(collection, str) else event.database_name
        span = active.spans.start(f"{name} {target}", SpanKind.CLIENT, attributes, active.context)
        self._open[event.request_id] = RecordedSpan(active.spans, span)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].span.end()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """End the span of a command; one whose writes failed has succeeded for pymongo."""
        span = self._open.pop(event.request_id, None)
        if span is not None:
            errors = event.reply.get("writeErrors") or [event.reply.get("writeConcernError") or {}]
            self._end(span, errors[0])

    def failed(self, event: CommandFailedEvent) -> None:
        """End the span of a command that failed."""
        span = self._open.pop(event.request_id, None)
        if span is not None:
            self._end(span, {"errtype": "_OTHER", **event.failure})

    def _end(self, span: RecordedSpan, error: Mapping[str, Any]) -> None:
        code = error.get("code")
        if code is not None:
            span.span.set_attribute(DB_RESPONSE_STATUS_CODE, str(code))
        if code is not None or "errtype" in error:
            span.fail(str(code if code is not None else error["errtype"]))
        span.span.end()
