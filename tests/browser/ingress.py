"""A proxy on loopback in front of a gateway, which terminates TLS as the proxies in deploy/ do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import ClientSession, DummyCookieJar, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_OF_ONE_CONNECTION: Final = ("connection", "keep-alive", "transfer-encoding", "content-length")


@asynccontextmanager
async def ingress(gateway: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a proxy; it passes the `Host` header on, and the client's address in `X-Forwarded-For`.

    Args:
        gateway: base URL.
        tls: with the certificate; None for plain http.

    Yields:
        the port on 127.0.0.1.
    """
    async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as gateway_client:

        async def pass_on(request: web.Request) -> web.Response:
            headers = _passed_on(request.headers)
            headers["X-Forwarded-For"] = request.remote or "unknown"
            headers["X-Forwarded-Proto"] = request.scheme
            url = URL(gateway + request.raw_path, encoded=True)
            async with gateway_client.request(
                request.method, url, headers=headers, data=await request.read(), allow_redirects=False
            ) as response:
                body = await response.read()
                return web.Response(status=response.status, headers=_passed_on(response.headers), body=body)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    passed_on = headers.copy()
    for name in _OF_ONE_CONNECTION:
        passed_on.popall(name, None)
    return passed_on
