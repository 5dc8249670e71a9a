"""HTTP server: uvicorn with httptools, inside a running event loop, with limits on time and size of requests.

uvicorn waits indefinitely for a request's head, buffers it without limit, treats trailers as headers, and responds with
400 in place of a request in progress when garbage follows it.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import TimerHandle
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Final

import httptools
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.gateway.connections import BodyBudget, ConnectionLimits, HeldBody
from services.gateway.errors import (
    STATUS,
    BodyTooLarge,
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    TooManyRequests,
)
from services.gateway.http_calls import log_refusal
from services.gateway.middleware import MAX_HEAD_BYTES, SECURITY_HEADERS, asks_for_websocket, request_id_of
from services.gateway.responses import HttpResponse, refusal_response
from services.gateway.versions import version_of
from shared.errors import Refusal
from shared.ids import new_message_id
from shared.listeners import BACKLOG, listen
from shared.uvicorn_server import UvicornServer

IDLE_SECONDS: Final = 75
"""Keep-alive timeout: longer than that of proxies, so that they do not send a request to a closing connection."""
ARRIVAL_SECONDS: Final = 15.0
"""Time limit for a whole request, from its first byte; for the first request, from the connection."""
_BODY: Final = "held_body"
"""Name of a request's ``HeldBody`` in the state of its ASGI scope."""
_ANY_ID: Final = b"@" * 32
"""Stands for a request ID in a response that is serialized in advance."""
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""A body in chunks of one byte has six times its size on the wire."""


class Server:
    """HTTP server of an ASGI app.

    Args:
        app: handles the requests.
        host: as in ``listen``.
        port: 0 for any free one.
        connections: limits of open connections; one that is over them gets 429 and is closed.
        bodies: limit of the memory for bodies; a request that is over it gets 429.
        drain_seconds: how long ``stop`` waits for requests in progress.
        overload: returns the refusal of a request under overload, by its target; None if it is to be handled.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        connections: ConnectionLimits,
        bodies: BodyBudget,
        drain_seconds: float,
        overload: Callable[[bytes], TooManyRequests | None] = lambda _: None,
    ) -> None:
        self._host = host
        self._requested_port = port
        shared = {"limits": connections, "bodies": bodies, "overload": staticmethod(overload)}
        self._server = UvicornServer(
            uvicorn.Config(
                _ReleaseBodies(app),
                http=type("Connection", (_Connection,), shared),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """TCP port, once it has started."""

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """
        listener = listen(self._host, self._requested_port)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([listener]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Accept no more requests, and wait for those in progress for at most ``drain_seconds``."""
        if self._task is not None:
            self._server.exit()
            await self._task


class _ReleaseBodies:
    """ASGI middleware that releases the body of a request once it was handled."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            _release_body(scope)


def _release_body(scope: Mapping[str, Any]) -> None:
    body = scope["state"].get(_BODY)
    if body is not None:
        body.release()


class _JoinedWrites:
    """A transport that sends the head of a response together with the beginning of its body.

    uvicorn writes one after the other, and each write costs a system call here and at the client. A head without a body
    yet is sent in the next turn of the event loop.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, content: bytes) -> None:
        if not self._head and content.startswith(b"HTTP/"):
            self._head = content
            self._loop.call_soon(self._send_head)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + content)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)


