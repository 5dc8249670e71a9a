"""An HTTP server on loopback with fixed responses."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web


class Reply(NamedTuple):
    """A response: its JSON body, or a function that makes it from the request."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = {}


@asynccontextmanager
async def serving(replies: Mapping[str, Reply], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve replies by path, and 404 for every other path; yield the base URL."""

    async def respond(request: web.Request) -> web.Response:
        reply = replies.get(request.path, Reply({"error": {"code": "resource_missing"}}, 404))
        body = reply.body(request) if callable(reply.body) else reply.body
        return web.json_response(body, status=reply.status, headers=reply.headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", respond)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
