"""The pages of the console's login in the browser: their look, and the attributes that browsers and managers use."""

from __future__ import annotations

from playwright.async_api import Browser, Route, expect

from services.gateway.console.console import STATIC_PATH
from shared.pages.pages import HTML, Pages, page_headers
from tests.browser.accessibility import check_page

PAGES = Pages("services.gateway.console", static_path=STATIC_PATH)
COMMON = {"title": "Log in to the console", "csrf": "k1.0", "error": ""}
SHOWN = {
    "login": ("login.html", {}),
    "login-refused": ("login.html", {"error": "This is no e-mail address."}),
    "sent": ("sent.html", {"address": "a.person.with.a.long.address@department.example.com"}),
    "press": ("press.html", {"address": "a.person.with.a.long.address@department.example.com", "code": "c.1"}),
    "refused": ("outside.html", {"sentence": "Open the console at https://api.example.com/console."}),
}


async def test_pages_of_the_login_are_accessible(browser: Browser) -> None:
    async def answer(route: Route) -> None:
        path = route.request.url.removeprefix("https://nest.test")
        if path.startswith(STATIC_PATH):
            file = PAGES.static(path.removeprefix(f"{STATIC_PATH}/"))
            assert file is not None
            await route.fulfill(body=file.content, headers=file.headers, content_type=file.media_type)
            return
        template, variables = SHOWN[path.strip("/")]
        text = PAGES.render(template, **{**COMMON, **variables})
        await route.fulfill(body=text, headers=page_headers(referrer="same-origin"), content_type=HTML)

    context = await browser.new_context()
    await context.route("**/*", answer)
    page = await context.new_page()
    for name in SHOWN:
        await page.goto(f"https://nest.test/{name}")
        await check_page(page, f"console-{name}")
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    await page.goto("https://nest.test/sent")
    await expect(page.get_by_label("Code of six digits")).to_have_attribute("autocomplete", "one-time-code")
    await page.goto("https://nest.test/press")
    await expect(page.get_by_role("button", name="Log in")).to_be_focused()
    await context.close()
