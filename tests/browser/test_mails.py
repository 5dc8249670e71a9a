"""Mails in a browser as mail programs show them: light and dark, wide and narrow, with their style sheet or without."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.mailer.rendering.preview import BRANDING, PreviewItem, preview_brandings, render_all, write_preview
from services.mailer.rendering.template_loader import Templates

FOREIGN = "data:"
"""The preview's own logo; nothing else may be fetched."""
LOOK = """
() => {
  const shown = [...document.querySelectorAll("h1, p, a, td, th, span")].filter(each => each.checkVisibility());
  const own = each => [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const behind = each => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return {
    wide: document.documentElement.scrollWidth,
    texts: shown.filter(own).map(each => ({
      text: each.textContent.trim().slice(0, 40),
      colour: getComputedStyle(each).color,
      behind: behind(each),
      size: parseFloat(getComputedStyle(each).fontSize),
    })),
    buttons: [...document.querySelectorAll("a.button")].map(each => {
      const box = each.getBoundingClientRect();
      return {width: box.width, height: box.height, left: box.left, right: box.right};
    }),
    body: getComputedStyle(document.body).backgroundColor,
  };
}
"""


@pytest.fixture(scope="module")
def mails() -> list[PreviewItem]:
    shown = render_all(Templates.read(), preview_brandings(replace(BRANDING, product_name="Beak")), "example.com")
    return [each for each in shown if each.mail.html]


@pytest.fixture
async def blank(browser: Browser) -> AsyncIterator[Page]:
    """A tab that fetches nothing."""
    context = await browser.new_context()
    page = await context.new_page()
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    yield page
    await context.close()
    assert [url for url in fetched if not url.startswith(FOREIGN)] == []


@pytest.mark.parametrize("sheet", [True, False], ids=["whole", "without its sheet"])
@pytest.mark.parametrize("width", [800, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_mail_can_be_read(
    *, blank: Page, mails: list[PreviewItem], scheme: Any, width: int, sheet: bool
) -> None:
    await blank.emulate_media(color_scheme=scheme)
    await blank.set_viewport_size({"width": width, "height": 800})
    for mail in mails:
        html = mail.mail.html if sheet else re.sub(r"<style>.*?</style>", "", mail.mail.html, flags=re.DOTALL)
        await blank.set_content(html, wait_until="commit")
        seen = await blank.evaluate(LOOK)
        assert seen["wide"] <= width, f"{mail.path} must be scrolled sideways"
        assert len(seen["texts"]) >= 4
        for text in seen["texts"]:
            assert contrast(text["colour"], text["behind"]) >= 4.5, f"{mail.path}, {scheme}: {text}"
            assert text["size"] >= 13
        # A finger needs 44 pixels (WCAG 2.2, success criterion 2.5.5).
        assert all(button["height"] >= 44 and button["width"] >= 80 for button in seen["buttons"]), mail.path
        assert all(0 <= button["left"] < button["right"] <= width for button in seen["buttons"]), mail.path
        dark = scheme == "dark" and sheet
        assert (luminance(seen["body"]) < 0.02) == (dark or mail.branding == "bright"), mail.path


async def test_what_inboxes_show_beside_the_subject_is_not_in_the_mail(blank: Page, mails: list[PreviewItem]) -> None:
    for mail in mails:
        await blank.set_content(mail.mail.html, wait_until="commit")
        assert not await blank.locator(".preheader").is_visible()


async def test_the_preview_shows_each_mail_in_every_way(browser: Browser, tmp_path: Path) -> None:
    shown = list(render_all(Templates.read(), {"own": BRANDING}, "example.com"))
    page = await asyncio.to_thread(write_preview, tmp_path, shown)
    tab = await browser.new_page(viewport={"width": 1500, "height": 1600})
    await tab.goto(page.as_uri(), wait_until="commit")
    await tab.locator("section:visible").first.wait_for()
    await tab.get_by_label("locale").select_option("fr")
    await tab.get_by_label("name").select_option("trial-ending")
    assert await tab.locator("section:visible").count() == 1
    frames = tab.frame_locator("section:visible iframe")
    await frames.nth(0).get_by_role("heading").wait_for()
    await expect(tab.locator("section:visible iframe")).to_have_count(4)
    colours = [
        await frames.nth(number).locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        for number in (0, 1)
    ]
    assert colours == ["rgb(243, 244, 246)", "rgb(18, 20, 24)"]
    await tab.close()


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Of ``rgb(…)``; written anew, so that the mailer's own can't agree with itself."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
