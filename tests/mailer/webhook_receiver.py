"""A receiver of webhooks: an HTTP server on loopback that records requests and answers as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Self

from aiohttp import web
from nest_client import WebhookVerifier

ANY_TIME = 10**9
"""Tolerance for tests that move the clock of the mailer."""


class Receiver:
    """Runs while it is entered, on a free port or a given one.

    Attributes:
        answers: status and headers of the next answers; afterwards every answer is 204.
        bodies: the bodies in order, parsed, of requests that were signed with one of the secrets.
        ids: their ``webhook-id`` headers.
        requests: headers of all requests.
        raw: bodies as they arrived, with their headers.
        hangs: no request is answered.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.secrets: list[str] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bodies: list[Any] = []
        self.ids: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.raw: list[tuple[bytes, dict[str, str]]] = []
        self.hangs = False

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/webhooks"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def types(self) -> Sequence[str]:
        """Types of the received events, in order."""
        return [body["type"] for body in self.bodies]

    async def _receive(self, request: web.Request) -> web.Response:
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        self.raw.append((body, self.requests[-1]))
        if self.hangs:
            await asyncio.sleep(30)
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        if self.secrets:
            WebhookVerifier(self.secrets, tolerance=ANY_TIME).verify(body, request.headers)
        self.bodies.append(json.loads(body))
        self.ids.append(request.headers["webhook-id"])
        return web.Response(status=status, headers=headers)
