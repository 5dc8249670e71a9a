"""What may one TCP connection do? Send whole requests within bounds of time and size; the server's own has no such.

uvicorn waits for ever for a request's head, keeps as much of it as comes, takes trailers for headers, and answers 400
in the place of a whole request that is under way when garbage follows it.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.gateway.errors import (
    Answer,
    BodyTooLarge,
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    TooManyRequests,
    answer,
)
from services.gateway.guard import MAX_HEAD_BYTES, SECURITY
from shared.errors import Refusal
from shared.ids import new_message_id

ARRIVAL_SECONDS: Final = 15.0
"""How long a request may take to arrive, from its first byte (the first one: from the connection) to its last."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A body in chunks of one byte is six times as long on the wire."""


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    limit: ClassVar[int] = 8_000
    """How many may be open at once; beyond, a connection is told 429 and closed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: TimerHandle | None = None
        self._in_head = False
        self._arriving = False
        self._bytes = 0
        self._over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            self._refuse(TooManyRequests(retry_after=5))
        else:
            self._timer = self.loop.call_later(ARRIVAL_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._over:
            return
        self._unset_keepalive_if_required()
        was_arriving = self._arriving
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The guard refuses it; whatever follows is no HTTP.
            self._over = True
        except httptools.HttpParserError:
            self._refuse(MalformedRequest())
        else:
            if self._arriving:
                self._still_arriving(len(data) if was_arriving else 0)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = self._arriving = True
        self._bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: those are dropped, since nobody has checked them when the request is judged."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request's head is there."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there, all of it."""
        self._arriving = False
        self._stop_timer()
        super().on_message_complete()

    def _still_arriving(self, count: int) -> None:
        self._bytes += count
        if self._in_head and self._bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(limit=MAX_HEAD_BYTES))
        elif self._bytes > MAX_MESSAGE_BYTES:
            self._refuse(BodyTooLarge(limit=MAX_MESSAGE_BYTES))
        elif self._timer is None:
            self._timer = self.loop.call_later(ARRIVAL_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._arriving:
            self._refuse(RequestTimeout())
        else:
            # It never said anything, so nothing is to be answered.
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer instead of the app, and close."""
        self._over = True
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            # A whole request is under way and may take effect: it gets its own answer, then no more.
            cycle.keep_alive = False
            return
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        # Of pipelined requests the first is to be answered first; without any answer its sender knows to ask again.
        if not begun and not self.pipeline and not self.transport.is_closing():
            request_id = new_message_id()
            self.transport.write(_wire(answer(refusal, request_id), request_id))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _wire(answered: Answer, request_id: str) -> bytes:
    headers = {
        **dict(SECURITY),
        **dict(answered.headers),
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(answered.body),
        b"connection": b"close",
        b"x-request-id": request_id.encode(),
    }
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    return STATUS_LINE[answered.status] + lines + b"\r\n" + answered.body
