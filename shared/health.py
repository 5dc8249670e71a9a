"""Is this process well? ``/healthz`` for whoever restarts it, ``/metrics`` for whoever watches it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Complaints = Callable[[], list[str]]
"""What is wrong right now, a sentence each; empty when all is well."""


def routes(complaints: Complaints) -> list[Route]:
    """``GET /healthz``: 200 ``{"status": "ok"}``, or 503 with what is wrong. ``GET /metrics``: Prometheus' text."""

    async def healthz(_request: Request) -> Response:
        wrong = complaints()
        body = {"status": "failing", "reasons": wrong} if wrong else {"status": "ok"}
        return JSONResponse(body, status_code=503 if wrong else 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/metrics", metrics)]


class HealthServer:
    """Serves both routes on a port of their own, beside a service that speaks no HTTP."""

    def __init__(self, host: str, port: int, complaints: Complaints) -> None:
        self._host = host
        self._port = port
        config = uvicorn.Config(
            Starlette(routes=routes(complaints)), log_config=None, access_log=False, lifespan="off", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family)
        # The service, not its health page, answers to signals: so not ``serve()``, which takes them over.
        self._task = asyncio.create_task(self._server._serve([listener]))  # noqa: SLF001

    async def stop(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
