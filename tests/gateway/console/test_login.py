"""Login of operators, at a gateway of its own with stand-ins for the services."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from services.gateway.app import create
from services.gateway.console.cookies import SealedCookie
from services.gateway.console.sessions import ABSOLUTE_SECONDS, CLIENT_ID, IDLE_SECONDS
from services.gateway.settings import GatewaySettings
from shared.messages import MESSAGES
from shared.sealing import Sealer
from tests.gateway.conftest import ISSUER, GatewayStack, client
from tests.gateway.fake_services import Refused
from tests.stack import eventually

ADDRESS = "ada@example.com"
SEND = "auth.send-magic-link-and-code"
REDEEM = "auth.redeem-grant"
USER_ID = "user_operator"


@dataclass
class Browser:
    """A browser at the console: keeps cookies, and sends what a browser sends with a form."""

    http: httpx.AsyncClient
    origin: str = ISSUER
    cookies: dict[str, str] = field(default_factory=dict)
    set_cookies: list[str] = field(default_factory=list)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self._send("GET", path, None, headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        usual = {
            "content-type": "application/x-www-form-urlencoded",
            "origin": self.origin,
            "sec-fetch-site": "same-origin",
        }
        sent = {name: value for name, value in {**usual, **named}.items() if value}
        return await self._send("POST", path, urlencode(form).encode(), sent)

    async def csrf(self, path: str) -> str:
        return csrf_of(await self.get(path))

    async def _send(self, verb: str, path: str, content: bytes | None, headers: dict[str, str]) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self.http.request(verb, path, content=content, headers={"cookie": cookies, **headers})
        for header in response.headers.get_list("set-cookie"):
            self.set_cookies.append(header)
            name, _, value = header.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return response


def csrf_of(response: httpx.Response) -> str:
    (token, *_) = re.findall(r'name="csrf" value="([^"]+)"', response.text)
    return str(token)


@dataclass
class Consoles:
    """Gateways with a login for operators."""

    stack: GatewayStack
    http: httpx.AsyncClient
    sealer: Sealer

    def browser(self) -> Browser:
        return Browser(self.http)

    def sent(self) -> list[dict[str, Any]]:
        """Bodies of the orders of magic links."""
        return [
            MESSAGES[SEND].model_validate_json(each.body).model_dump()
            for each in self.stack.services.received
            if each.wire == SEND
        ]

    def sealed(self, tokens: dict[str, Any]) -> bytes:
        """The reply with tokens, as auth seals it."""
        return self.sealer.seal("gateway", json.dumps(tokens).encode()).encode()

    def tokens(self) -> dict[str, Any]:
        return {
            "access_token": self.stack.signer.token(USER_ID, aud=CLIENT_ID),
            "expires_in": 3600,
            "expires_at": "2026-12-01T00:00:00.000Z",
            "refresh_token": "reftok_1.secret",
            "user_id": USER_ID,
            "client_id": CLIENT_ID,
        }

    async def state(self, browser: Browser, address: str = ADDRESS) -> str:
        """Ask for a link and return the state in it."""
        already = len(self.sent())
        form = {"csrf": await browser.csrf("/console/login"), "email": address}
        assert (await browser.post("/console/login", form)).status_code == 200
        sent = await eventually(lambda: self.sent()[already:], what="an ordered mail")
        return str(sent[0]["state"])

    async def log_in(self) -> Browser:
        browser = self.browser()
        opened = await browser.get(f"/console/callback?state={await self.state(browser)}&code=c.1")
        redeemed = await browser.post("/console/callback", {"csrf": csrf_of(opened), "code": "c.1"})
        assert (redeemed.status_code, redeemed.headers["location"]) == (303, "/console")
        return browser


@pytest.fixture(scope="module")
async def console_http(
    shared_stack: GatewayStack, make_settings: Callable[..., GatewaySettings]
) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(
        topic_prefix=shared_stack.settings.topic_prefix, operators=f"ada:{ADDRESS}, ben@example.com"
    )
    async with create(settings) as gateway:
        await shared_stack.publish(client(CLIENT_ID))
        headers = {"host": "nest.test"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway.port}", headers=headers, timeout=20.0
        ) as http:
            yield http


@pytest.fixture
def console(stack: GatewayStack, console_http: httpx.AsyncClient) -> Consoles:
    consoles = Consoles(stack, console_http, Sealer(stack.settings.master_keys()))
    identifier = {
        "id": "identifier_1",
        "identifier_type": "email",
        "identifier_value": ADDRESS,
        "created_at": "2026-11-01T00:00:00.000Z",
        "updated_at": "2026-11-01T00:00:00.000Z",
        "verified_at": "2026-11-01T00:00:00.000Z",
        "removed_at": None,
    }
    user = {"id": USER_ID, "created_at": "2026-11-01T00:00:00.000Z", "identifiers": [identifier]}
    stack.services.replies["auth.get-user"] = lambda _: user
    stack.services.replies[REDEEM] = lambda _: consoles.sealed(consoles.tokens())
    return consoles


async def test_operator_logs_in_with_the_link_of_the_mail(console: Consoles) -> None:
    browser = console.browser()
    assert (await browser.get("/console")).headers["location"] == "/console/login"
    state = await console.state(browser)
    opened = await browser.get(f"/console/callback?state={state}&code=c.1")
    assert ADDRESS in opened.text
    assert not [each for each in console.stack.services.received if each.wire == REDEEM], "opening redeems nothing"

    redeemed = await browser.post("/console/callback", {"csrf": csrf_of(opened), "code": "c.1"})

    assert redeemed.status_code == 303
    (session,) = [each for each in browser.set_cookies if each.startswith("__Host-nest-console=")]
    assert {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"} <= set(session.split("; "))
    assert "Domain" not in session
    home = await browser.get("/console")
    assert home.status_code == 200
    assert ADDRESS in home.text


async def test_page_is_the_same_for_every_address(console: Consoles) -> None:
    pages = []
    for address in (ADDRESS, "mallory@example.com"):
        browser = console.browser()
        form = {"csrf": await browser.csrf("/console/login"), "email": address}
        response = await browser.post("/console/login", form)
        csrf = csrf_of(response)
        pages.append((response.status_code, response.text.replace(csrf, "").replace(address, "")))
        assert "__Host-nest-console-login" in browser.cookies
    assert pages[0] == pages[1]
    await eventually(console.sent)
    assert [each["identifier_value"] for each in console.sent()] == [ADDRESS]


async def test_refused_mail_is_not_told_from_a_sent_one(console: Consoles) -> None:
    console.stack.services.replies[SEND] = lambda _: Refused("throttled", "throttled", retry_after=60)
    browser = console.browser()
    form = {"csrf": await browser.csrf("/console/login"), "email": ADDRESS}
    assert (await browser.post("/console/login", form)).status_code == 200
    await eventually(console.sent)


async def test_client_is_registered_before_the_first_mail(console: Consoles) -> None:
    registered: list[str] = []

    def send(_: Any) -> Any:
        return None if registered else Refused("not_found", "client_not_found")

    def create_client(envelope: Any) -> Any:
        registered.append(envelope.body.decode())
        return {}

    console.stack.services.replies |= {SEND: send, "auth.create-client": create_client}
    await console.state(console.browser())
    await eventually(lambda: len(console.sent()) == 2)
    assert f"{ISSUER}/console/callback" in registered[0]
    (created,) = [each for each in console.stack.services.received if each.wire == "auth.create-client"]
    assert created.caller.key_name == "console:gateway"


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ({}, "own", 200),
        ({"origin": ""}, "own", 200),
        ({"sec_fetch_site": ""}, "own", 200),
        ({}, "k1." + "0" * 64, 403),
        ({"origin": "https://evil.example"}, "own", 403),
        ({"origin": "null"}, "own", 403),
        ({"sec_fetch_site": "cross-site"}, "own", 403),
        ({"sec_fetch_site": "same-site"}, "own", 403),
        ({"origin": "", "sec_fetch_site": ""}, "own", 403),
        ({"origin": "", "sec_fetch_site": "none"}, "own", 403),
        ({"host": "evil.example"}, "own", 421),
        ({"content_type": "text/plain"}, "own", 415),
        ({"content_type": "application/json"}, "own", 415),
    ],
)
async def test_forged_requests_order_no_mail(
    console: Consoles, headers: dict[str, str], token: str, status: int
) -> None:
    browser = console.browser()
    own = await browser.csrf("/console/login")
    form = {"email": ADDRESS, "csrf": own if token == "own" else token}
    assert (await browser.post("/console/login", form, **headers)).status_code == status
    if status == 200:
        await eventually(console.sent)
    else:
        assert console.sent() == []


@pytest.mark.parametrize(
    ("query", "browser_of"),
    [("code=c.1&state={state}", "another"), ("code=c.1&state=other", "asker"), ("code=c.1", "asker")],
    ids=("another browser", "another state", "no state"),
)
async def test_link_works_in_the_browser_that_asked_alone(console: Consoles, query: str, browser_of: str) -> None:
    browser = console.browser()
    state = await console.state(browser)
    if browser_of == "another":
        browser.cookies.clear()
    opened = await browser.get(f"/console/callback?{query.format(state=state)}")
    assert opened.status_code == 400
    assert 'name="code"' not in opened.text


async def test_callback_cannot_be_replayed(console: Consoles) -> None:
    browser = console.browser()
    opened = await browser.get(f"/console/callback?state={await console.state(browser)}&code=c.1")
    form = {"csrf": csrf_of(opened), "code": "c.1"}
    kept = dict(browser.cookies)
    assert (await browser.post("/console/callback", form)).status_code == 303
    assert (await browser.post("/console/callback", form)).status_code == 403, "the cookie is gone"
    console.stack.services.replies[REDEEM] = lambda _: Refused("conflict", "token_used")
    browser.cookies = kept
    replayed = await browser.post("/console/callback", form)
    assert replayed.status_code == 409
    assert "__Host-nest-console" not in browser.cookies


async def test_code_of_another_person_begins_no_session(console: Consoles) -> None:
    """A person who is no operator redeems a code of her own in a login of an operator's address."""
    other = {"id": "user_other", "created_at": "2026-11-01T00:00:00.000Z", "identifiers": []}
    console.stack.services.replies["auth.get-user"] = lambda _: other
    browser = console.browser()
    opened = await browser.get(f"/console/callback?state={await console.state(browser)}&code=c.1")
    assert (await browser.post("/console/callback", {"csrf": csrf_of(opened), "code": "c.1"})).status_code == 403
    assert "__Host-nest-console" not in browser.cookies


