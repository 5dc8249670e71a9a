"""The reference in a browser: search, links, examples, requests with a token, and without scripts."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from playwright.async_api import Browser, Page, expect

from services.embedded.credentials import operator_credentials
from tests.browser.accessibility import check_page
from tests.browser.conftest import open_tab
from tests.nest_up import NestUp

SHORTEN: Final = """
() => {
  for (const group of document.querySelectorAll(".group")) {
    const closed = [...group.querySelectorAll(".entry:not([open]), .error-entry")].slice(1);
    for (const each of closed) each.remove();
  }
  for (const list of document.querySelectorAll(".contents ul")) list.replaceChildren(...[...list.children].slice(0, 3));
}
"""
"""Leaves one closed entry of each group: one template makes all, and axe-core needs 8 s for hundreds."""


def entry(page: Page, entry_id: str) -> Any:
    return page.locator(f"details.entry[id='{entry_id}']")


async def find(page: Page, *keys: str) -> None:
    """Search with the keyboard alone."""
    await page.locator("body").press("/")
    await expect(page.get_by_role("combobox")).to_be_focused()
    for key in keys:
        await (
            page.keyboard.press(key) if key in {"Enter", "ArrowDown", "ArrowUp", "Escape"} else page.keyboard.type(key)
        )


async def test_person_finds_reads_copies_and_sends(page: Page, nest: NestUp) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=nest.base_url)
    await page.goto("/reference")

    # Search: a part of a name, with a choice by arrows; another spelling; an error; nothing.
    await find(page, "plan", "ArrowDown", "ArrowUp", "Enter")
    await expect(page).to_have_url(re.compile("#list_plans$"))
    await expect(entry(page, "list_plans").locator("summary").first).to_be_focused()
    await find(page, "sendMagicLink", "Enter")
    await expect(entry(page, "send_magic_link")).to_have_attribute("open", "")
    await find(page, "users/signin", "Enter")
    await expect(entry(page, "accounts_users_signin")).to_have_attribute("open", "")
    await find(page, "nothing like that")
    await expect(page.get_by_role("status")).to_contain_text("Nothing matches")
    await page.keyboard.press("Escape")
    await find(page, "token_expired", "Enter")
    await expect(page.locator("#error-token_expired")).to_be_focused()

    # Links open and focus their entry: in the page, the same one again, back, and of an older version by its ID.
    link = page.get_by_role("navigation", name="Contents").get_by_role("link", name="get_user", exact=True)
    for _ in range(2):
        await link.click()
        await expect(entry(page, "get_user").locator("summary").first).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(entry(page, "get_user")).not_to_have_attribute("open", "")
    await page.go_back()
    await expect(page.locator("#error-token_expired")).to_be_focused()
    await page.goto("/reference#get_user_2021_10_06")
    await expect(page).to_have_url(re.compile("/reference/2021-10-06#get_user$"))
    await expect(entry(page, "get_user")).to_have_attribute("open", "")

    # The language is remembered for other entries and visits.
    await page.goto("/reference#send_magic_link")
    await entry(page, "send_magic_link").get_by_role("tab", name="Python").click()
    await page.goto("/reference/events")
    await page.goto("/reference#get_user")
    user = entry(page, "get_user")
    await expect(user.get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    await user.get_by_role("tab", name="Python").press("ArrowRight")
    await expect(user.get_by_role("tabpanel", name="TypeScript")).to_be_visible()
    await user.get_by_role("tabpanel").get_by_role("button", name="Copy").click()
    await expect(user.get_by_role("button", name="Copied")).to_be_visible()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith('import { Client } from "@nest/client";')
    assert "await session.getUser({" in copied


async def test_person_sends_requests_with_a_key(page: Page, nest: NestUp) -> None:
    credentials = operator_credentials(nest.folder)
    assert credentials is not None
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    await page.goto("/reference#list_clients")
    await page.get_by_label("Internal key").fill(credentials.internal_key)
    clients = entry(page, "list_clients")
    await clients.get_by_role("button", name="Send").click()
    await expect(clients.locator(".answer .badge")).to_have_text("200 OK")
    await expect(clients.locator(".answer")).to_contain_text(re.compile(r"\d+ ms"))
    body = json.loads(await clients.get_by_label("Body of the response").inner_text())
    assert body
    await clients.get_by_text("Headers", exact=True).click()
    await expect(clients.get_by_label("Headers of the response")).to_contain_text("x-request-id")

    # A wrong body is not sent, and a refusal leads to its code.
    await clients.get_by_label("Body, JSON").fill('{"limit": 3')
    await expect(clients.get_by_role("alert")).to_contain_text("not valid JSON")
    await clients.get_by_label("Body, JSON").fill('{"unknown": 1}')
    await expect(clients.get_by_role("alert")).to_have_text("There is no field unknown.")
    await clients.get_by_role("button", name="Send").click()
    await expect(clients.locator(".answer .badge")).to_have_text("200 OK")
    await page.get_by_label("Internal key").fill("wrong")
    await clients.get_by_role("button", name="Restore the example").click()
    await clients.get_by_role("button", name="Send").click()
    await expect(clients.locator(".answer .badge")).to_have_text("403 Forbidden")
    await clients.get_by_role("link", name="What access_denied means").click()
    await expect(page.locator("#error-access_denied")).to_be_focused()

    # An operator's command is confirmed once.
    await page.get_by_label("Internal key").fill(credentials.internal_key)
    await page.goto("/reference#remove_news_item")
    await page.reload()
    removal = entry(page, "remove_news_item")
    await removal.get_by_role("button", name="Send").click()
    await expect(removal.get_by_role("button", name="Send remove_news_item, which changes this Nest")).to_be_visible()
    await expect(removal.locator(".answer")).to_be_empty()

    # The key is in this tab alone, and no request went elsewhere.
    assert await page.evaluate("localStorage.length") == 0
    assert {url for url in sent if not url.startswith(nest.base_url)} == set()
    assert not [url for url in sent if credentials.internal_key in url]
    await page.get_by_text("Credentials for requests from this page").click()
    await page.get_by_role("button", name="Forget both").click()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_pages_are_accessible_and_work_without_scripts(page: Page, browser: Browser, nest: NestUp) -> None:
    await page.goto("/reference#create_checkout")
    await expect(entry(page, "create_checkout").get_by_role("button", name="Send")).to_be_visible()
    await page.evaluate(SHORTEN)
    await check_page(page, "reference")
    await page.goto("/reference/events#auth.session-revoked")
    await page.evaluate(SHORTEN)
    await check_page(page, "reference-events")
    async with open_tab(browser, nest.base_url, java_script_enabled=False) as plain:
        await plain.goto("/reference#send_magic_link")
        await expect(plain.get_by_label("Example in Python").first).to_be_visible()
        await plain.get_by_role("link", name="authenticate_user", exact=True).first.click()
        await expect(entry(plain, "authenticate_user").get_by_label("Example in curl")).to_be_visible()
        await expect(entry(plain, "send_magic_link").get_by_label("Example in curl")).to_be_hidden()
