"""Links to the customer portal: in the subscription status, and their route."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from services.gateway import portal
from services.gateway.portal import LIFETIME_SECONDS, PortalLink, PortalLinks
from shared.mail import unsubscribe_token
from shared.messages.billing.invoices import GetInvoiceLink
from shared.messages.billing.subscriptions import CreatePortalSession
from shared.sealing import Sealer
from tests.gateway.conftest import ISSUER, GatewayStack
from tests.gateway.fake_services import Refused

LANGUAGES = ("en", "de", "fr", "es", "it")
STATUS: dict[str, Any] = {
    "status": "active",
    "billing_portal_url": None,
    "start_date": "2026-11-01T00:00:00.000Z",
    "end_date": "2026-12-01T00:00:00.000Z",
    "cancel_at": None,
    "cancel_type": None,
    "cancelled_at": None,
}
STATE: dict[str, Any] = {
    "status": "past_due",
    "payment_url": "link:payment:sub_1",
    "billing_portal_url": "link:portal",
    "nested": [{"pdf_url": "link:pdf:in_1", "hosted_url": "link:hosted:in_1", "name": "link:portal"}],
    "other_url": "link:of:another-kind",
    "empty_url": None,
}
"""A view with placeholders."""
STRIPE_URL = "https://billing.stripe.com/p/session/test_1"
INVOICE_URL = "https://invoice.stripe.com/i/test_1"


class Clock:
    """A clock that is set by hand, in Unix seconds."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def billing(stack: GatewayStack) -> None:
    stack.services.replies["billing.get-subscription-status"] = lambda _envelope: STATUS
    session = stack.services.sealer.seal("gateway", json.dumps({"url": STRIPE_URL}).encode())
    stack.services.replies["billing.create-portal-session"] = lambda _envelope: session.encode()
    invoice = stack.services.sealer.seal("gateway", json.dumps({"url": INVOICE_URL}).encode())
    stack.services.replies["billing.get-invoice-link"] = lambda _envelope: invoice.encode()
    state = stack.services.sealer.seal("gateway", json.dumps(STATE).encode())
    stack.services.replies["billing.get-subscription-state"] = lambda _envelope: state.encode()


async def link(stack: GatewayStack, **headers: str) -> str:
    response = await stack.http.post(
        "/1/2021-10-06/get_subscription_status", json={"user_id": "user_1"}, headers=headers or stack.bearer()
    )
    assert response.status_code == 200, response.text
    body = response.json()
    url: str = body.pop("billing_portal_url")
    assert body == {name: value for name, value in STATUS.items() if name != "billing_portal_url"}
    return url


async def test_status_has_a_link_of_the_gateway(stack: GatewayStack) -> None:
    url = await link(stack)
    assert re.fullmatch(re.escape(ISSUER) + r"/portal/k1\.[A-Za-z0-9_=-]+", url)
    links = PortalLinks(stack.services.sealer, ISSUER)
    assert links.read(url.rpartition("/")[2]) == PortalLink("user_1", "client_1")


async def test_link_of_a_back_end_names_no_client(stack: GatewayStack) -> None:
    url = await link(stack, **stack.internal)
    assert PortalLinks(stack.services.sealer, ISSUER).read(url.rpartition("/")[2]) == PortalLink("user_1", None)


async def test_link_that_billing_created_is_kept(stack: GatewayStack) -> None:
    stack.services.replies["billing.get-subscription-status"] = lambda _: {**STATUS, "billing_portal_url": STRIPE_URL}
    assert await link(stack) == STRIPE_URL


async def test_refusal_has_no_link(stack: GatewayStack) -> None:
    stack.services.replies["billing.get-subscription-status"] = lambda _: Refused("not_found", "no_active_subscription")
    response = await stack.http.post(
        "/1/2021-10-06/get_subscription_status", json={"user_id": "user_1"}, headers=stack.bearer()
    )
    assert response.status_code == 404
    assert "portal" not in response.text


@pytest.mark.parametrize("status", ["past_due", "unpaid", "paused"])
async def test_refusal_for_a_subscription_that_can_be_resumed_has_a_link(stack: GatewayStack, status: str) -> None:
    stack.services.replies["billing.get-subscription-status"] = lambda _: Refused(
        "not_found", "no_active_subscription", status=status, billing_portal_url=None, payment_url="https://i.example"
    )
    response = await stack.http.post(
        "/1/2021-10-06/get_subscription_status", json={"user_id": "user_1"}, headers=stack.bearer()
    )
    body = response.json()
    assert (response.status_code, body["code"]) == (404, "no_active_subscription")
    assert (body["meta"]["status"], body["meta"]["payment_url"]) == (status, "https://i.example")
    token = body["meta"]["billing_portal_url"].removeprefix(f"{ISSUER}/portal/")
    assert PortalLinks(stack.services.sealer, ISSUER).read(token) == PortalLink("user_1", "client_1")


async def state(stack: GatewayStack) -> dict[str, Any]:
    """The state of the bearer's subscription, in the newest version."""
    response = await stack.http.post("/1/2026-12-01/get_subscription_status", headers=stack.bearer())
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_placeholders_of_links_become_links_of_the_gateway(stack: GatewayStack) -> None:
    links, body = PortalLinks(stack.services.sealer, ISSUER), await state(stack)
    assert links.read(body["billing_portal_url"].removeprefix(f"{ISSUER}/portal/")) == PortalLink("user_1", "client_1")
    (nested,) = body["nested"]
    for url, target in (
        (body["payment_url"], {"subscription_id": "sub_1"}),
        (nested["pdf_url"], {"invoice_id": "in_1", "page": "pdf"}),
        (nested["hosted_url"], {"invoice_id": "in_1", "page": "hosted"}),
    ):
        assert links.invoice_query(url.removeprefix(f"{ISSUER}/invoice/")) == GetInvoiceLink(
            user_id="user_1", client_id="client_1", **target
        )
    # Only fields for links are completed, and only with known links.
    assert (nested["name"], body["other_url"], body["empty_url"]) == ("link:portal", "link:of:another-kind", None)


