"""Uvicorn's server at rest and at its end."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from shared import uvicorn_server
from shared.listeners import listen
from shared.uvicorn_server import UvicornServer
from tests.stack import eventually


async def test_date_is_renewed_and_the_end_is_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_server, "TICK_SECONDS", 0.5)
    server = UvicornServer(uvicorn.Config(Starlette(), lifespan="off", log_config=None))
    listener = listen("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve([listener]))
    async with asyncio.timeout(30), httpx.AsyncClient() as http:
        await server.ready.wait()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        async def date() -> str:
            return (await http.get(url)).headers["date"]

        first = await date()

        async def renewed() -> bool:
            return await date() != first

        await eventually(renewed, what="another date")
        monkeypatch.setattr(uvicorn_server, "TICK_SECONDS", 600.0)
        await asyncio.sleep(1.0)
        began = time.monotonic()
        server.exit()
        await serving
    assert time.monotonic() - began < 20
