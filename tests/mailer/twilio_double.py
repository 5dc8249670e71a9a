"""Test double of Twilio's Messages API, with the field names and error bodies of its documentation.

https://www.twilio.com/docs/messaging/api/message-resource, https://www.twilio.com/docs/usage/twilios-response.
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.server import Server

SID = "AC" + "0" * 32
TOKEN = "a token of the account"
SERVICE = "MG" + "1" * 32


@dataclass
class TwilioDouble:
    """Server on loopback, running while it is entered with ``async with``.

    Attributes:
        sent: forms of the accepted texts.
        responses: responses to the next requests: a status and a body, or seconds of delay.
        list_responses: responses to the next requests for earlier texts: a status and a body.
        list_requests: number of requests for earlier texts.
        page_size: maximum of a page of earlier texts.
        loses_responses: whether it accepts texts and then hangs.
    """

    sent: list[dict[str, str]] = field(default_factory=list)
    responses: list[tuple[int, Any] | float] = field(default_factory=list)
    list_responses: list[tuple[int, Any]] = field(default_factory=list)
    list_requests: int = 0
    page_size: int = 50
    loses_responses: bool = False

    async def __aenter__(self) -> Self:
        path = f"/2010-04-01/Accounts/{SID}/Messages.json"
        app = Starlette(routes=[Route(path, self._create, methods=["POST"]), Route(path, self._list, methods=["GET"])])
        self._server = Server(
            app,
            host="127.0.0.1",
            port=0,
            connections=ConnectionLimits(100, 100, ()),
            bodies=BodyBudget(10**6),
            drain_seconds=1,
        )
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    def reset(self) -> None:
        """Forget all texts and prepared responses."""
        self.sent, self.responses, self.list_responses = [], [], []
        self.list_requests, self.page_size, self.loses_responses = 0, 50, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    async def _create(self, request: Request) -> Response:
        if (rejection := self._rejection(request)) is not None:
            return rejection
        if self.responses:
            response = self.responses.pop(0)
            if isinstance(response, float):
                await asyncio.sleep(response)
            else:
                return _response(*response)
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.sent.append(form)
        if self.loses_responses:
            await asyncio.sleep(30)
        return JSONResponse(self._message(len(self.sent) - 1), 201)

    async def _list(self, request: Request) -> Response:
        self.list_requests += 1
        if (rejection := self._rejection(request)) is not None:
            return rejection
        if self.list_responses:
            return _response(*self.list_responses.pop(0))
        to, page = request.query_params["To"], int(request.query_params.get("Page", "0"))
        size = min(int(request.query_params["PageSize"]), self.page_size)
        messages = [self._message(n) for n, form in enumerate(self.sent) if form["To"] == to][::-1]
        rest = messages[page * size :]
        query = urlencode({"To": to, "PageSize": size, "Page": page + 1, "PageToken": "PASM1"})
        following = f"{request.url.path}?{query}" if len(rest) > size else None
        return JSONResponse({"messages": rest[:size], "next_page_uri": following, "page": page, "page_size": size})

    def _rejection(self, request: Request) -> Response | None:
        expected = "Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") == expected:
            return None
        return error(401, 20003, "Authenticate")

    def _message(self, n: int) -> dict[str, Any]:
        form = self.sent[n]
        return {
            "sid": f"SM{n:032}",
            "to": form["To"],
            "body": f"Sent from your Twilio trial account - {form['Body']}",
            "messaging_service_sid": form["MessagingServiceSid"],
            "status": "accepted",
            "date_created": "Sat, 21 Nov 2026 06:05:00 +0000",
        }


def error(status: int, code: int, message: str) -> Response:
    return _response(status, {"code": code, "message": message, "status": status, "more_info": "https://example.com"})


def _response(status: int, body: Any) -> Response:
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"location": "/elsewhere"} if status in range(300, 400) else None
    return Response(text, status, media_type="application/json", headers=headers)
