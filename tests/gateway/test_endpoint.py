from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn
from unittest.mock import Mock

import httpx
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.gateway.endpoint import Access, Endpoint, MessageEndpoint, json_body
from services.gateway.errors import BodyMissing
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from services.gateway.unsubscribe import ShowPage
from shared.mail import unsubscribe_token
from shared.messages import Caller
from shared.messages.auth.users import GetUser
from tests.gateway.conftest import MAIL_SECRETS, GatewayStack
from tests.gateway.test_webhooks_mail import NOTICE
from tests.gateway.test_webhooks_mail import signed as signed_for_mail
from tests.gateway.test_webhooks_stripe import event
from tests.gateway.test_webhooks_stripe import signed as signed_by_stripe
from tests.stack import eventually

EVENT = json.dumps(event()).encode()
MAIL_NOTICE = json.dumps(NOTICE).encode()


def fail(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("broken on purpose")


def count(group: str, name: str, status: int) -> float:
    labels = {"version": group, "method": name, "status": str(status)}
    return REGISTRY.get_sample_value("nest_gateway_call_seconds_count", labels) or 0.0


async def via_rpc(stack: GatewayStack) -> httpx.Response:
    return await stack.http.post("/1/2021-10-06/get_user", json={"user_id": "user_1"}, headers=stack.bearer())


async def via_phone(stack: GatewayStack) -> httpx.Response:
    return await stack.http.post("/init", json={"phone_number": "+41791234567"})


async def via_accounts_body(stack: GatewayStack) -> httpx.Response:
    return await stack.http.post("/users/userdata", json={"token": "a.b.c"})


async def via_accounts_path(stack: GatewayStack) -> httpx.Response:
    return await stack.http.get("/users/islogged/a.b.c")


async def via_unsubscribe_page(stack: GatewayStack) -> httpx.Response:
    return await stack.http.get(f"/unsubscribe/{unsubscribe_token(stack.services.sealer, 'user_1')}")


async def via_unsubscribe(stack: GatewayStack) -> httpx.Response:
    return await stack.http.post(f"/unsubscribe/{unsubscribe_token(stack.services.sealer, 'user_1')}")


async def via_stripe_webhook(stack: GatewayStack) -> httpx.Response:
    return await stack.http.post("/1/webhook/stripe", content=EVENT, headers=signed_by_stripe(EVENT))


async def via_mail_webhook(stack: GatewayStack) -> httpx.Response:
    headers = signed_for_mail(MAIL_NOTICE, MAIL_SECRETS[0])
    return await stack.http.post("/1/webhook/mail", content=MAIL_NOTICE, headers=headers)


async def via_cached_content(stack: GatewayStack) -> httpx.Response:
    return await stack.http.get("/.well-known/jwks.json")


@pytest.mark.parametrize(
    ("request_", "operation", "broken"),
    [
        (via_rpc, ("2021-10-06", "get_user"), "endpoint.encode"),
        (via_rpc, ("2021-10-06", "get_user"), "endpoint.reply_response"),
        (via_phone, ("phone", "init"), "endpoint.encode"),
        (via_accounts_body, ("accounts", "users/userdata"), "endpoint.validated"),
        (via_accounts_path, ("accounts", "users/islogged"), "endpoint.encode"),
        (via_unsubscribe_page, ("unsubscribe", "page"), "unsubscribe.user_of_token"),
        (via_unsubscribe, ("unsubscribe", "unsubscribe"), "endpoint.encode"),
        (via_stripe_webhook, ("webhook", "stripe"), "webhooks.read_body"),
        (via_mail_webhook, ("webhook", "mail"), "webhooks.read_body"),
        (via_cached_content, ("content", "jwks"), "cached_content.entity_tag"),
    ],
)
async def test_unexpected_error_on_any_route_is_counted_logged_and_a_500(
    stack: GatewayStack,
    monkeypatch: pytest.MonkeyPatch,
    request_: Callable[[GatewayStack], Any],
    operation: tuple[str, str],
    broken: str,
) -> None:
    before = count(*operation, 500)
    monkeypatch.setattr(f"services.gateway.{broken}", fail)
    with capture_logs() as logs:
        response = await request_(stack)
    assert response.status_code == 500
    assert response.json() == {"code": "unknown", "meta": {"request_id": response.headers["x-request-id"]}}
    assert count(*operation, 500) == before + 1
    assert [entry["request"] for entry in logs if entry["event"] == "request failed"] == [
        response.headers["x-request-id"]
    ]


async def test_requests_are_counted_by_group_name_and_status(stack: GatewayStack) -> None:
    for request_, operation in (
        (via_rpc, ("2021-10-06", "get_user")),
        (via_stripe_webhook, ("webhook", "stripe")),
        (via_cached_content, ("content", "jwks")),
    ):
        status = 204 if request_ is via_rpc else 200
        before = count(*operation, status)
        assert (await request_(stack)).status_code == status
        assert count(*operation, status) == before + 1
    await eventually(lambda: len(stack.services.received) == 2, what="the event on Kafka")


def test_no_endpoint_overrides_measuring_sending_and_counting() -> None:
    def subclasses(kind: type[Endpoint]) -> set[type[Endpoint]]:
        return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))

    found = subclasses(Endpoint)
    assert {MessageEndpoint, ShowPage} <= found
    assert {each.__call__ for each in found if each.__module__.startswith("services.gateway.")} == {Endpoint.__call__}


async def test_access_is_checked_before_the_body_is_read() -> None:
    class Anonymous:
        @staticmethod
        def authenticated(_request: HttpRequest) -> Any:
            return Caller()

    sent: list[Any] = []

    async def receive() -> NoReturn:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    method = MessageEndpoint(
        ("2021-10-06", "get_user"),
        dispatcher=Anonymous(),  # type: ignore[arg-type] -- nothing else of the dispatcher is used
        parse=json_body(GetUser),
        access=Access.INTERNAL,
    )
    await method({"headers": [], "state": {"request_id": "r"}}, receive, send)
    assert sent[0]["status"] == 403


async def test_renderer_also_renders_refusals() -> None:
    def render(_request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.body = b"rendered"
        return response

    method = MessageEndpoint(("g", "n"), dispatcher=Mock(), parse=json_body(GetUser), render=render)
    response = method.render_refusal(HttpRequest({"state": {"request_id": "r"}}, fail, {}), BodyMissing())
    assert (response.status, response.body) == (400, b"rendered")
