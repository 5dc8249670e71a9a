"""Receiver of OTLP traces over HTTP, for tests that inspect them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as an OTLP receiver sees it; IDs are hex, and ``parent`` and ``links`` are span IDs.

    Attributes:
        resource: attributes of the process.
        schema: URL of the semantic conventions.
        kind: ``SERVER``, ``CLIENT``, ``PRODUCER``, ``CONSUMER`` or ``INTERNAL``.
        parent: empty for a root.
        failed: whether the status is Error.
        start: Unix time in nanoseconds.
        end: the same.
    """

    resource: dict[str, Any]
    schema: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    attributes: dict[str, Any]
    failed: bool
    start: int
    end: int

    @property
    def service(self) -> str:
        """Name of the process."""
        return str(self.resource["service.name"])


class Traces:
    """HTTP server that answers 200 to every request and keeps the bodies.

    Attributes:
        bodies: the request bodies, oldest first.
        url: the endpoint, once it listens.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.url = ""
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        async with server:
            yield
            for writer in self._open:
                writer.close()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans received so far, in the order in which they ended in their process."""
        return [span for body in list(self.bodies) for span in spans_of(body)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                self.bodies.append(await reader.readexactly(int(length.partition(b":")[2])))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


def spans_of(body: bytes) -> list[ReceivedSpan]:
    """Decode an export."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _received(span, _plain(resource.resource.attributes), scope.schema_url)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _received(span: Span, resource: dict[str, Any], schema: str) -> ReceivedSpan:
    return ReceivedSpan(
        resource=resource,
        schema=schema,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=[link.span_id.hex() for link in span.links],
        attributes=_plain(span.attributes),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
