"""Mails in a browser as in mail clients: light and dark, wide and narrow, with and without the style sheet."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from services.mailer.rendering.preview import PreviewItem, preview_brandings, render_all, write_preview
from services.mailer.rendering.samples import BRANDING
from services.mailer.rendering.template_loader import Templates

ALLOWED_URL = "data:"
"""The logo of the preview; nothing else may be loaded."""
LAYOUT = """
() => {
  const visible = [...document.querySelectorAll("h1, p, a, td, th, span")].filter(each => each.checkVisibility());
  const hasText = each => [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const backgroundOf = each => {
    for (let element = each; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return {
    width: document.documentElement.scrollWidth,
    texts: visible.filter(hasText).map(each => ({
      text: each.textContent.trim().slice(0, 40),
      colour: getComputedStyle(each).color,
      background: backgroundOf(each),
      size: parseFloat(getComputedStyle(each).fontSize),
      isButton: each.matches("a.button"),
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
    items = render_all(Templates.read(), preview_brandings(replace(BRANDING, product_name="Beak")), "example.com")
    return [each for each in items if each.mail.html]


@pytest.fixture
async def blank(browser: Browser) -> AsyncIterator[Page]:
    """A tab that must not load anything."""
    context = await browser.new_context()
    page = await context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    yield page
    await context.close()
    assert [url for url in requested if not url.startswith(ALLOWED_URL)] == []


@pytest.mark.parametrize(
    ("scheme", "width", "style_sheet"),
    [
        ("light", 360, True),
        ("dark", 800, True),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("light", 800, True), ("dark", 360, True))),
        *(
            pytest.param(*each, False, marks=pytest.mark.slow)
            for each in (("light", 360), ("light", 800), ("dark", 360), ("dark", 800))
        ),
    ],
)
async def test_every_mail_is_legible(
    *, blank: Page, mails: list[PreviewItem], scheme: Any, width: int, style_sheet: bool
) -> None:
    await blank.emulate_media(color_scheme=scheme)
    await blank.set_viewport_size({"width": width, "height": 800})
    for mail in mails:
        html = mail.mail.html if style_sheet else re.sub(r"<style>.*?</style>", "", mail.mail.html, flags=re.DOTALL)
        await blank.set_content(html, wait_until="commit")
        layout = await blank.evaluate(LAYOUT)
        assert layout["width"] <= width, f"{mail.path} is wider than the screen"
        assert len(layout["texts"]) >= 4
        for text in layout["texts"]:
            assert contrast(text["colour"], text["background"]) >= 4.5, f"{mail.path}, {scheme}: {text}"
            assert text["size"] >= 13
        # Minimum size of a touch target: 44 pixels (WCAG 2.2, success criterion 2.5.5).
        assert all(button["height"] >= 44 and button["width"] >= 80 for button in layout["buttons"]), mail.path
        assert all(0 <= button["left"] < button["right"] <= width for button in layout["buttons"]), mail.path
        dark = scheme == "dark" and style_sheet
        assert (luminance(layout["body"]) < 0.02) == (dark or mail.branding == "bright"), mail.path


async def test_preview_text_is_invisible_in_the_mail(blank: Page, mails: list[PreviewItem]) -> None:
    for mail in mails:
        await blank.set_content(mail.mail.html, wait_until="commit")
        assert not await blank.locator(".preheader").is_visible()


async def test_preview_shows_each_mail_in_four_frames(browser: Browser, tmp_path: Path) -> None:
    items = list(render_all(Templates.read(), {"own": BRANDING}, "example.com"))
    page = await asyncio.to_thread(write_preview, tmp_path, items)
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
    """Relative luminance of ``rgb(…)``; independent of the mailer's own implementation."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
