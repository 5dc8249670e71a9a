"""Checks of a page that is open in the browser: axe-core's rules, and no horizontal scrolling."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

ROOT: Final = Path(__file__).parents[2]
AXE: Final = ROOT / "tests/reference/clients/typescript/node_modules/axe-core/axe.min.js"
SCREENSHOTS: Final = "NEST_SCREENSHOTS"
"""Folder for pictures of each page in both themes and widths; without it none are taken."""
LANGUAGES: Final = ("en", "de", "fr", "es", "it")
"""Those of the pages behind links, and one that they do not have."""
FINGER: Final = 44
"""Height of a button in CSS pixels (WCAG 2.2, success criterion 2.5.5)."""
WIDTHS: Final = {"phone": (360, 740), "desktop": (1280, 900)}
CHECKED: Final = (("light", "desktop"), ("dark", "phone"))
"""Each theme and each width once: the rules for colours depend on the theme, the others on the width."""
PICTURED: Final = tuple((theme, width) for theme in ("light", "dark") for width in WIDTHS)
_RUN: Final = """
async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, help, nodes }) =>
    `${id}: ${help}\\n` + nodes.slice(0, 5).map((node) => `    ${node.html}\\n    ${node.failureSummary}`).join("\\n"));
}
"""
_HEIGHT: Final = "() => document.documentElement.scrollHeight"
MAX_PICTURED: Final = 6_000
"""Height of the largest picture in pixels: of a higher page, such as the reference, the visible part is pictured."""
_OVERFLOW: Final = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


async def check_page(page: Page, name: str) -> None:
    """Check the open page as it is now; afterwards it has its size and theme of before.

    Args:
        page: the tab.
        name: of the page, in failures and in the names of the pictures: ``console-users``.

    Raises:
        AssertionError: axe-core finds a violation, or the page is wider than the window.
    """
    size = page.viewport_size
    pictures = os.environ.get(SCREENSHOTS)
    problems: list[str] = []
    for theme, width in PICTURED if pictures else CHECKED:
        await _show(page, theme, width)
        if await page.evaluate("() => typeof axe === 'undefined'"):
            await page.evaluate(_axe())
        problems += [f"{name} ({theme}, {width}): {each}" for each in await page.evaluate(_RUN)]
        if overflow := await page.evaluate(_OVERFLOW):
            problems.append(f"{name} ({theme}, {width}) is {overflow} pixels wider than the window")
        if pictures:
            whole = await page.evaluate(_HEIGHT) <= MAX_PICTURED
            await page.screenshot(path=Path(pictures, f"{name}-{theme}-{width}.png"), full_page=whole)
    await page.emulate_media(color_scheme="null")
    if size:
        await page.set_viewport_size(size)
    assert problems == [], "\n".join(problems)


async def check_link_page(page: Page, url: str, name: str) -> None:
    """Open the page behind a link of a mail in every language and check it; its buttons are as high as a finger.

    Args:
        page: the tab.
        url: of the page, without a query.
        name: of the page, as for ``check_page``.
    """
    for language in LANGUAGES:
        await page.goto(f"{url}?lang={language}")
        await check_page(page, f"{name}-{language}")
        for button in await page.get_by_role("button").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= FINGER, f"{name} in {language}: {box}"


async def _show(page: Page, theme: Any, width: str) -> None:
    await page.emulate_media(color_scheme=theme)
    columns, rows = WIDTHS[width]
    await page.set_viewport_size({"width": columns, "height": rows})


@cache
def _axe() -> str:
    """The script; a policy of the page does not forbid it, because the debugger runs it."""
    return AXE.read_text("utf-8")
