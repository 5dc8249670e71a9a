from __future__ import annotations

import re

import pytest

from tests.gateway.conftest import GatewayStack

HOME = "/console"


async def test_open_console_answers_browsers_of_this_machine(stack: GatewayStack) -> None:
    response = await stack.http.get(HOME)
    assert response.status_code == 200
    assert "Nest console" in response.text
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8080"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "192.0.2.1:8080"}, 421),
        ({"x-forwarded-for": "203.0.113.7"}, 403),
        ({"forwarded": "for=203.0.113.7"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
    ],
)
async def test_open_console_is_for_this_machine_alone(
    stack: GatewayStack, headers: dict[str, str], status: int
) -> None:
    response = await stack.http.get(HOME, headers=headers)
    assert response.status_code == status
    if status != 200:
        assert not re.search(r'name="csrf"|X-CSRF-Token', response.text)
