"""Health endpoints: ``/healthz`` and ``/readyz`` for the supervisor, ``/metrics`` for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.listeners import listen
from shared.uvicorn_server import UvicornServer

Problems = Callable[[], list[str]]
"""Returns the reasons why the process is unhealthy, one sentence each; empty if it is healthy."""


def routes(problems: Problems, unready: Problems | None = None) -> list[Route]:
    """Return the routes of all endpoints.

    ``GET /healthz`` responds 200 ``{"status": "ok"}``, or 503 with the reasons of ``problems``; ``GET /readyz``
    likewise with those of ``unready``, by default the same. ``GET /metrics`` responds with the Prometheus text format.
    """

    def respond(reasons: list[str]) -> Response:
        body = {"status": "failing", "reasons": reasons} if reasons else {"status": "ok"}
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def healthz(_request: Request) -> Response:
        return respond(problems())

    async def readyz(_request: Request) -> Response:
        return respond((unready or problems)())

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


class HealthServer:
    """HTTP server of the health endpoints, on a port of its own. ``host`` and ``port`` are those of ``listen``."""

    def __init__(self, host: str, port: int, problems: Problems, unready: Problems | None = None) -> None:
        self._host = host
        self._port = port
        both = [
            Route(path, each.endpoint) for each in routes(problems, unready) for path in (each.path, f"{each.path}/")
        ]
        config = uvicorn.Config(
            Starlette(routes=both), ws="none", log_config=None, access_log=False, lifespan="off", server_header=False
        )
        self._server = UvicornServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; raise CannotListen if the port is in use."""
        listener = listen(self._host, self._port, settings="NEST_HEALTH")
        self._task = asyncio.create_task(self._server.serve([listener]))

    async def stop(self) -> None:
        """Stop listening."""
        self._server.exit()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