async def test_acts_have_the_name_of_the_operator_in_the_audit(console: Consoles) -> None:
    browser = await console.log_in()
    await browser.get("/console/people/user_1")
    callers = [each.caller for each in console.stack.services.received if each.caller.kind == "internal"]
    assert {caller.key_name for caller in callers} == {"console:ada"}


async def test_log_out_ends_the_session_in_nest(console: Consoles) -> None:
    browser = await console.log_in()
    csrf = await browser.csrf("/console")
    console.stack.services.replies["auth.revoke-sessions"] = lambda _: {"ended": 1}
    assert (await browser.post("/console/logout", {"csrf": "wrong"})).status_code == 403
    assert (await browser.post("/console/logout", {"csrf": csrf})).status_code == 303
    assert "__Host-nest-console" not in browser.cookies
    (revoked,) = [each for each in console.stack.services.received if each.wire == "auth.revoke-sessions"]
    assert (revoked.caller.kind, revoked.caller.user_id) == ("user", USER_ID)


async def test_ended_session_needs_a_login(console: Consoles) -> None:
    tokens = console.tokens()
    console.stack.services.replies[REDEEM] = lambda _: console.sealed(tokens)
    browser = await console.log_in()
    console.stack.services.replies[REDEEM] = lambda _: Refused("conflict", "token_used")
    await console.stack.revoke(tokens["access_token"])

    async def needs_login() -> bool:
        return (await browser.get("/console")).status_code == 303

    await eventually(needs_login, within=20)
    assert (await browser.get("/console", **{"hx-request": "true"})).headers["hx-redirect"] == "/console/login"


