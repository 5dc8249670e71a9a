"""The Stripe double's checkout page in a browser: legible, and usable with the keyboard alone."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from services.stripe_double import StripeDouble
from tests.browser.accessibility import check_page
from tests.browser.conftest import open_tab

KEY = "sk_test_browser"


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """A Stripe account."""
    async with StripeDouble(api_key=KEY) as double:
        yield double


@pytest.fixture
async def tab(browser: Browser, double: StripeDouble) -> AsyncIterator[Page]:
    """A tab in a new profile."""
    async with open_tab(browser, double.url) as tab:
        yield tab


async def post(double: StripeDouble, path: str, **form: str) -> Any:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
        response = await client.post(double.url + path, data=form)
    assert response.status_code == 200, response.text
    return response.json()


async def open_session(double: StripeDouble) -> Any:
    """Create a session that leads back to a page of the double."""
    price = {"currency": "usd", "unit_amount": "500", "recurring[interval]": "month", "product_data[name]": "Beak"}
    item = {"line_items[0][price]": (await post(double, "/v1/prices", **price))["id"], "line_items[0][quantity]": "3"}
    urls = {"success_url": f"{double.url}/paid?id={{CHECKOUT_SESSION_ID}}", "cancel_url": f"{double.url}/plans"}
    customer = (await post(double, "/v1/customers", email="ada@example.com"))["id"]
    return await post(double, "/v1/checkout/sessions", mode="subscription", customer=customer, **item, **urls)


async def test_page_is_accessible(double: StripeDouble, tab: Page) -> None:
    await tab.goto((await open_session(double))["url"])
    await check_page(tab, "checkout")


async def test_person_pays_with_the_keyboard(double: StripeDouble, tab: Page) -> None:
    session = await open_session(double)
    await tab.goto(session["url"])
    await expect(tab.get_by_role("row", name="Beak")).to_have_text(re.compile(r"3\s*15\.00 USD"))
    # The first field has the focus.
    await tab.keyboard.type("4000000000000002")
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("alert")).to_have_text("Your card was declined.")
    await tab.get_by_label("Card number").fill("4000002760003184")
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Authenticate your payment")
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"**/paid?id={session['id']}")
    (subscription,) = double.objects("subscription")
    assert (subscription["status"], subscription["items"]["data"][0]["quantity"]) == ("active", 3)
    await tab.goto(session["url"])
    await expect(tab.get_by_role("heading", level=1)).to_have_text("This checkout is complete")
