"""The console's pages about people, in the browser: search, one person, acts, export and erasure."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.async_api import Page, expect

from services.embedded.demo import CLIENT_ID
from tests.browser.accessibility import check_page
from tests.nest_up import NestUp
from tests.stack import CHALLENGE, VERIFIER, eventually

ADDRESS = "cleo.console@example.com"


async def begin_trial(nest: NestUp) -> str:
    """Begin a trial and log in, as an app does; return the user's ID."""
    callback = f"{nest.base_url}/dev/callback"
    order = {
        "client_id": CLIENT_ID,
        "redirect_uri": callback,
        "state": "s",
        "code_challenge_method": "S256",
        "code_challenge": CHALLENGE,
        "identifier_type": "email",
        "identifier_value": ADDRESS,
        "device": {"platform": "mac", "beak_id": "beak-console", "fingerprint": "print-console"},
    }
    async with httpx.AsyncClient(base_url=nest.base_url, timeout=30.0) as http:
        (await http.post("/1/2021-10-06/create_trial_and_magic_link", json=order)).raise_for_status()

        async def code() -> str | None:
            mails = (await http.get("/dev/inbox.json", params={"to": ADDRESS})).json()
            links = [link for mail in mails for link in mail["links"] if "code=" in link]
            return parse_qs(urlsplit(links[0]).query)["code"][0] if links else None

        redemption = {
            "client_id": CLIENT_ID,
            "grant_type": "authorization_code",
            "redirect_uri": callback,
            "code": await eventually(code, what="the mail"),
            "code_verifier": VERIFIER,
        }
        response = await http.post("/1/2021-10-06/authenticate_user", json=redemption)
        response.raise_for_status()
        return str(response.json()["user_id"])


async def test_operator_finds_serves_exports_and_erases_a_person(page: Page, nest: NestUp, tmp_path: Path) -> None:
    user_id = await begin_trial(nest)
    await page.goto("/console")
    await check_page(page, "console-start")
    await page.get_by_role("searchbox").fill("cleo.con")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/people?*")
    await check_page(page, "console-people")
    await page.get_by_role("link", name=ADDRESS).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(ADDRESS)
    await expect(page.locator("#subscription")).to_contain_text("trialing")
    await expect(page.locator("#stripe-events")).to_contain_text("customer.subscription.created")
    await expect(page.locator("#mails")).to_contain_text("trial-magic-link")
    await check_page(page, "console-person")

    await page.get_by_text("End all sessions…").click()
    await page.get_by_role("button", name="End all sessions").click()
    await expect(page.get_by_role("status")).to_have_text("One session was ended.")
    await expect(page.locator("#sessions")).to_contain_text("No live session")
    await page.reload()
    await expect(page.get_by_role("status")).to_have_count(0)

    await page.get_by_role("button", name="Export").click()
    await expect(page.locator("#process h2")).to_have_text("Done", timeout=60_000)
    await check_page(page, "console-export")
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download the document").click()
    await (await started.value).save_as(tmp_path / "export.json")
    assert json.loads((tmp_path / "export.json").read_text())["user_id"] == user_id

    await page.goto(f"/console/people/{user_id}")
    await page.get_by_text("Erase…").click()
    await page.get_by_label("Type “erase” to confirm").fill("delete")
    await page.get_by_role("button", name="Erase this person").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was erased")
    await page.get_by_label("Type “erase” to confirm").fill("erase")
    await page.get_by_role("button", name="Erase this person").click()
    await expect(page.locator("#process h2")).to_have_text("Done", timeout=60_000)
    await page.goto("/console/people?search=cleo.con")
    await expect(page.get_by_text("Nobody found")).to_be_visible()
    await check_page(page, "console-nobody")
