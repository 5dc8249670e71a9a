from typing import Any

from playwright.async_api import Page, expect

from tests.browser.test_inbox import open_mail
from tests.browser.test_login import request_link
from tests.browser.test_mails import LAYOUT, contrast, luminance

LANGUAGES = ("en", "de", "fr", "es", "it")


async def assert_legible(tab: Page, url: str) -> None:
    """The page is legible in every language, light and dark, wide and narrow."""
    schemes: tuple[Any, ...] = ("light", "dark")
    for scheme in schemes:
        await tab.emulate_media(color_scheme=scheme)
        for width in (800, 320):
            await tab.set_viewport_size({"width": width, "height": 700})
            for language in LANGUAGES:
                await tab.goto(f"{url}?lang={language}")
                layout = await tab.evaluate(LAYOUT)
                variant = f"{language}, {scheme}, {width}"
                assert layout["width"] <= width, variant
                assert len(layout["texts"]) >= 2
                for text in layout["texts"]:
                    assert contrast(text["colour"], text["background"]) >= 4.5, f"{variant}: {text}"
                    dark = luminance(text["background"]) < 0.02
                    assert text["isButton"] or dark == (scheme == "dark"), f"{variant}: {text}"
                for button in await tab.get_by_role("button").all():
                    box = await button.bounding_box()
                    assert box is not None
                    assert box["height"] >= 44, variant


async def test_link_in_a_mail_unsubscribes_with_one_click(page: Page) -> None:
    await request_link(page, "enough@example.com", button="Start a trial")
    # The welcome follows the login by the link.
    await page.get_by_role("link", name="open its link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("You are logged in")
    mail = await open_mail(page, 'to:enough@example.com subject:"trial has begun"')
    async with page.context.expect_page() as opened:
        await mail.get_by_role("link", name="Unsubscribe from news").click()
    tab = await opened.value
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Unsubscribe from our news?")
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    await assert_legible(tab, link)
    await tab.goto(f"{link}?lang=de")
    await tab.get_by_role("button", name="Abbestellen").click()
    await expect(tab.get_by_role("status")).to_have_text("Sie sind abgemeldet")


async def test_invalid_link_shows_an_error_in_the_links_language(page: Page) -> None:
    await assert_legible(page, "/unsubscribe/broken")
    await page.goto("/unsubscribe/broken?lang=fr")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ce lien ne fonctionne pas")
