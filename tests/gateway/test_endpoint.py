from __future__ import annotations

import asyncio
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
from services.gateway.http_calls import HttpCall
from services.gateway.methods import METHODS
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from services.gateway.unsubscribe import ShowPage
from shared.mail import unsubscribe_token
from shared.messages import Caller
from shared.messages.auth.users import GetUser
from shared.tracing import parse_traceparent
from tests.gateway.conftest import LINK, MAIL_SECRETS, GatewayStack
from tests.gateway.fake_services import NO_REPLY
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
    error = response.json()
    assert (error["code"], error["meta"]) == ("unknown", {"request_id": response.headers["x-request-id"]})
    assert error.keys() <= {"code", "message", "docs", "meta"}
    assert count(*operation, 500) == before + 1
    assert [entry["request_id"] for entry in logs if entry["event"] == "request failed"] == [
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
        topic=None,
    )
    await method({"headers": [], "state": {"request_id": "r", "call": HttpCall("r", "POST")}}, receive, send)
    assert sent[0]["status"] == 403


async def test_renderer_also_renders_refusals() -> None:
    def render(_request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.body = b"rendered"
        return response

    method = MessageEndpoint(("g", "n"), dispatcher=Mock(), parse=json_body(GetUser), render=render, topic=None)
    response = method.render_refusal(HttpRequest({"state": {"request_id": "r"}}, fail, {}), BodyMissing())
    assert (response.status, response.body) == (400, b"rendered")


async def test_secrets_leave_the_gateway_sealed(stack: GatewayStack) -> None:
    redemption = {"client_id": "c", "grant_type": "authorization_code", "code": "authzcode_1.secret-half"}
    response = await stack.http.post("/1/2021-10-06/authenticate_user", json=redemption)
    assert response.status_code == 204
    envelope = stack.services.received[0]
    assert b"secret-half" not in envelope.body
    assert "secret" not in envelope.key
    assert stack.services.sealer.unseal("auth", json.loads(envelope.body)["code"]) == b"authzcode_1.secret-half"


async def test_missing_body_is_refused(stack: GatewayStack) -> None:
    response = await stack.http.post("/1/2021-10-06/send_magic_link")
    assert (response.status_code, response.json()["code"]) == (400, "body_missing")


async def test_traceparent_of_a_client_is_not_continued(stack: GatewayStack) -> None:
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await stack.http.post("/1/2021-10-06/list_news_items", json={"client_id": "c"}, headers={"traceparent": theirs})
    (envelope,) = stack.services.received
    assert parse_traceparent(envelope.trace) == envelope.trace
    assert envelope.trace_id not in theirs
    assert envelope.trace.endswith("-00")


async def test_request_id_goes_with_the_message(stack: GatewayStack) -> None:
    given = ("checkout-17", "Jane@Example.com", "x" * 129)
    for request_id in given:
        response = await stack.http.post(
            "/1/2021-10-06/list_news_items", json={"client_id": "c"}, headers={"x-request-id": request_id}
        )
        assert stack.services.received[-1].request == response.headers["x-request-id"]
    # Only an ID without spaces and signs is the client's own.
    assert [envelope.request in given for envelope in stack.services.received] == [True, False, False]


async def test_request_headers_never_become_message_headers(stack: GatewayStack) -> None:
    spoofed = {
        "reply-to": "7",
        "reply_to": "7",
        "nest-id": "x",
        "id": "x",
        "type": "x",
        "x-user-id": "x",
        "caller": "x",
    }
    await stack.http.post("/1/2021-10-06/list_news_items", json={"client_id": "c"}, headers=spoofed)
    record = stack.services.records[0]
    assert {name for name, _ in record.headers} == {
        *("type", "id", "time", "caller", "request-id", "deadline", "reply-to", "mac"),
    }
    assert dict(record.headers)["type"] == b"news.list-news-items"
    assert dict(record.headers)["caller"] == b'{"client_ip":"127.0.0.1"}'


class TestIdempotencyKeys:
    async def test_repeat_has_the_same_message_id_and_fingerprint(self, stack: GatewayStack) -> None:
        for body in (LINK, dict(reversed(LINK.items()))):
            await stack.http.post("/1/2021-10-06/send_magic_link", json=body, headers={"idempotency-key": "k"})
        first, second = stack.services.received
        assert first.id == second.id
        assert first.fingerprint == second.fingerprint != ""
        assert first.reply_id != second.reply_id

    async def test_other_body_has_the_same_message_id_and_another_fingerprint(self, stack: GatewayStack) -> None:
        for state in ("one", "two"):
            await stack.http.post(
                "/1/2021-10-06/send_magic_link", json={**LINK, "state": state}, headers={"idempotency-key": "k"}
            )
        first, second = stack.services.received
        assert first.id == second.id
        assert first.fingerprint != second.fingerprint

    async def test_key_belongs_to_caller_method_and_version(self, stack: GatewayStack) -> None:
        consent = {"user_id": "user_1", "level": "none"}
        key = {"idempotency-key": "k"}
        for version in METHODS:
            await stack.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | stack.bearer())
            await stack.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | stack.internal)
            await stack.http.post(f"/1/{version}/send_magic_link", json=LINK, headers=key)
        assert len({envelope.id for envelope in stack.services.received}) == 3 * len(METHODS)

    async def test_calls_without_a_key_have_distinct_message_ids(self, stack: GatewayStack) -> None:
        for _ in range(2):
            await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK)
        first, second = stack.services.received
        assert first.id != second.id
        assert first.fingerprint == ""

    async def test_replayed_reply_is_marked_if_the_client_sent_a_key(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.send-magic-link"] = lambda _: NO_REPLY

        async def replay(envelope: Any) -> None:
            await stack.services.reply(envelope, None, replayed=True)

        stack.services.before_reply = replay
        with_key = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK, headers={"idempotency-key": "k"})
        without = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK)
        assert with_key.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in without.headers

    @pytest.mark.parametrize("key", ["", "k" * 256, "ключ".encode()])
    async def test_malformed_key_is_refused(self, stack: GatewayStack, key: str | bytes) -> None:
        response = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK, headers={"idempotency-key": key})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_idempotency_key")
        assert stack.services.received == []

    async def test_100_concurrent_calls_with_one_key_all_get_a_response(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.create-client"] = lambda envelope: {"id": envelope.id}
        body = {"name": "App", "redirect_uris": ["https://app.example.com/"]}
        headers = {"idempotency-key": "k"} | stack.internal
        responses = await asyncio.gather(
            *(stack.http.post("/1/2021-10-06/create_client", json=body, headers=headers) for _ in range(100))
        )
        assert {response.status_code for response in responses} == {200}
        assert len({response.content for response in responses}) == 1

    async def test_concurrent_calls_with_one_key_get_the_reply_to_their_own_body(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.create-client"] = lambda envelope: json.loads(envelope.body)
        headers = {"idempotency-key": "k"} | stack.internal
        bodies = [{"name": f"App {number}", "redirect_uris": ["https://app.example.com/"]} for number in range(20)]
        responses = await asyncio.gather(
            *(stack.http.post("/1/2021-10-06/create_client", json=body, headers=headers) for body in bodies)
        )
        assert [response.json().get("name") for response in responses] == [body["name"] for body in bodies]
