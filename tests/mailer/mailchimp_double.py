"""Test double of Mailchimp with one audience, which fails on request."""

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
TEMPORARY_DETAILS = (
    "a" * 200 + "@example.com has signed up to a lot of lists very recently; we're not allowing more signups for now",
    'Recipient "ada@example.com" has too many recent signup requests',
)


class MailchimpDouble:
    """Server on loopback, running while it is entered with ``async with``.

    Attributes:
        members: status by member hash.
        erased: hashes of permanently deleted members, which Mailchimp accepts from their owner only.
        updates: member hash and body of each update, in order.
        erasures: member hash of each permanent deletion, in order.
        faults: faults of the next requests: a status (the request has no effect), ``done-500`` (it takes effect, then
            500), ``done-hang`` (it takes effect, without a response), ``hang`` (no effect, no response), ``drop`` (it
            takes effect, then the connection is closed), ``html`` (the error page of a proxy), or one of
            ``TEMPORARY_DETAILS`` (400 with this detail).
        always: fault of all requests.
    """

    def __init__(self) -> None:
        self.members: dict[str, str] = {}
        self.erased: set[str] = set()
        self.updates: list[tuple[str, dict[str, Any]]] = []
        self.erasures: list[str] = []
        self.faults: deque[int | str] = deque()
        self.always: int | str | None = None
        self.url = ""
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        member = "/3.0/lists/{list}/members/{member}"
        app.router.add_put(member, self._put)
        app.router.add_post(f"{member}/actions/delete-permanent", self._erase)
        app.router.add_get("/3.0/lists/{list}", self._get_list)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/3.0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await self._runner.cleanup()

    def status_of(self, address: str) -> str | None:
        return self.members.get(member_hash(address))

    async def _put(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        member = request.match_info["member"]
        self.updates.append((member, body))
        if (rejection := _rejection(request)) is not None:
            return rejection
        if member != member_hash(body["email_address"]):
            return problem(400, "Invalid Resource")

        def put() -> web.Response:
            if member in self.erased:
                return problem(400, "Forgotten Email Not Subscribed")
            self.members[member] = body["status"] if member in self.members else body["status_if_new"]
            return web.json_response({"id": member, "status": self.members[member]})

        return await self._respond(put, request)

    async def _erase(self, request: web.Request) -> web.StreamResponse:
        member = request.match_info["member"]
        self.erasures.append(member)
        if (rejection := _rejection(request)) is not None:
            return rejection

        def erase() -> web.Response:
            if self.members.pop(member, None) is None:
                return problem(404, "Resource Not Found")
            self.erased.add(member)
            return web.Response(status=204)

        return await self._respond(erase, request)

    async def _get_list(self, request: web.Request) -> web.StreamResponse:
        return _rejection(request) or web.json_response({"id": LIST})

    async def _respond(self, do: Callable[[], web.Response], request: web.Request) -> web.StreamResponse:
        """Perform a request, or the next fault."""
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, int):
            return problem(fault, {400: "Member In Compliance State", 429: "Too Many Requests"}.get(fault, "Fault"))
        if fault in TEMPORARY_DETAILS:
            return problem(400, "Invalid Resource", detail=fault)
        if fault == "html":
            return web.Response(text="<html>gateway</html>", status=502, content_type="text/html")
        if fault == "hang":
            await self._stopped.wait()
        answer = do()
        if fault == "done-hang":
            await self._stopped.wait()
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault == "done-500":
            return problem(500, "Internal Server Error")
        return answer


def member_hash(address: str) -> str:
    """MD5 of the lower-case address."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def _rejection(request: web.Request) -> web.Response | None:
    expected = "Basic " + base64.b64encode(f"nest:{KEY}".encode()).decode()
    if request.headers.get("authorization") != expected:
        return problem(401, "API Key Invalid")
    if request.match_info["list"] != LIST:
        return problem(404, "Resource Not Found")
    return None


def problem(status: int, title: str, *, detail: str = "ada@example.com …") -> web.Response:
    """Problem document as Mailchimp returns it; ``detail`` contains the address."""
    body = {"type": "https://mailchimp.com/developer/", "title": title, "status": status, "detail": detail}
    return web.Response(text=json.dumps(body), status=status, content_type="application/problem+json")
