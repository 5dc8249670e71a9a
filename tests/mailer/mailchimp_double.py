"""A Mailchimp of one list, which remembers its members and goes wrong as it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import deque
from typing import Any, Self

from aiohttp import web

KEY = "0123456789abcdef0123456789abcdef-us21"
LIST = "a1b2c3d4e5"


class MailchimpDouble:
    """Enter it with ``async with``.

    Attributes:
        members: status by member, as the real one keeps them.
        calls: the member and the body of each request, in order.
        faults: what happens to the next requests instead: a status (refused, nothing done), ``done-500``,
            ``done-hang`` (done, and the answer never comes), ``hang`` (nothing done, no answer), ``drop`` (done, and
            the connection is cut), ``html`` (something in between answers).
        always: a fault for all requests.
    """

    def __init__(self) -> None:
        self.members: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.faults: deque[int | str] = deque()
        self.always: int | str | None = None
        self.url = ""
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_put("/3.0/lists/{list}/members/{member}", self._put)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/3.0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    def status_of(self, address: str) -> str | None:
        return self.members.get(hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest())

    async def _put(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        member = request.match_info["member"]
        self.calls.append((member, body))
        expected = "Basic " + base64.b64encode(f"nest:{KEY}".encode()).decode()
        if request.headers.get("authorization") != expected:
            return problem(401, "API Key Invalid")
        if request.match_info["list"] != LIST:
            return problem(404, "Resource Not Found")
        if member != hashlib.md5(body["email_address"].lower().encode(), usedforsecurity=False).hexdigest():
            return problem(400, "Invalid Resource")
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, int):
            return problem(fault, {400: "Member In Compliance State", 429: "Too Many Requests"}.get(fault, "Fault"))
        if fault == "html":
            return web.Response(text="<html>gateway</html>", status=502, content_type="text/html")
        if fault == "hang":
            await self._over.wait()
        self.members[member] = body["status"] if member in self.members else body["status_if_new"]
        if fault == "done-hang":
            await self._over.wait()
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault == "done-500":
            return problem(500, "Internal Server Error")
        return web.json_response({"id": member, "status": self.members[member]})


def problem(status: int, title: str) -> web.Response:
    """An error as the real one writes it; its detail names the address."""
    said = {"type": "https://mailchimp.com/developer/", "title": title, "status": status, "detail": "ada@example.com …"}
    return web.Response(text=json.dumps(said), status=status, content_type="application/problem+json")
