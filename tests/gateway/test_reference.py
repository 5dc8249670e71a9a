from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from services.gateway.http_calls import CALL, HttpCall
from services.gateway.methods import PATHS
from services.gateway.reference import routes

BASE = "https://nest.example"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=routes(BASE))

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {CALL: HttpCall("request", scope["method"])}}, receive, send)

    transport = httpx.ASGITransport(app=observed)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def test_document_is_openapi_with_every_method(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json()["openapi"] == "3.1.1"
    assert set(PATHS) <= set(response.json()["paths"])


@pytest.mark.parametrize("path", ["/openapi.json", "/reference"])
async def test_known_entity_tag_gets_304(client: httpx.AsyncClient, path: str) -> None:
    first = await client.get(path)
    again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "max-age" in first.headers["cache-control"]


async def test_page_runs_no_script_and_its_policy_allows_its_style(client: httpx.AsyncClient) -> None:
    response = await client.get("/reference")
    (style,) = re.findall("<style>(.*)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in response.headers["content-security-policy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"<script|<link|<img|style=|\son\w+=", response.text)


async def test_page_lists_every_operation_once(client: httpx.AsyncClient) -> None:
    page = (await client.get("/reference")).text
    anchors = re.findall(r'<details id="([^"]+)">', page)
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    operation_ids = [operation["operationId"] for verbs in document["paths"].values() for operation in verbs.values()]
    assert sorted(anchors) == sorted(operation_ids)


async def test_operator_methods_have_their_own_section(client: httpx.AsyncClient) -> None:
    page = (await client.get("/reference")).text
    before, _, operators = page.partition('<section id="operators">')
    assert 'id="list_dead_letters"' in operators
    assert 'id="list_dead_letters"' not in before
    assert 'id="send_magic_link"' in before


async def test_every_anchor_link_has_a_target(client: httpx.AsyncClient) -> None:
    page = (await client.get("/reference")).text
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert anchors
    for anchor in anchors:
        assert f'id="{anchor}"' in page


async def test_shell_command_contains_valid_json(client: httpx.AsyncClient) -> None:
    class Commands(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.text = ""

        def handle_data(self, data: str) -> None:
            self.text += data

    parser = Commands()
    parser.feed((await client.get("/reference")).text)
    commands = re.findall(rf"curl -s {BASE}/1/2021-10-06/send_magic_link .*?-d '([^']*)'", parser.text, re.DOTALL)
    assert json.loads(commands[0])["client_id"]


async def test_page_elements_are_balanced(client: httpx.AsyncClient) -> None:
    class Elements(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "link", "br"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    elements = Elements()
    elements.feed((await client.get("/reference")).text)
    assert elements.open == []
