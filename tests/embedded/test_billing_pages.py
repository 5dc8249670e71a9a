"""The billing playground over HTTP, with a Stripe double and an invented Nest."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from services.embedded.billing_pages import PATH, BillingPages
from services.embedded.playground import SWITCHES, Playground
from services.embedded.stripe import StripeUse
from services.stripe_double import StripeDouble
from shared.pages.pages import Pages
from tests.stripe_double.shop import START, Receiver, open_receiver, until

BASE = "http://127.0.0.1:8080"
KEY = "sk_test_playground"
VARIABLES = {"base_url": BASE, "client_id": "c", "version": "1", "logins": True, "docs": True}


@dataclass
class InventedNest:
    """Nest's records: a copy of Stripe's subscriptions, unless it is told otherwise."""

    double: StripeDouble
    states: dict[str, Any] = field(default_factory=dict)
    """Replies by user or address."""

    async def state(self, user_id: str | None, email: str | None) -> Any:
        """Return the reply for a user; None for an unknown one."""
        reply = self.states.get(user_id or email or "")
        if isinstance(reply, Exception):
            raise reply
        return reply


@dataclass
class Stage:
    """A playground, a browser on it, and the endpoint of the webhooks."""

    double: StripeDouble
    nest: InventedNest
    browser: httpx.AsyncClient
    receiver: Receiver
    price: str

    async def press(self, path: str, **fields: str) -> str:
        """Press a button as htmx does; return the new content."""
        response = await self.browser.post(f"{PATH}/{path}", data=fields, headers={"hx-request": "true"})
        assert response.status_code == 200, response.text
        return response.text

    def subscription(self, email: str = "ada@example.com", **options: Any) -> Any:
        """Subscribe somebody."""
        return self.double.simulate.checkout(self.price, email=email, **options)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with (
        open_receiver() as receiver,
        StripeDouble(api_key=KEY, webhook_secrets=["whsec_1"], webhook_url=receiver.url, start=START) as double,
    ):
        double.clock.freeze()
        nest = InventedNest(double)
        pages = Pages("services.embedded", static_path="/dev/static", variables=VARIABLES)
        use = StripeUse({}, f"{BASE}/1/webhook/stripe", double)
        app = Starlette(routes=BillingPages(pages, use, Playground(double, nest)).routes)  # type: ignore[arg-type]
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as browser,
            httpx.AsyncClient(base_url=double.url, auth=(KEY, "")) as api,
        ):
            form = {"currency": "eur", "unit_amount": "900", "recurring[interval]": "month"}
            made = await api.post("/v1/prices", data={**form, "product_data[name]": "Demo Pro"})
            await double.webhooks.drain()
            yield Stage(double, nest, browser, receiver, made.json()["id"])


def texts(page: str) -> str:
    """The text of a page, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def record_of(subscription: Any, **changes: Any) -> Any:
    """Nest's reply about the user of a subscription."""
    end = subscription["items"]["data"][0]["current_period_end"]
    item = {"product_name": "Demo Pro", "product_id": "prod_1", "quantity": 1}
    plan = {
        "status": subscription["status"],
        "entitled": True,
        "items": [item],
        "end_date": moment_of(end),
        "cancel_at": None,
        "grace_ends_at": None,
        **changes,
    }
    return {"status": plan["status"], "entitled": True, "features": ["export"], "plans": [plan]}


