"""A Mailchimp of one list, which remembers its members and goes wrong as it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

KEY = "0123456789abcdef0123456789abcdef-us21"
LIST = "a1b2c3d4e5"


class MailchimpDouble:
    """Enter it with ``async with``.

    Attributes:
        members: status by member, as the real one keeps them.
        forgotten: members that were deleted for good: the real one takes them from nobody but their owner.
        calls: the member and the body of each level that was told, in order.
        forgets: the member of each order to forget one, in order.
        faults: what happens to the next requests instead: a status (refused, nothing done), ``done-500``,
            ``done-hang`` (done, and the answer never comes), ``hang`` (nothing done, no answer), ``drop`` (done, and
            the connection is cut), ``html`` (something in between answers).
        always: a fault for all requests.
    """

    def __init__(self) -> None:
        self.members: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.forgets: list[str] = []
        self.faults: deque[int | str] = deque()
        self.always: int | str | None = None
        self.url = ""
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        member = "/3.0/lists/{list}/members/{member}"
        app.router.add_put(member, self._put)
        app.router.add_post(f"{member}/actions/delete-permanent", self._forget)
        app.router.add_get("/3.0/lists/{list}", self._show_list)
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
        return self.members.get(member_hash(address))

    async def _put(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        member = request.match_info["member"]
        self.calls.append((member, body))
        if (turned_away := _turned_away(request)) is not None:
            return turned_away
        if member != member_hash(body["email_address"]):
            return problem(400, "Invalid Resource")

        def put() -> web.Response:
            if member in self.forgotten:
                return problem(400, "Forgotten Email Not Subscribed")
            self.members[member] = body["status"] if member in self.members else body["status_if_new"]
            return web.json_response({"id": member, "status": self.members[member]})

        return await self._done(put, request)

    async def _forget(self, request: web.Request) -> web.StreamResponse:
        member = request.match_info["member"]
        self.forgets.append(member)
        if (turned_away := _turned_away(request)) is not None:
            return turned_away

        def forget() -> web.Response:
            if self.members.pop(member, None) is None:
                return problem(404, "Resource Not Found")
            self.forgotten.add(member)
            return web.Response(status=204)

        return await self._done(forget, request)

    async def _show_list(self, request: web.Request) -> web.StreamResponse:
        return _turned_away(request) or web.json_response({"id": LIST})

    async def _done(self, do: Callable[[], web.Response], request: web.Request) -> web.StreamResponse:
        """What is asked for, or the next fault."""
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, int):
            return problem(fault, {400: "Member In Compliance State", 429: "Too Many Requests"}.get(fault, "Fault"))
        if fault == "html":
            return web.Response(text="<html>gateway</html>", status=502, content_type="text/html")
        if fault == "hang":
            await self._over.wait()
        answer = do()
        if fault == "done-hang":
            await self._over.wait()
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault == "done-500":
            return problem(500, "Internal Server Error")
        return answer


def member_hash(address: str) -> str:
    """The MD5 of the lower-cased address."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def _turned_away(request: web.Request) -> web.Response | None:
    expected = "Basic " + base64.b64encode(f"nest:{KEY}".encode()).decode()
    if request.headers.get("authorization") != expected:
        return problem(401, "API Key Invalid")
    if request.match_info["list"] != LIST:
        return problem(404, "Resource Not Found")
    return None


def problem(status: int, title: str) -> web.Response:
    """An error as the real one writes it; its detail names the address."""
    said = {"type": "https://mailchimp.com/developer/", "title": title, "status": status, "detail": "ada@example.com …"}
    return web.Response(text=json.dumps(said), status=status, content_type="application/problem+json")