async def test_expiring_access_token_is_refreshed(console: Consoles) -> None:
    console.stack.services.replies[REDEEM] = lambda _: console.sealed(console.tokens() | {"expires_in": 30})
    browser = await console.log_in()
    console.stack.services.replies[REDEEM] = lambda _: console.sealed(console.tokens())
    before = browser.cookies["__Host-nest-console"]
    assert (await browser.get("/console")).status_code == 200
    assert browser.cookies["__Host-nest-console"] != before
    grants = [each for each in console.stack.services.received if each.wire == REDEEM]
    assert len(grants) == 2
    assert (await browser.get("/console")).status_code == 200
    assert len([each for each in console.stack.services.received if each.wire == REDEEM]) == 2


def session(console: Consoles, *, age: float = 0, name: str = "__Host-nest-console", **changed: Any) -> str:
    """A cookie that was made some seconds ago."""
    then = time.time() - age
    content = {
        "id": "0" * 32,
        "address": ADDRESS,
        "user_id": USER_ID,
        "started_at": int(then),
        "seen_at": int(then),
        "access_token": console.tokens()["access_token"],
        "expires_at": int(time.time()) + 3600,
        "refresh_token": "reftok_1.secret",
    } | changed
    cookie = SealedCookie(
        console.sealer, name, seconds=IDLE_SECONDS, same_site="Strict", secure=True, clock=lambda: then
    )
    return cookie.header(content)[1].decode().partition(";")[0].partition("=")[2]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 200),
        ({"age": IDLE_SECONDS - 30}, 200),
        ({"age": IDLE_SECONDS + 1}, 303),
        ({"started_at": int(time.time()) - ABSOLUTE_SECONDS - 1}, 303),
        ({"address": "removed@example.com"}, 303),
        ({"name": "__Host-nest-console-login"}, 303),
        ({"unknown": "of another release"}, 303),
    ],
    ids=("valid", "nearly idle", "idle", "too old", "removed operator", "another cookie's", "another release"),
)
async def test_cookie_is_a_session_within_its_bounds_alone(
    console: Consoles, options: dict[str, Any], status: int
) -> None:
    browser = console.browser()
    browser.cookies["__Host-nest-console"] = session(console, **options)
    assert (await browser.get("/console")).status_code == status


@pytest.mark.parametrize("value", ["", "k1.", "k1.AAAA", "k9.AAAA", "x" * 5000, "k1." + "A" * 3000])
async def test_damaged_cookie_is_no_session(console: Consoles, value: str) -> None:
    browser = console.browser()
    browser.cookies["__Host-nest-console"] = value
    assert (await browser.get("/console")).status_code == 303


async def test_form_of_another_session_is_refused(console: Consoles) -> None:
    mine, other = console.browser(), console.browser()
    mine.cookies["__Host-nest-console"] = session(console)
    other.cookies["__Host-nest-console"] = session(console, id="1" * 32)
    form = {"csrf": await other.csrf("/console")}
    assert (await mine.post("/console/people/user_1/end-sessions", form)).status_code == 403
