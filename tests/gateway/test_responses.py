from __future__ import annotations

import json

import pytest

from tests.gateway.conftest import LINK, GatewayStack
from tests.gateway.fake_services import Refused


async def test_view_is_passed_on_byte_for_byte(stack: GatewayStack) -> None:
    body = b'{"id":"user_1",  "created_at":"2026-11-21T06:05:00.000Z","identifiers":[]}'
    stack.services.replies["auth.get-user"] = lambda _: body
    response = await stack.http.post("/1/2021-10-06/get_user", json={"user_id": "user_1"}, headers=stack.bearer())
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-type"] == "application/json"
    envelope = stack.services.received[0]
    assert json.loads(envelope.body) == {"user_id": "user_1"}
    assert (envelope.caller.kind, envelope.caller.user_id, envelope.caller.client_ip) == ("user", "user_1", "127.0.0.1")
    assert envelope.deadline == envelope.time + 10_000


async def test_method_without_a_result_gives_204(stack: GatewayStack) -> None:
    response = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid", 400),
        ("unauthenticated", 401),
        ("payment_required", 402),
        ("forbidden", 403),
        ("not_found", 404),
        ("conflict", 409),
        ("gone", 410),
        ("validation_failed", 422),
        ("throttled", 429),
        ("bug", 500),
        ("unavailable", 503),
        ("timed_out", 504),
    ],
)
async def test_refusal_has_the_status_of_its_kind(stack: GatewayStack, kind: str, status: int) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused(kind, "some_code", fact=1)
    response = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK, headers={"x-request-id": "mine"})
    assert response.status_code == status
    assert response.json() == {"code": "some_code", "meta": {"fact": 1, "request_id": "mine"}}
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_rate_limit_response_has_retry_after(stack: GatewayStack) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused("throttled", "too_many", retry_after=42)
    response = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK)
    assert response.headers["retry-after"] == "42"


async def test_refusal_of_an_unknown_kind_is_a_500(stack: GatewayStack) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused("from_the_future", "secret_detail")
    response = await stack.http.post("/1/2021-10-06/send_magic_link", json=LINK)
    assert response.status_code == 500
    assert response.json()["code"] == "unknown"
    assert "secret_detail" not in response.text
