"""The links that accounts with passwords get by mail, in a browser without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.accessibility import check_link_page, check_page
from tests.browser.conftest import open_tab
from tests.nest_up import NestUp
from tests.stack import eventually

PASSWORD = "a long sentence is easy to keep"
OTHER_PASSWORD = "ein Satz & noch einer + 100 %"


@pytest.fixture
async def http(nest: NestUp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=nest.base_url, timeout=30.0) as client:
        yield client


@pytest.fixture
async def page(browser: Browser, nest: NestUp) -> AsyncIterator[Page]:
    """A tab in a new profile, without JavaScript."""
    async with open_tab(browser, nest.base_url, java_script_enabled=False, locale="en-GB") as tab:
        yield tab


async def new_user(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Sign a user up to a new application, and return the fields of the sign-up."""
    email = f"owner.{name}@example.com"
    owner = {"firstname": "Ada", "lastname": "L", "email": email, "password": PASSWORD}
    uuid = (await http.post("/appowner/create", json=owner)).json()["uuid"]
    body = {"owneruuid": uuid, "appname": "Clocks & Co"}
    key = (await http.post("/applications/create", json=body)).json()["apiKey"]
    user = {"apikey": key, "username": "ada", "email": f"{name}@example.com", "password": PASSWORD, "locale": "en"}
    assert (await http.post("/users/signup", json=user)).status_code == 202
    return user


async def link_in_inbox(http: httpx.AsyncClient, address: str, path: str) -> str:
    """Wait for a mail with a link to a page, and return the link."""

    async def found() -> str | None:
        arrivals = (await http.get("/dev/inbox.json")).json()
        links = [link for each in arrivals if each["to"] == address for link in each["links"] if f"/{path}/" in link]
        return links[0] if links else None

    link: str = await eventually(found, what=f"a link to /{path}")
    return link


async def test_person_chooses_a_new_password(page: Page, http: httpx.AsyncClient) -> None:
    user = await new_user(http, "forgetful")
    order = {"apikey": user["apikey"], "email": user["email"]}
    assert (await http.post("/users/forgot", json=order)).status_code == 202
    link = await link_in_inbox(http, user["email"], "reset")

    await page.goto(link)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Choose a new password")
    assert await page.title() == "New password"
    await page.get_by_label("New password").fill("password1")
    await page.get_by_role("button", name="Set password").click()
    await expect(page.get_by_role("alert")).to_contain_text("guessed first")
    await expect(page.get_by_label("New password")).to_have_value("")
    await page.get_by_label("New password").fill(OTHER_PASSWORD)
    await page.get_by_role("button", name="Set this password").click()
    await expect(page.get_by_role("status")).to_have_text("Your password is changed")

    signed_in = await http.post("/users/signwithemail", json={**order, "password": OTHER_PASSWORD})
    assert signed_in.status_code == 200
    await page.goto(link)
    await page.get_by_label("New password").fill(PASSWORD)
    await page.get_by_role("button", name="Set password").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("This link does not work")


async def test_person_confirms_an_address(page: Page, http: httpx.AsyncClient) -> None:
    user = await new_user(http, "newcomer")
    await page.goto(await link_in_inbox(http, user["email"], "confirm"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Confirm your email address?")
    await page.get_by_role("button", name="Confirm address").click()
    await expect(page.get_by_role("status")).to_have_text("Your address is confirmed")
    body = {"apikey": user["apikey"], "email": user["email"], "password": PASSWORD}
    token = (await http.post("/users/signwithemail", json=body)).json()["token"]
    assert (await http.post("/users/userdata", json={"token": token})).json()["verified"] is True


@pytest.fixture
async def tab(browser: Browser, nest: NestUp) -> AsyncIterator[Page]:
    """A tab with scripts, which axe-core needs."""
    context = await browser.new_context(base_url=nest.base_url)
    yield await context.new_page()
    await context.close()


@pytest.mark.parametrize("path", ["reset", "confirm"])
async def test_page_is_accessible_in_every_language(tab: Page, path: str) -> None:
    await check_link_page(tab, f"/{path}/accountlink_0.{'0' * 64}", path)


@pytest.mark.parametrize("path", ["/accounts", "/portal/broken"])
async def test_page_without_a_link_is_accessible(tab: Page, path: str) -> None:
    await tab.goto(path)
    await check_page(tab, path.strip("/").replace("/", "-"))
