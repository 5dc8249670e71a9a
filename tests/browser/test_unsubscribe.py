from playwright.async_api import Page, expect

from tests.browser.accessibility import check_link_page
from tests.browser.test_inbox import open_link, open_mail
from tests.browser.test_login import request_link


async def test_link_in_a_mail_unsubscribes_with_one_click(page: Page) -> None:
    await request_link(page, "enough@example.com", button="Start a trial")
    # The welcome follows the login by the link.
    await page.get_by_role("link", name="open its link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("You are logged in")
    mail = await open_mail(page, 'to:enough@example.com subject:"trial has begun"')
    tab = await open_link(mail.get_by_role("link", name="Unsubscribe from news"))
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Unsubscribe from our news?")
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    await check_link_page(tab, link, "unsubscribe")
    await tab.goto(f"{link}?lang=de")
    await tab.get_by_role("button", name="Abbestellen").click()
    await expect(tab.get_by_role("status")).to_have_text("Sie sind abgemeldet")


async def test_invalid_link_shows_an_error_in_the_links_language(page: Page) -> None:
    await check_link_page(page, "/unsubscribe/broken", "unsubscribe-broken")
    await page.goto("/unsubscribe/broken?lang=fr")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ce lien ne fonctionne pas")
