"""The operators' pages of the console on a running Nest, by hand and by axe-core."""

from __future__ import annotations

import re
from typing import Final

import httpx
from playwright.async_api import Page, expect

from tests.browser.accessibility import check_page
from tests.nest_up import NestUp

LISTS: Final = (
    *(
        "clients",
        "plans",
        "news",
        "webhooks",
        "webhooks/deliveries",
        "deliveries",
        "suppressions",
        "payments",
        "disputes",
        "subscriptions",
    ),
    *("stripe/runs", "system", "dead-letters", "partitions", "keys", "limits", "audit"),
)


async def test_operator_registers_a_client_with_branding_and_news(page: Page, nest: NestUp) -> None:
    await page.goto("/console/clients")
    await page.get_by_label("Name of the app").fill("Walk <b>")
    await page.get_by_label("Redirect URIs").fill("http://127.0.0.1:3000/callback\nnonsense")
    await page.get_by_role("button", name="Register the client").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_label("Name of the app")).to_have_value("Walk <b>")
    await page.get_by_label("Redirect URIs").fill("http://127.0.0.1:3000/callback\ncom.example.walk:/callback")
    await page.get_by_role("button", name="Register the client").click()
    await expect(page.get_by_role("status")).to_contain_text("registered")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Walk <b>")
    await expect(page.get_by_role("button", name="Copy")).to_be_visible()
    client_id = page.url.rpartition("/")[2]
    await page.get_by_text("Remove", exact=True).last.click()
    await page.get_by_role("button", name="Remove the redirect URI").last.click()
    await expect(page.get_by_role("status")).to_contain_text("removed")
    await expect(page.get_by_text("com.example.walk:/callback")).to_have_count(0)
    await check_page(page, "console-client")

    await page.get_by_role("link", name="Branding of its mails").click()
    await page.get_by_label("Name of the product").fill("Walkers")
    await page.get_by_label("Colour of buttons").fill("#0a7d4f")
    mail = page.frame_locator("iframe.mail")
    await expect(mail.locator("body")).to_contain_text("Walkers")
    await page.get_by_label("Colour of buttons").fill("green")
    await expect(page.locator("#preview").get_by_role("alert")).to_contain_text("accent_colour")
    await page.get_by_label("Colour of buttons").fill("#0a7d4f")
    await expect(mail.locator("body")).to_contain_text("Walkers")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("branding")
    await expect(mail.locator("body")).to_contain_text("Walkers")
    await check_page(page, "console-branding")

    await page.goto("/console/news/new")
    await page.get_by_label("Title").fill("Hello")
    await page.get_by_label("Text", exact=True).fill("A walk.")
    await expect(page.get_by_role("article", name="Preview")).to_contain_text("A walk.")
    await check_page(page, "console-news-item")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("link", name="Hello")).to_be_visible()
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    link = {
        "client_id": client_id,
        "redirect_uri": "http://127.0.0.1:3000/callback",
        "state": "s",
        "code_challenge_method": "S256",
        "code_challenge": challenge,
        "identifier_type": "email",
        "identifier_value": "walker@example.com",
    }
    async with httpx.AsyncClient(base_url=nest.base_url) as http:
        response = await http.post("/1/2026-12-01/send_magic_link", json=link)
    assert response.status_code == 204, response.text


async def test_every_operators_page_is_accessible(page: Page) -> None:
    await page.goto("/console/stripe/runs")
    await page.get_by_role("button", name="Verify", exact=True).click()
    await expect(page.get_by_text("striperun_").first).to_be_visible()
    await check_page(page, "console-stripe-run")
    for name in LISTS:
        response = await page.goto(f"/console/{name}")
        assert response is not None
        assert response.ok, name
        await check_page(page, f"console-{name.replace('/', '-')}")


async def test_system_is_refreshed_while_the_page_is_visible(page: Page) -> None:
    await page.goto("/console/system")
    for service in ("gateway", "auth", "billing", "mailer", "news"):
        card = page.get_by_label(re.compile(f"^(Service )?{service}$", re.IGNORECASE))
        await expect(card.get_by_text("running")).to_be_visible()
    measured = page.locator("#system > p time").last
    first = await measured.get_attribute("datetime")
    await expect(measured).not_to_have_attribute("datetime", first or "")
    # An error replaces nothing, and the next response does.
    await page.route("**/system/live", lambda route: route.fulfill(status=503, body="<p>Unavailable</p>"))
    await page.wait_for_event("response", lambda response: response.status == 503)
    await page.unroute("**/system/live")
    last = await measured.get_attribute("datetime")
    await expect(measured).not_to_have_attribute("datetime", last or "")
    await page.get_by_label("Outcome").or_(page.get_by_role("link", name="Audit").first).click()
    await page.get_by_label("Action").select_option("create_client")
    await expect(page).to_have_url(re.compile("action=create_client"))
    async with page.expect_event("domcontentloaded"):
        await page.go_back()
    await expect(page).to_have_url(re.compile("/console/audit$"))
    await expect(page.get_by_label("Action")).to_have_value("")
