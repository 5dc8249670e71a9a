"""The reference's documents and pages: complete, linked, compressed, and within a strict policy."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any, Final

import httpx
import pytest
from nest_client import Client
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from services.gateway.code_examples import Call
from services.gateway.error_messages import MESSAGES
from services.gateway.http_calls import CALL, HttpCall
from services.gateway.methods import METHODS, PATHS
from services.gateway.openapi_view import NEWEST, Entry, OpenApiView
from services.gateway.reference import inline, markdown, routes
from services.gateway.versions import error_anchor

BASE: Final = "https://nest.example"
PAGES: Final = {"/reference": NEWEST, **{f"/reference/{date}": date for date in METHODS if date != NEWEST}}


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=routes(BASE))

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        call = HttpCall("request", scope["method"])
        await app({**scope, "state": {CALL: call, "request_id": "r"}}, receive, send)

    transport = httpx.ASGITransport(app=observed)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


@pytest.fixture(scope="module")
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


@pytest.fixture(scope="module")
def entries(document: dict[str, Any]) -> list[Entry]:
    """All entries of the newest version."""
    return [entry for _, group in OpenApiView(document, BASE).groups for entry in group]


class Parsed(HTMLParser):
    """IDs, links and open elements of a page, and the text of its code blocks."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        if tag not in {"meta", "link", "br", "img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.unclosed.append(tag)