def moment_of(moment: int) -> str:
    """A Unix time as Nest writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


async def test_empty_page_says_what_to_do(stage: Stage) -> None:
    page = await stage.browser.get(PATH)
    assert "No customers yet" in page.text
    assert "Demo Pro, 9.00 EUR per month" in page.text
    assert "1 Jan 2026, 12:00 UTC" in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert f"form-action 'self' {stage.double.url}" in policy


async def test_page_shows_both_sides_and_whether_they_agree(stage: Stage) -> None:
    made = stage.subscription()
    assert "Nest has no user for this customer." in (await stage.browser.get(PATH)).text
    stage.nest.states["ada@example.com"] = record_of(made)
    page = texts((await stage.browser.get(PATH)).text)
    assert "Nest is in step" in page
    assert "In Stripe active Demo Pro, 9.00 EUR per month renews on 1 February 2026 Visa ending in 4242" in page
    assert "In Nest active Demo Pro renews on 1 February 2026 has access export" in page
    stage.double.simulate.cancel(made["id"])
    assert "Nest differs" in (await stage.browser.get(PATH)).text
    stage.nest.states["ada@example.com"] = httpx.ConnectError("down")
    assert "Nest does not answer." in (await stage.browser.get(PATH)).text


async def test_user_of_the_metadata_is_preferred_to_the_address(stage: Stage) -> None:
    made = stage.subscription(metadata={"user_id": "user_1"})
    stage.nest.states["user_1"] = record_of(made)
    assert "Nest is in step" in (await stage.browser.get(PATH)).text


async def test_poll_answers_only_if_something_changed(stage: Stage) -> None:
    page = (await stage.browser.get(PATH)).text
    (url,) = re.findall(r'hx-get="([^"]+)"', page)
    same = await stage.browser.get(url.replace("&amp;", "&"))
    assert (same.status_code, same.text) == (204, "")
    stage.subscription()
    assert "ada@example.com" in (await stage.browser.get(url.replace("&amp;", "&"))).text


@pytest.mark.parametrize(
    ("step", "now"),
    [
        ("day", "2 Jan 2026, 12:00 UTC"),
        ("month", "1 Feb 2026, 12:00 UTC"),
        # An hour later, when Stripe has charged.
        ("trial", "8 Jan 2026, 13:01 UTC"),
        ("renewal", "8 Jan 2026, 13:01 UTC"),
    ],
)
async def test_clock_moves_and_lists_what_moved(stage: Stage, step: str, now: str) -> None:
    made = stage.subscription(trial_days=7)
    page = texts(await stage.press("clock", step=step))
    assert f"Stripe's clock {now}" in page
    assert f"1 Jan 2026, 12:00 UTC to {now}" in page
    if step != "day":
        assert "invoice.paid" in page
        assert stage.double.object("subscription", made["id"])["status"] == "active"


async def test_clock_does_not_move_without_a_trial_or_renewal(stage: Stage) -> None:
    assert "There is no trial." in await stage.press("clock", step="trial")
    assert "No subscription renews." in await stage.press("clock", step="renewal")
    assert "There is no step back." in await stage.press("clock", step="back")


async def test_next_payment_declines_once(stage: Stage) -> None:
    made = stage.subscription()
    page = texts(await stage.press(f"customers/{made['customer']}/decline"))
    assert "next payment declines" in page
    page = texts(await stage.press("clock", step="renewal"))
    assert "past due" in page
    assert "next payment declines" not in page
    for _ in range(4):
        await stage.press("clock", step="day")
    assert stage.double.object("subscription", made["id"])["status"] == "active"
    assert "_declines_next" not in str(stage.double.objects("customer"))


async def test_declined_payment_can_be_withdrawn(stage: Stage) -> None:
    made = stage.subscription()
    await stage.press(f"customers/{made['customer']}/decline")
    await stage.press(f"customers/{made['customer']}/accept")
    await stage.press("clock", step="renewal")
    assert stage.double.object("subscription", made["id"])["status"] == "active"


async def test_last_payment_is_refunded_or_disputed_once(stage: Stage) -> None:
    made = stage.subscription()
    customer = made["customer"]
    assert "Opened a dispute over 9.00 EUR." in await stage.press(f"customers/{customer}/dispute")
    assert "charged back" in await stage.press(f"customers/{customer}/refund")
    assert "The dispute is won." in await stage.press(f"customers/{customer}/won")
    assert "No dispute is open." in await stage.press(f"customers/{customer}/lost")
    other = stage.double.simulate.pay_once(500, currency="eur", customer=customer)
    page = texts(await stage.press(f"customers/{customer}/refund"))
    assert "Refunded 5.00 EUR." in page
    assert "Last payment: 5.00 EUR , 1 January 2026 refunded" in page
    assert stage.double.objects("refund")[0]["payment_intent"] == other["id"]


@pytest.mark.parametrize("path", ["customers/cus_none/refund", "customers/cus_none/decline", "events/evt_none/resend"])
async def test_unknown_object_is_one_sentence(stage: Stage, path: str) -> None:
    assert "No such" in await stage.press(path)


async def test_failed_deliveries_are_retried_and_lost_ones_are_not(stage: Stage) -> None:
    page = texts(await stage.press("webhooks/fail", on="true"))
    assert "Fail is on" in page
    stage.subscription()
    await until(lambda: len(stage.double.deliveries) > 3)
    page = texts((await stage.browser.get(PATH)).text)
    assert "no answer" in page
    assert "retry at" in page
    assert "customer.created" not in stage.receiver.types
    assert "Lose is on" in await stage.press("webhooks/lose", on="true")
    stage.subscription("grace@example.com")
    assert re.search(
        r"customer\.created \S+ 1 Jan 2026, 12:00 UTC none in this run lost",
        texts((await stage.browser.get(PATH)).text),
    )


async def test_switches_combine_and_resend_repeats(stage: Stage) -> None:
    await stage.press("webhooks/duplicate", on="true")
    await stage.press("webhooks/shuffle", on="true")
    faults = stage.double.webhooks.faults
    assert (faults.copies, faults.shuffle_seconds) == (3, 5.0)
    await stage.press("webhooks/shuffle", on="false")
    assert (await stage.browser.get(PATH)).text.count('aria-checked="true"') == 1
    stage.subscription()
    await stage.double.webhooks.drain()
    (event,) = [each["id"] for each in stage.double.objects("event") if each["type"] == "customer.created"]
    assert stage.receiver.ids.count(event) == 3
    await stage.press("webhooks/duplicate", on="false")
    assert "Sent customer.created again." in await stage.press(f"events/{event}/resend")
    await stage.double.webhooks.drain()
    assert stage.receiver.ids.count(event) == 4
    assert "answered" in (await stage.browser.get(PATH)).text
    assert "There is no switch melt." in await stage.press("webhooks/melt", on="true")


def test_every_switch_sets_a_fault_that_exists() -> None:
    assert set(SWITCHES) == {"fail", "lose", "delay", "duplicate", "shuffle"}


async def test_form_opens_a_checkout_and_refuses_a_bad_address(stage: Stage) -> None:
    order = {"email": "ada@example.com", "price": stage.price, "trial": "14"}
    opened = await stage.browser.post(f"{PATH}/checkout", data=order)
    assert opened.status_code == 303
    async with httpx.AsyncClient() as browser:
        page = await browser.get(opened.headers["location"])
        assert "14 days free, then 9.00 EUR per month" in page.text
        paid = await browser.post(
            opened.headers["location"], data={"card": "4242424242424242", "email": order["email"]}
        )
    assert paid.headers["location"] == BASE + PATH
    for wrong in ({"price": "price_none"}, {"trial": "x"}):
        refused = await stage.browser.post(f"{PATH}/checkout", data={**order, **wrong})
        assert refused.headers["location"] == PATH
        assert 'class="note bad"' in (await stage.browser.get(PATH)).text


async def test_portal_link_opens_the_portal_of_the_customer(stage: Stage) -> None:
    made = stage.subscription()
    opened = await stage.browser.get(f"{PATH}/customers/{made['customer']}/portal")
    async with httpx.AsyncClient() as browser:
        page = (await browser.get(opened.headers["location"])).text
    assert f'href="{BASE}{PATH}"' in page
    assert (await stage.browser.get(f"{PATH}/customers/cus_none/portal")).status_code == 404


async def test_page_works_without_scripts(stage: Stage) -> None:
    response = await stage.browser.post(f"{PATH}/clock", data={"step": "day"})
    assert (response.status_code, response.headers["location"]) == (303, PATH)
    page = texts((await stage.browser.get(PATH)).text)
    assert "Moved to 2 Jan 2026, 12:00 UTC" in page
    assert "Moved to" not in texts((await stage.browser.get(PATH)).text)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": BASE},
    ],
)
async def test_foreign_page_moves_nothing(stage: Stage, headers: dict[str, str]) -> None:
    made = stage.subscription()
    before = stage.double.clock.offset
    for path in ("clock", f"customers/{made['customer']}/refund", "webhooks/lose", "checkout"):
        response = await stage.browser.post(f"{PATH}/{path}", data={"step": "day", "on": "true"}, headers=headers)
        assert response.status_code == 403
    assert stage.double.clock.offset == before
    assert stage.double.objects("refund") == []
    assert stage.double.webhooks.faults.loss_rate == 0
    assert stage.double.objects("checkout.session") == []


async def test_more_customers_are_shown_on_request(stage: Stage) -> None:
    for number in range(12):
        stage.subscription(f"ada{number}@example.com")
    page = (await stage.browser.get(PATH)).text
    assert page.count("<article") == 10
    assert f'href="{PATH}?shown=20"' in page
    assert (await stage.browser.get(f"{PATH}?shown=20")).text.count("<article") == 12
    assert (await stage.browser.get(f"{PATH}?shown=x")).text.count("<article") == 10


async def test_names_are_escaped(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.double.url, auth=(KEY, "")) as api:
        await api.post("/v1/customers", data={"name": "<script>alert(1)</script>"})
    assert "<script>alert" not in (await stage.browser.get(PATH)).text


async def test_real_account_has_instructions_instead(stage: Stage) -> None:
    pages = Pages("services.embedded", static_path="/dev/static", variables=VARIABLES)
    use = StripeUse({}, f"{BASE}/1/webhook/stripe", None, "sk_test_51AB")
    app = Starlette(routes=BillingPages(pages, use, None).routes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as browser:
        page = (await browser.get(PATH)).text
        assert f"stripe listen --forward-to {BASE}/1/webhook/stripe" in page
        assert "sk_test_51AB" in page
        assert (await browser.post(f"{PATH}/clock")).status_code == 404
