"""A browser, and a Nest to look at with it."""

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.nest_up import NestUp, nest_up

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
async def nest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NestUp]:
    """A `nest up` that all tests of the browser share."""
    async with nest_up(tmp_path_factory.mktemp("nest")) as running:
        yield running


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium. Without one the tests fail; they are never skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "the browser tests need a Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=found, headless=True, args=list(FLAGS))
        yield chromium
        await chromium.close()


@pytest.fixture
async def page(browser: Browser, nest: NestUp) -> AsyncIterator[Page]:
    """A fresh profile with one tab, whose complaints fail the test."""
    context = await browser.new_context(base_url=nest.base_url)
    context.set_default_timeout(15_000)
    tab = await context.new_page()
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield tab
    await context.close()
    # What a refused call leaves in the console is the browser's own line, not a fault of the page.
    assert [line for line in complaints if "Failed to load resource" not in line] == []