async def test_documents_are_served_with_every_method_and_topic(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json()["openapi"] == "3.1.1"
    assert set(PATHS) <= set(response.json()["paths"])
    assert "auth.events" in (await client.get("/asyncapi.json")).json()["channels"]


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json", "/reference/events", *PAGES])
async def test_content_is_compressed_and_known_tags_get_304(client: httpx.AsyncClient, path: str) -> None:
    plain = await client.get(path, headers={"accept-encoding": "identity"})
    small = await client.get(path, headers={"accept-encoding": "br, gzip;q=0.5"})
    none = await client.get(path, headers={"accept-encoding": "gzip;q=0"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < 90_000 < int(plain.headers["content-length"])
    assert small.content == plain.content == none.content
    assert {each.headers["vary"] for each in (plain, small, none)} == {"accept-encoding"}
    assert "content-encoding" not in plain.headers.keys() | none.headers.keys()
    assert small.headers["etag"] != plain.headers["etag"] == none.headers["etag"]
    for first, encoding in ((plain, "identity"), (small, "gzip")):
        known = {"if-none-match": first.headers["etag"], "accept-encoding": encoding}
        assert ((await client.get(path, headers=known)).status_code, first.status_code) == (304, 200)
    assert "max-age" in plain.headers["cache-control"]


async def test_policy_allows_only_own_scripts_and_requests(client: httpx.AsyncClient) -> None:
    response = await client.get("/reference")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert response.headers.get_list("cache-control") == ["public, max-age=300"]
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", response.text)


async def test_static_files_are_kept_by_their_hash_and_others_do_not_exist(client: httpx.AsyncClient) -> None:
    page = (await client.get("/reference")).text
    files = set(re.findall(r'(?:src|href)="(/reference/static/[^"]+)"', page))
    assert {file.rpartition("/")[2] for file in files} >= {"reference.js", "try_it.js", "reference.css", "nest.css"}
    for file in files:
        response = await client.get(file)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    for path in ("/reference/static/missing.js", "/reference/static/../reference.py", "/reference/2026-12-02"):
        error = await client.get(path)
        assert (error.status_code, error.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", [*PAGES, "/reference/events"])
async def test_page_is_well_formed_and_its_links_have_targets(client: httpx.AsyncClient, path: str) -> None:
    page = Parsed((await client.get(path)).text)
    assert page.open == page.unclosed == []
    assert [each for each in set(page.ids) if page.ids.count(each) > 1] == []
    anchors = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert anchors - set(page.ids) == set()
    if path == "/reference/events":
        reference = Parsed((await client.get("/reference")).text)
        elsewhere = {link.partition("#")[2] for link in page.links if link.startswith("/reference#")}
        assert elsewhere
        assert elsewhere - set(reference.ids) == set()


@pytest.mark.parametrize(("path", "version"), PAGES.items())
async def test_page_has_an_entry_for_every_method_and_code(client: httpx.AsyncClient, path: str, version: str) -> None:
    text = (await client.get(path)).text
    found = re.findall(r'<details class="entry" id="([^"]+)">', text)
    rpc = {name for name in found if name in METHODS[NEWEST] | METHODS[version]}
    assert rpc == set(METHODS[version])
    assert "accounts_users_signin" in found
    contents = set(re.findall(r'<li><a href="#([^"]+)"', text))
    assert {*found, *map(error_anchor, MESSAGES)} <= contents
    others = [f'href="{each}"' for each in PAGES if each != path]
    assert all(each in text for each in others)


def test_every_code_says_what_it_means_and_what_to_do(document: dict[str, Any]) -> None:
    codes = {code.code: code for code in OpenApiView(document, BASE).codes}
    assert codes.keys() == MESSAGES.keys()
    # These are raised before a request reaches an operation, and docs/http-api.md explains them.
    reach_none = {"origin_not_allowed", "unknown_version", "version_not_supported"}
    assert {code for code, each in codes.items() if not each.meanings} <= reach_none | {"method_not_supported"}
    assert codes["client_already_exists"].statuses == ("409",)
    assert ("create_client", "create_client") in codes["client_already_exists"].entries


def test_operator_methods_have_their_own_group(document: dict[str, Any]) -> None:
    groups = {tag["name"]: {entry.id for entry in group} for tag, group in OpenApiView(document, BASE).groups}
    assert "list_dead_letters" in groups["Operators"]
    assert "send_magic_link" in groups["Login"]


def test_shell_examples_are_words_with_valid_json(entries: list[Entry]) -> None:
    for entry in entries:
        words = shlex.split(entry.examples[0].source)
        assert words[:2] == ["curl", "-s"]
        assert f"{BASE}{entry.path}" in words
        if "-d" in words:
            assert isinstance(json.loads(words[words.index("-d") + 1]), dict), entry.id
        assert ("-H" in words) == (entry.access != "anyone"), entry.id


def test_python_examples_call_methods_of_the_client_with_their_parameters(entries: list[Entry]) -> None:
    for entry in entries:
        tree = ast.parse(entry.examples[1].source)
        if entry.id not in METHODS[NEWEST]:
            continue
        (call,) = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and each is tree.body[-1].value]  # type: ignore[attr-defined]
        assert isinstance(call.func, ast.Attribute)
        method = getattr(Client, call.func.attr)
        inspect.signature(method).bind(None, **{each.arg: None for each in call.keywords})  # type: ignore[misc]


def test_typescript_examples_name_methods_in_camel_case(entries: list[Entry]) -> None:
    sources = {entry.id: entry.examples[2].source for entry in entries}
    assert 'new Client("https://nest.example");\nawait client.sendMagicLink({' in sources["send_magic_link"]
    assert "session(new FileStore(" in sources["get_user"]
    assert "{ internalKey: KEY }" in sources["create_client"]
    assert "await client.accountsUsersSignin({" in sources["accounts_users_signin"]
    assert 'fetch("https://nest.example/healthz")' in sources["healthz"]
    assert "fetch(" in sources["accounts_page"]


def test_older_versions_have_plain_requests_as_examples() -> None:
    call = Call("get_user_2021_10_06", "POST", BASE, "/1/2021-10-06/get_user", "bearer", {"user_id": "it's"})
    curl, python, typescript = (each.source for each in call.examples())
    assert shlex.split(curl)[-1] == json.dumps({"user_id": "it's"}, indent=2)
    assert 'headers={"authorization": f"bearer {TOKEN}"}' in python
    ast.parse(python)
    assert "authorization: `bearer ${TOKEN}`" in typescript


def test_webhooks_of_the_document_are_entries_without_a_form(document: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string", "description": "Kind."}},
    }
    operation = {
        "summary": "A user was created",
        "parameters": [{"name": "webhook-id", "in": "header", "description": "ID of the event."}],
        "requestBody": {"content": {"application/json": {"schema": schema, "example": {"type": "user.created"}}}},
        "responses": {"2XX": {"description": "Received."}, "410": {"description": "The endpoint is gone."}},
    }
    (entry,) = OpenApiView({**document, "webhooks": {"user.created": {"post": operation}}}, BASE).webhooks
    assert (entry.id, entry.name, entry.tried, entry.examples) == ("webhook-user.created", "user.created", False, [])
    assert entry.request == [
        ("webhook-id", "in the header", True, "ID of the event."),
        ("type", "string", True, "Kind."),
    ]
    assert [success.status for success in entry.successes] == ["2XX", "410"]
    assert json.loads(entry.body) == {"type": "user.created"}
    assert OpenApiView({**document, "webhooks": {"ping": {"post": {}}}}, BASE).webhooks[0].body == ""


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One `<b>`.\n\nTwo.", "<p>One <code>&lt;b&gt;</code>.</p>\n<p>Two.</p>"),
        ("- `a`: one\n- **b**", "<ul><li><code>a</code>: one</li><li><strong>b</strong></li></ul>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("", ""),
    ],
)
def test_markdown_is_escaped_and_rendered(text: str, html: str) -> None:
    assert markdown(text) == html


def test_inline_text_has_no_paragraph() -> None:
    assert inline("a `b`") == "a <code>b</code>"


async def test_first_requests_at_once_get_the_same_page(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(client.get("/reference/events") for _ in range(3)))
    assert len({response.headers["etag"] for response in responses}) == 1