class _Connection(HttpToolsProtocol):
    """A client's connection, which refuses requests that are malformed, too large or too slow."""

    limits: ClassVar[ConnectionLimits]
    bodies: ClassVar[BodyBudget]
    overload: Callable[[bytes], TooManyRequests | None]
    """As for ``Server``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = b""
        self._timer: TimerHandle | None = None
        self._in_head = False
        self._arriving = False
        self._bytes = 0
        self._refused = False
        self._overload_refusal: TooManyRequests | None = None
        """Refusal of the current request, whose body is skipped."""
        self._head_without_upgrade: bytes | None = None
        """Head of the current request, to be parsed in place of the one that asks for another protocol."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        if self.limits.add(self, None if self.client is None else self.client[0]):
            self._timer = self.loop.call_later(ARRIVAL_SECONDS, self._time_out)
        else:
            self._refuse(TooManyRequests(retry_after=5))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.limits.remove(self)
        for cycle, _ in self.pipeline:
            # Its request is not handled any more.
            _release_body(cycle.scope)
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close the connection in favour of another one, even if the client does not read what it was sent."""
        self._refused = True
        self._stop_timer()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self.limits.receive(self)
        was_arriving = self._arriving
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(MalformedRequest())
        else:
            if self._arriving:
                self._check_arriving(len(data) if was_arriving else 0)

    def _parse(self, data: bytes) -> None:
        """Parse bytes, as if no request had an ``Upgrade`` header."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._head_without_upgrade is None:
                    # The middleware refuses the request; the bytes after it are not HTTP.
                    self._refused = True
                    return
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn's.
                data = self._head_without_upgrade + data[upgrade.args[0] :]
            else:
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._arriving = True
        self._bytes = 0
        self._head_without_upgrade = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; drop a trailer, because the request was checked before it arrived."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused:
            return
        if self.parser.should_upgrade():
            self._head_without_upgrade = self._parsed_head_without_upgrade()
        if self._head_without_upgrade is not None:
            return
        self._overload_refusal = self._refusal_under_overload()
        if self._overload_refusal is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._overload_refusal is not None or self._refused or self.cycle.response_complete:
            return
        held = self.scope["state"].get(_BODY)
        if held is None:
            held = self.scope["state"][_BODY] = HeldBody(self.bodies, self._refuse_body)
        if held.add(len(body)):
            super().on_body(body)
        else:
            self._refuse_body()

    def _refuse_body(self) -> None:
        self._refuse(TooManyRequests(retry_after=1))

    def on_message_complete(self) -> None:
        if self._head_without_upgrade is not None or self._refused:
            return
        self._arriving = False
        self._stop_timer()
        if self._overload_refusal is not None:
            self._respond_under_overload(self._overload_refusal)
            return
        if (body := self.scope["state"].get(_BODY)) is not None:
            body.finish()
        if not self.cycle.response_complete:
            self.limits.work(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        pipelined = bool(self.pipeline)
        super().on_response_complete()
        if not pipelined:
            self.limits.rest(self)

    def _refusal_under_overload(self) -> TooManyRequests | None:
        """The refusal of a request that need not reach the app for it, which costs several times as much.

        The app refuses those that it alone can respond to: the response to a page has headers for its origin, one to a
        pipelined request waits for its turn, one to ``Expect: 100-continue`` comes before the body, and one to ``HEAD``
        is sent without a body.
        """
        if self.expect_100_continue or self.parser.get_method() == b"HEAD":
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        refusal = self.overload(self.url)
        return None if refusal is None or any(name == b"origin" for name, _ in self.headers) else refusal

    def _respond_under_overload(self, refusal: TooManyRequests) -> None:
        headers = dict(self.headers)
        # Random bits of the system would be a tenth of the cost of a refusal.
        target = self.url.decode("latin-1")
        version = version_of(target)
        request_id = request_id_of(headers) or f"{random.getrandbits(128):032x}"
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        method = (version, target.rpartition("/")[2])
        log_refusal(
            refusal, STATUS[refusal.kind], request_id, verb=self.parser.get_method().decode("latin-1"), operation=method
        )
        if keep_alive and len(request_id) == len(_ANY_ID):
            response = _overload_response(int(refusal.meta["retry_after"]), version).replace(
                _ANY_ID, request_id.encode()
            )
        else:
            response = _serialized(refusal_response(refusal, request_id, version), request_id, keep_alive=keep_alive)
        self.transport.write(response)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _parsed_head_without_upgrade(self) -> bytes | None:
        """The head of a request that asks for another protocol, without its ``Upgrade``; None if it must be refused.

        A server may ignore ``Upgrade`` (RFC 9110 section 7.8), but httptools takes what follows the head for the other
        protocol. Java's HttpClient asks for h2c with every request over http, Apache's for TLS.
        """
        method = self.parser.get_method()
        if method == b"CONNECT" or asks_for_websocket(self.headers):
            return None
        line = b"%s %s HTTP/%s\r\n" % (method, self.url, self.parser.get_http_version().encode())
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([line, *lines, b"\r\n"])

    def _check_arriving(self, count: int) -> None:
        """Check the size of a request that has received ``count`` more bytes, and start its timer."""
        self._bytes += count
        if self._in_head and self._bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(limit=MAX_HEAD_BYTES))
        elif self._bytes > MAX_REQUEST_BYTES:
            self._refuse(BodyTooLarge(limit=MAX_REQUEST_BYTES))
        elif self._timer is None:
            self._timer = self.loop.call_later(ARRIVAL_SECONDS, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        if self._arriving:
            self._refuse(RequestTimeout())
        else:
            # The client has sent nothing, so there is no request to respond to.
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Respond instead of the app, and close the connection."""
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            # A complete request is in progress and may take effect: let it finish, then close.
            cycle.keep_alive = False
            return
        started = cycle is not None and cycle.response_started and not cycle.response_complete
        # Responses to pipelined requests are in order, so this one must not overtake them. A client without a response
        # knows that it has to repeat its request.
        if not started and not self.pipeline and not self.transport.is_closing():
            request_id = new_message_id()
            response = refusal_response(refusal, request_id, version_of(self.url.decode("latin-1")))
            log_refusal(refusal, response.status, request_id)
            self.transport.write(_serialized(response, request_id, keep_alive=False))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@cache
def _overload_response(retry_after: int, version: str) -> bytes:
    """The response under overload, with ``_ANY_ID`` in place of the request ID. Paths of methods name the version."""
    request_id = _ANY_ID.decode()
    return _serialized(
        refusal_response(TooManyRequests(retry_after=retry_after), request_id, version), request_id, keep_alive=True
    )


def _serialized(response: HttpResponse, request_id: str, *, keep_alive: bool) -> bytes:
    headers = {
        **dict(SECURITY_HEADERS),
        **dict(response.headers),
        b"content-type": response.media_type,
        b"content-length": b"%d" % len(response.body),
        b"x-request-id": request_id.encode(),
    }
    if not keep_alive:
        headers[b"connection"] = b"close"
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    return STATUS_LINE[response.status] + lines + b"\r\n" + response.body
