"""The console over methods that answer at once: pages without Kafka, in milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import httpx
from starlette.routing import Router

from services.gateway.console import console
from services.gateway.endpoint import Dispatcher
from services.gateway.http_calls import HttpCalls
from services.gateway.middleware import HttpMiddleware
from services.gateway.portal import PortalLinks
from services.gateway.rpc_client import RpcReply
from shared.messages import Caller
from shared.otel_settings import TraceExport
from shared.sealing import Sealer
from shared.tracing import Tracing
from tests.gateway.fake_services import Refused

ISSUER: Final = "http://127.0.0.1:8080"
CSRF: Final = re.compile(r'name="csrf" value="([^"]+)"')


@dataclass
class FakeMethods:
    """Methods that record their calls.

    Attributes:
        responses: the view of each method, None for one without, or a ``Refused``.
        calls: method and fields of each valid call, in order.
        callers: their callers.
    """

    responses: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    trusted_proxies: tuple[()] = ()
    rpc_client: Any = field(default_factory=lambda: SimpleNamespace(overload=lambda *_, **__: None))

    async def dispatch(
        self, _message: Any, fields: Any, _request: Any, caller: Caller, *, operation: tuple[str, str], **_: Any
    ) -> RpcReply:
        """Record a call that was validated before, and answer it."""
        name = operation[1]
        self.calls.append((name, json.loads(json.dumps(fields))))
        self.callers.append(caller)
        response = self.responses[name]
        if isinstance(response, Refused):
            return RpcReply(response.kind, json.dumps(response.body).encode(), replayed=False)
        return RpcReply("done", b"" if response is None else json.dumps(response).encode(), replayed=False)

    def reset(self, responses: Mapping[str, Any]) -> None:
        """Forget the calls, and answer with these from now on."""
        self.responses = dict(responses)
        self.calls.clear()
        self.callers.clear()

    def named(self, name: str) -> list[dict[str, Any]]:
        """Fields of the calls of one method."""
        return [fields for called, fields in self.calls if called == name]


class ConsoleApp:
    """An open console in the memory of this process."""

    def __init__(self) -> None:
        self.methods = FakeMethods()
        sealer = Sealer({"k1": bytes(32)})
        dispatcher = cast("Dispatcher", self.methods)
        router = Router(
            console.open_console(dispatcher, PortalLinks(sealer, ISSUER), sealer).routes(), redirect_slashes=False
        )
        calls = HttpCalls(Tracing("test", TraceExport()), issuer=ISSUER, trusted_proxies=())
        self.asgi = HttpMiddleware(router, (), calls)
        transport = httpx.ASGITransport(self.asgi, client=("127.0.0.1", 50_000))
        self.http = httpx.AsyncClient(transport=transport, base_url=ISSUER)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page."""
        return await self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form as its page does; a list is a field with several values."""
        page = await self.get("/console/keys")
        found = CSRF.search(page.text)
        assert found, page.text
        self.methods.calls.clear()
        form = {"csrf": found[1], "once": "0" * 32, **fields}
        return await self.http.post(path, data=form, headers={"origin": ISSUER})
