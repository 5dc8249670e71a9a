from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.gateway import account_pages
from shared.messages import MESSAGES
from tests.gateway.conftest import GatewayStack
from tests.gateway.fake_services import Refused

LANGUAGES = ("en", "de", "fr", "es", "it")
CODE = "accountlink_000000C2kg4d9HyP1Bg09HBF4Bm40." + "4f9a1c7be2d05836" * 4
PAGES = ("/reset", "/confirm")
PASSWORD = "ein Sätzchen & mehr + 100 %"
WIRES = {"/reset": "auth.reset-password", "/confirm": "auth.verify-address"}


@pytest.fixture(autouse=True)
def auth(stack: GatewayStack) -> None:
    for wire in WIRES.values():
        stack.services.replies[wire] = lambda _: b'{"done": true}'


def field(stack: GatewayStack, name: str) -> str:
    """Unsealed field of the only message that auth received."""
    [envelope] = stack.services.received
    message = MESSAGES[envelope.wire].model_validate_json(envelope.body)
    return stack.services.sealer.unseal_secret("auth", getattr(message, name))


@pytest.mark.parametrize("page", PAGES)
async def test_get_shows_a_form_and_sends_no_message(stack: GatewayStack, page: str) -> None:
    for verb in ("GET", "HEAD"):
        response = await stack.http.request(verb, f"{page}/{CODE}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-robots-tag"] == "noindex"
    assert '<form method="post">' in (await stack.http.get(f"{page}/{CODE}")).text
    assert stack.services.received == []


@pytest.mark.parametrize("page", PAGES)
async def test_page_loads_nothing_and_its_policy_allows_only_style_and_form(stack: GatewayStack, page: str) -> None:
    response = await stack.http.get(f"{page}/{CODE}")
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert response.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert not re.search(r"<script|src=|href=|style=", response.text)
    assert CODE not in response.text


@pytest.mark.parametrize("headers", [{}, {"authorization": "bearer of.bad.news"}, {"idempotency-key": "x" * 300}])
async def test_button_sets_the_typed_password(stack: GatewayStack, headers: dict[str, str]) -> None:
    response = await stack.http.post(f"/reset/{CODE}", data={"password": PASSWORD}, headers=headers)
    assert response.status_code == 200
    assert "Your password is changed" in response.text
    assert (field(stack, "token"), field(stack, "password")) == (CODE, PASSWORD)
    assert stack.services.received[0].caller.kind == "anonymous"


async def test_button_confirms_the_address(stack: GatewayStack) -> None:
    response = await stack.http.post(f"/confirm/{CODE}")
    assert response.status_code == 200
    assert "Your address is confirmed" in response.text
    assert field(stack, "token") == CODE


@pytest.mark.parametrize("page", PAGES)
async def test_page_shows_why_a_link_is_refused(stack: GatewayStack, page: str) -> None:
    for refused, status, words in (
        (Refused("unauthenticated", "link_not_valid"), 404, "This link does not work"),
        (Refused("throttled", "throttled", retry_after=77), 429, "That did not work"),
        (Refused("unavailable", "unavailable", retry_after=3), 503, "That did not work"),
        (Refused("validation_failed", "validation_failed", errors=[]), 422, "Choose another password"),
    ):
        if page == "/confirm" and status == 422:
            continue
        stack.services.replies[WIRES[page]] = lambda _, refused=refused: refused
        response = await stack.http.post(f"{page}/{CODE}", data={"password": PASSWORD})
        assert response.status_code == status
        assert words in response.text
        assert ("<form" in response.text) == (status != 404)
        assert ("retry-after" in response.headers) == (status in {429, 503})
        assert PASSWORD not in response.text


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "token", ["x", CODE[:-1], f"{CODE}0", CODE.upper(), CODE.replace(".", "%2E%2E"), "%00", "%F0%9F%92%A5", "A" * 9000]
)
async def test_malformed_link_gives_404_and_sends_no_message(stack: GatewayStack, page: str, token: str) -> None:
    for verb in ("GET", "POST"):
        response = await stack.http.request(verb, f"{page}/{token}")
        assert response.status_code == 404
        assert "does not work" in response.text
    assert stack.services.received == []


async def test_form_without_password_is_sent_as_an_empty_one(stack: GatewayStack) -> None:
    for body in (b"", b"other=x", b"password", b"\xff\xfe=&&="):
        await stack.http.post(f"/reset/{CODE}", content=body)
        assert field(stack, "password") == ""
        stack.services.received.clear()


async def test_large_form_is_refused(stack: GatewayStack) -> None:
    response = await stack.http.post(f"/reset/{CODE}", content=b"password=" + b"x" * 5000)
    assert response.status_code == 413
    assert stack.services.received == []


@pytest.mark.parametrize("page", PAGES)
async def test_other_http_methods_and_paths_are_refused(stack: GatewayStack, page: str) -> None:
    assert (await stack.http.put(f"{page}/{CODE}")).status_code == 405
    for path in (page, f"{page}/{CODE}/more"):
        assert (await stack.http.post(path)).status_code == 404


@pytest.mark.parametrize("page", PAGES)
async def test_every_language_has_a_page(stack: GatewayStack, page: str) -> None:
    for language in LANGUAGES:
        response = await stack.http.get(f"{page}/{CODE}?lang={language}", headers={"accept-language": "ja"})
        assert (response.status_code, response.headers["content-language"]) == (200, language)
        assert f'<html lang="{language}">' in response.text


@pytest.mark.parametrize("name", ["reset", "confirm"])
def test_every_language_has_every_text(name: str) -> None:
    texts = tomllib.loads((Path(account_pages.__file__).parent / "templates" / f"{name}.toml").read_text())
    assert set(texts) == set(LANGUAGES)
    places = {state: set(parts) for state, parts in texts["en"].items() if state != "title"}
    states = {"form", "refused", "done", "unknown", "failed"}
    assert set(places) == (states if name == "reset" else states - {"refused"})
    for of_language in texts.values():
        assert {state: set(parts) for state, parts in of_language.items() if state != "title"} == places


async def test_code_and_password_appear_in_no_log_and_no_record(
    stack: GatewayStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.http.post(f"/reset/{CODE}", data={"password": PASSWORD})
    records = " ".join(repr((record.key, record.value, record.headers)) for record in stack.services.records)

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("services.gateway.endpoint.Dispatcher.dispatch", fail)
    with capture_logs() as logs:
        assert (await stack.http.post(f"/reset/{CODE}", data={"password": PASSWORD})).status_code == 500
    assert logs
    for text in (str(logs), records):
        assert CODE not in text
        assert PASSWORD not in text
