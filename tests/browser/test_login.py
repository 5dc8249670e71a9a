import re

from playwright.async_api import Page, expect

from tests.browser.accessibility import check_page
from tests.browser.test_inbox import open_link


async def request_link(page: Page, email: str, button: str = "Send me a link") -> None:
    await page.goto("/")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_role("button", name=button).click()
    await expect(page.get_by_role("status")).to_contain_text("The mail has arrived.")


async def test_new_user_logs_in_with_clicks_only(page: Page) -> None:
    await request_link(page, "ada@example.com")
    await page.get_by_role("link", name="Read it in the inbox").click()
    await expect(page.locator("#pane").get_by_role("heading")).to_have_text(re.compile("Demo"))
    # The button of the mail in the sandboxed frame opens a new tab, as in a mail client.
    tab = await open_link(page.frame_locator("#mail iframe").get_by_role("link").first)
    await expect(tab.get_by_role("heading", level=1)).to_have_text("You are logged in as ada@example.com")
    await expect(tab.get_by_text("none active")).to_be_visible()
    assert tab.url.endswith("/dev/callback"), "the code is still in the address bar"
    await tab.get_by_text("The access token, decoded").click()
    await expect(tab.locator("#token")).to_contain_text('"alg": "ES256"')
    await tab.get_by_text("get_user", exact=True).click()
    await expect(tab.locator("#user")).to_contain_text('"identifier_value": "ada@example.com"')
    # The reference sends requests with the token of this login.
    await tab.get_by_role("link", name="reference", exact=True).click()
    await expect(tab.get_by_label("Access token")).to_have_value(re.compile(r"^ey[\w-]+\.[\w-]+\.[\w-]+$"))
    await check_page(tab, "callback")


async def test_trial_is_started_with_clicks_only(page: Page) -> None:
    await request_link(page, "trial@example.com", button="Start a trial")
    await page.get_by_role("link", name="open its link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are logged in as trial@example.com")


async def expect_used(page: Page) -> None:
    await expect(page.get_by_role("heading", level=1)).to_have_text("This link was already used")
    await expect(page.get_by_role("alert")).to_have_text("A link logs in once.")
    await expect(page.get_by_role("link", name="Request another link")).to_be_in_viewport()


async def test_link_opened_twice_says_that_it_was_used(page: Page) -> None:
    await request_link(page, "twice@example.com")
    link = await page.get_by_role("link", name="open its link").get_attribute("href")
    assert link
    storage = await page.evaluate("JSON.stringify(localStorage)")
    await page.goto(link)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("You are logged in")
    await page.goto(link)
    await expect_used(page)
    # As in another profile, which has the verifier but does not know of the login: Nest refuses the code.
    await page.evaluate("storage => Object.assign(localStorage, JSON.parse(storage))", storage)
    await page.goto(link)
    await expect_used(page)


async def test_pages_fit_a_phone(page: Page) -> None:
    await page.set_viewport_size({"width": 320, "height": 640})
    fits = "() => document.documentElement.scrollWidth <= window.innerWidth"
    email = f"{'a-very-long-name-' * 3}@a-rather-long-company-name.example.com"
    await request_link(page, email)
    link = await page.get_by_role("link", name="open its link").get_attribute("href")
    assert link
    for path in (
        "/",
        "/dev/inbox",
        "/dev/docs/inbox.md",
        link,
        link,
        f"/dev/callback?code={'c' * 120}&state=elsewhere",
    ):
        await page.goto(path)
        await page.wait_for_load_state("load")
        assert await page.evaluate(fits), path
    await expect(page.get_by_role("heading", level=1)).to_have_text("This login was started elsewhere")


async def test_link_of_another_browser_shows_its_code(page: Page) -> None:
    await page.goto("/dev/callback?code=authzcode_1.abc&state=elsewhere")
    await expect(page.get_by_role("heading", level=1)).to_have_text("This login was started elsewhere")
    await expect(page.get_by_role("alert")).to_contain_text("authzcode_1.abc")


async def test_invalid_address_shows_an_error(page: Page) -> None:
    await page.goto("/")
    await check_page(page, "start")
    await page.get_by_label("E-mail address").fill("nobody@localhost")
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_role("status")).to_have_text("Nest refused the request: invalid_email.")
