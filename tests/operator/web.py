"""A server on loopback that says what a test wants, for the doctor to look at."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web


class Says(NamedTuple):
    """One answer."""

    said: Any
    status: int = 200
    headers: Mapping[str, str] = {}


@asynccontextmanager
async def served(answers: Mapping[str, Says], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of a server that answers these paths, and 404 for any other."""

    async def answer(request: web.Request) -> web.Response:
        says = answers.get(request.path, Says({"error": {"code": "resource_missing"}}, 404))
        if callable(says.said):
            return web.json_response(says.said(request), status=says.status, headers=says.headers)
        return web.json_response(says.said, status=says.status, headers=says.headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
