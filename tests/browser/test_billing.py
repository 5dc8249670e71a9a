"""The billing playground, and the pages of the Stripe double that it leads to."""

from __future__ import annotations

import os
import re

from playwright.async_api import Locator, Page, expect

from tests.browser.accessibility import SCREENSHOTS, check_page
from tests.nest_up import NestUp

EMAIL = "ada.lovelace@example.com"
PATIENT = 30_000
"""Milliseconds for what Nest does after an event, beside other tests."""


def customer(page: Page) -> Locator:
    """The part of the playground about the person."""
    return page.get_by_role("article", name=EMAIL)


async def picture(page: Page, name: str) -> None:
    """Check and picture another state of a page, if pictures are wanted."""
    if os.environ.get(SCREENSHOTS):
        await check_page(page, name)


async def in_step(page: Page, stripe: str, nest: str) -> None:
    """Wait until both sides show these texts, and the page says that they agree."""
    await expect(customer(page).get_by_label("In Stripe")).to_contain_text(stripe, timeout=PATIENT)
    await expect(customer(page).get_by_label("In Nest")).to_contain_text(nest, timeout=PATIENT)
    await expect(customer(page).get_by_text("Nest is in step")).to_be_visible(timeout=PATIENT)


async def test_person_subscribes_manages_the_plan_and_fails_to_pay(page: Page, nest: NestUp) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if "//127.0.0.1:" not in request.url else None)
    await page.goto("/dev/billing")
    await picture(page, "billing-first")

    # Checkout: a declined card, then one that needs 3D Secure.
    await page.get_by_label("Email").fill(EMAIL)
    await page.get_by_role("button", name="Open Checkout").click()
    await page.get_by_label("Card number").fill("4000 0000 0000 0002")
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("alert")).to_have_text("Your card was declined.")
    await check_page(page, "stripe-checkout")
    await page.get_by_role("button", name="4000 0027 6000 3184").click()
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Authenticate your payment")
    await check_page(page, "stripe-authentication")
    await page.get_by_role("button", name="Complete authentication").click()
    await page.wait_for_url("**/dev/billing")
    await in_step(page, "active Demo Pro", "has access")
    await picture(page, "billing-customer")

    # Portal: change the quantity, cancel, resume, replace the card, see the invoice.
    await customer(page).get_by_role("link", name="Open the portal").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Manage your billing")
    await check_page(page, "stripe-portal")
    await page.get_by_role("link", name="Update subscription").click()
    await page.get_by_role("spinbutton", name="Quantity").fill("3")
    await check_page(page, "stripe-portal-plans")
    await page.get_by_role("button", name=re.compile("Change quantity")).click()
    await expect(page.get_by_role("row", name="Amount due today")).to_contain_text("18.00 EUR")
    await check_page(page, "stripe-portal-confirm")
    await page.get_by_role("button", name="Confirm").click()
    # The bank would have to be asked again.
    await expect(page.get_by_role("alert")).to_contain_text("declined")
    await page.get_by_role("link", name="Go back").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Update your subscription")
    await page.get_by_role("link", name="Go back").click()
    await page.get_by_role("link", name="Update payment method").click()
    await page.get_by_label("Card number").fill("5555 5555 5555 4444")
    await check_page(page, "stripe-portal-card")
    await page.get_by_role("button", name="Save card").click()
    await expect(page.get_by_text("Mastercard ending in 4444")).to_be_visible()
    await page.get_by_role("link", name="Update subscription").click()
    await page.get_by_role("spinbutton", name="Quantity").fill("3")
    await page.get_by_role("button", name=re.compile("Change quantity")).click()
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("status")).to_have_text("Your subscription has been updated.")
    await page.get_by_role("link", name="Cancel subscription").click()
    await page.get_by_label("It's too expensive").check()
    await check_page(page, "stripe-portal-cancel")
    await page.get_by_role("button", name="Cancel subscription").click()
    await expect(page.get_by_text("Your subscription will be canceled on")).to_be_visible()
    await picture(page, "stripe-portal-canceled")
    await page.get_by_role("button", name="Don't cancel subscription").click()
    await expect(page.get_by_role("status")).to_have_text("Your subscription has been renewed.")
    await page.get_by_role("table").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Invoice paid")).to_be_visible()
    await picture(page, "stripe-invoice-paid")
    await page.get_by_role("link", name="Show receipt").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Receipt")
    await check_page(page, "stripe-receipt")
    await page.goto("/dev/billing")
    await in_step(page, "Mastercard ending in 4444", "has access")

    # Clock: the renewal is declined once, and paid on its page.
    await customer(page).get_by_role("button", name="Decline the next payment").click()
    await expect(customer(page).get_by_label("In Stripe")).to_contain_text("next payment declines")
    await page.get_by_role("button", name="To the next renewal").click()
    await in_step(page, "past due", "past due")
    await expect(page.get_by_role("table").get_by_text("invoice.payment_failed").first).to_be_visible()
    await check_page(page, "billing-past-due")
    await customer(page).get_by_role("link", name="Open the portal").click()
    await page.get_by_role("link", name="Pay the invoice").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Invoice ")
    await check_page(page, "stripe-invoice-open")
    await page.get_by_label("Card number").fill("4242 4242 4242 4242")
    await page.get_by_role("button", name="Pay 27.00 EUR").click()
    await expect(page.get_by_role("heading", name="Invoice paid")).to_be_visible()

    # A dispute while webhooks are lost, and the log that sends them again.
    await page.goto("/dev/billing")
    await in_step(page, "active", "active")
    lose = page.get_by_role("switch", name="Lose")
    await lose.click()
    await expect(lose).to_have_attribute("aria-checked", "true")
    await customer(page).get_by_role("button", name="Dispute the last payment").click()
    await expect(page.get_by_role("status").first).to_contain_text("Opened a dispute over 27.00 EUR.")
    lost = page.get_by_role("row", name="charge.dispute.created")
    await expect(lost).to_contain_text("lost")
    await lose.click()
    await expect(lose).to_have_attribute("aria-checked", "false")
    await lost.get_by_role("button", name="Resend").click()
    await expect(lost).to_contain_text("200", timeout=PATIENT)
    await picture(page, "billing-dispute")
    assert foreign == []