async def test_opening_an_invoice_link_redirects_to_the_invoice(stack: GatewayStack) -> None:
    body = await state(stack)
    stack.services.received.clear()
    response = await stack.http.get(body["payment_url"].removeprefix(ISSUER))
    assert (response.status_code, response.headers["location"]) == (303, INVOICE_URL)
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"
    (query,) = stack.services.received
    assert GetInvoiceLink.model_validate_json(query.body) == GetInvoiceLink(
        user_id="user_1", client_id="client_1", subscription_id="sub_1"
    )
    # A token of one kind opens nothing of the other.
    assert (
        await stack.http.get(body["payment_url"].removeprefix(ISSUER).replace("invoice", "portal"))
    ).status_code == 404
    assert (
        await stack.http.get(body["billing_portal_url"].removeprefix(ISSUER).replace("portal", "invoice"))
    ).status_code == 404


async def test_opening_a_link_redirects_to_a_new_session(stack: GatewayStack) -> None:
    path = (await link(stack)).removeprefix(ISSUER)
    stack.services.received.clear()
    for _ in range(2):
        response = await stack.http.get(path, headers={"authorization": "bearer of.bad.news"})
        assert (response.status_code, response.headers["location"]) == (303, STRIPE_URL)
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-robots-tag"] == "noindex"
    first, second = stack.services.received
    assert CreatePortalSession.model_validate_json(first.body) == CreatePortalSession(
        user_id="user_1", client_id="client_1"
    )
    assert first.id != second.id
    assert first.caller.kind == "anonymous"


async def test_head_creates_no_session(stack: GatewayStack) -> None:
    path = (await link(stack)).removeprefix(ISSUER)
    stack.services.received.clear()
    assert (await stack.http.head(path)).status_code == 200
    assert (await stack.http.head("/portal/broken")).status_code == 404
    assert stack.services.received == []


def test_link_works_for_an_hour() -> None:
    clock = Clock()
    links = PortalLinks(Sealer({"k1": bytes(32)}), ISSUER, clock)
    token = links.url("user_1", None).rpartition("/")[2]
    clock.now += LIFETIME_SECONDS - 1
    assert links.read(token) == PortalLink("user_1", None)
    clock.now += 1
    assert links.read(token) is None


async def test_expired_or_forged_link_gives_404(stack: GatewayStack) -> None:
    sealer, clock = stack.services.sealer, Clock()
    clock.now = 0
    token = (await link(stack)).rpartition("/")[2]
    stack.services.received.clear()
    for forged in (
        PortalLinks(sealer, ISSUER, clock).url("user_1", None).rpartition("/")[2],
        PortalLinks(Sealer({"k1": bytes(range(32))}), ISSUER).url("user_1", None).rpartition("/")[2],
        token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB"),
        token.replace(".", "..", 1),
        "user_1",
        "%00",
        "k1." + "A" * 400,
        "k1." + "A" * 9000,
        # Sealed with the same key for another purpose.
        unsubscribe_token(sealer, "user_1"),
        sealer.seal("gateway", b'["user_1",null,9999999999]'),
    ):
        response = await stack.http.get(f"/portal/{forged}")
        assert response.status_code == 404, forged
        assert "does not work any more" in response.text, forged
    assert (await stack.http.post(f"/portal/{token}")).status_code == 405
    assert stack.services.received == []


@pytest.mark.parametrize(
    ("refused", "status", "text"),
    [
        (Refused("unavailable", "unavailable"), 503, "Please try again in a minute"),
        (Refused("throttled", "too_many_portal_sessions", retry_after=590), 429, "Please try again later"),
        (Refused("not_found", "not_found"), 404, "does not work any more"),
    ],
)
async def test_failure_shows_a_page_that_says_what_to_do(
    stack: GatewayStack, refused: Refused, status: int, text: str
) -> None:
    path = (await link(stack)).removeprefix(ISSUER)
    stack.services.replies["billing.create-portal-session"] = lambda _envelope: refused
    response = await stack.http.get(path)
    assert response.status_code == status
    assert text in response.text
    if status == 429:
        assert response.headers["retry-after"] == "590"
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert response.headers["content-security-policy"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert not re.search(r"<script|src=|style=|http-equiv|<form", response.text)


async def test_link_is_never_logged(stack: GatewayStack) -> None:
    path = (await link(stack)).removeprefix(ISSUER)
    stack.services.replies["billing.create-portal-session"] = lambda _: Refused("unavailable", "unavailable")
    with capture_logs() as logs:
        await stack.http.get(path)
        await stack.http.get(f"{path}x")
    assert path.rpartition("/")[2] not in repr(logs)


async def test_page_has_the_language_of_the_browser(stack: GatewayStack) -> None:
    for language in LANGUAGES:
        response = await stack.http.get("/portal/broken", headers={"accept-language": language})
        assert response.headers["content-language"] == language


def test_every_language_has_every_text() -> None:
    texts = tomllib.loads((Path(portal.__file__).parent / "templates" / "portal.toml").read_text())
    assert set(texts) == set(LANGUAGES)
    for of_language in texts.values():
        assert set(of_language) == {"title", *get_args(portal.State)}
