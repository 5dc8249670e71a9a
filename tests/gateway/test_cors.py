from __future__ import annotations

import pytest

from tests.gateway.conftest import ORIGIN, GatewayStack

PATH = "/1/2021-10-06/list_news_items"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}


async def test_allowed_origin_may_call(stack: GatewayStack) -> None:
    preflight = await stack.http.options(PATH, headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    response = await stack.http.post(PATH, json={"client_id": "c"}, headers={"origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in response.headers["access-control-expose-headers"]
    assert response.headers["vary"] == "origin"
    refused = await stack.http.post(PATH, json={}, headers={"origin": ORIGIN})
    assert refused.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://app.example.com", ORIGIN + ".evil.example", ORIGIN + "/", "*"],
)
async def test_other_origin_is_refused(stack: GatewayStack, origin: str) -> None:
    preflight = await stack.http.options(PATH, headers={**PREFLIGHT, "origin": origin})
    assert (preflight.status_code, preflight.json()["code"]) == (403, "origin_not_allowed")
    response = await stack.http.post(PATH, json={"client_id": "c"}, headers={"origin": origin})
    for each in (preflight, response):
        assert "access-control-allow-origin" not in each.headers
        assert each.headers["vary"] == "origin"


async def test_browser_credentials_are_not_allowed(stack: GatewayStack) -> None:
    preflight = await stack.http.options(PATH, headers=PREFLIGHT)
    assert "access-control-allow-credentials" not in preflight.headers
