"""The link below a mail and the page behind it, as somebody sees them who has had enough."""

from typing import Any

from playwright.async_api import Page, expect

from tests.browser.test_login import ask_for_a_link
from tests.browser.test_mails import LOOK, contrast, luminance

LANGUAGES = ("en", "de", "fr", "es", "it")


async def can_be_read(tab: Page, url: str) -> None:
    """The page in every language, light and dark, wide and narrow."""
    schemes: tuple[Any, ...] = ("light", "dark")
    for scheme in schemes:
        await tab.emulate_media(color_scheme=scheme)
        for width in (800, 320):
            await tab.set_viewport_size({"width": width, "height": 700})
            for language in LANGUAGES:
                await tab.goto(f"{url}?lang={language}")
                seen = await tab.evaluate(LOOK)
                where = f"{language}, {scheme}, {width}"
                assert seen["wide"] <= width, where
                assert len(seen["texts"]) >= 2
                for text in seen["texts"]:
                    assert contrast(text["colour"], text["behind"]) >= 4.5, f"{where}: {text}"
                    assert (luminance(text["behind"]) < 0.02) == (scheme == "dark"), f"{where}: {text}"
                for button in await tab.get_by_role("button").all():
                    box = await button.bounding_box()
                    assert box is not None
                    assert box["height"] >= 44, where


async def test_the_link_below_a_mail_ends_the_news_by_one_click(page: Page) -> None:
    await ask_for_a_link(page, "enough@example.com", button="Start a trial")
    await page.get_by_role("link", name="Read it in the inbox").click()
    welcome = page.locator("article", has_text="enough@example.com").filter(has_text="trial has begun").first
    if not await welcome.locator("iframe").is_visible():
        await welcome.get_by_text("As a mail program shows it").click()
    async with page.context.expect_page() as opened:
        await welcome.frame_locator("iframe").get_by_role("link", name="Unsubscribe from news").click()
    tab = await opened.value
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Unsubscribe from our news?")
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    await can_be_read(tab, link)
    await tab.goto(f"{link}?lang=de")
    await tab.get_by_role("button", name="Abbestellen").click()
    await expect(tab.get_by_role("status")).to_have_text("Sie sind abgemeldet")


async def test_a_link_that_is_broken_says_so_in_the_readers_language(page: Page) -> None:
    await can_be_read(page, "/unsubscribe/broken")
    await page.goto("/unsubscribe/broken?lang=fr")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ce lien ne fonctionne pas")
