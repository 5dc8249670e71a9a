"""Browser, and a running Nest for it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

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
TIMEOUT_MILLISECONDS = 30_000
"""For an action or an expectation; a busy machine needs some seconds for a page."""
LEVELS = {"error", "warning"}
"""Of messages in a console. htmx warns of selectors that match nothing."""


@pytest.fixture(scope="package")
async def nest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NestUp]:
    """A `nest up` shared by all browser tests."""
    async with nest_up(tmp_path_factory.mktemp("nest")) as running:
        yield running


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """Run the system's Chromium with further flags. Without one the tests fail; they are never skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    executable = next(filter(None, map(shutil.which, names)), None)
    assert executable, "the browser tests need a Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, headless=True, args=[*FLAGS, *flags])
        yield browser
        await browser.close()


@asynccontextmanager
async def open_tab(browser: Browser, base_url: str, **options: Any) -> AsyncIterator[Page]:
    """Open a tab in a new profile; errors, CSP violations and warnings in its console fail the test.

    Args:
        browser: the browser.
        base_url: beginning of relative URLs.
        options: further options of Playwright's ``new_context``.
    """
    context = await browser.new_context(base_url=base_url, **options)
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    tab = await context.new_page()
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda message: errors.append(message.text) if message.type in LEVELS else None)
    yield tab
    await context.close()
    # The browser itself logs refused requests, which are no errors of the page.
    assert [line for line in errors if "Failed to load resource" not in line] == []


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium shared by the tests."""
    async with chromium() as running:
        yield running


@pytest.fixture
async def page(browser: Browser, nest: NestUp) -> AsyncIterator[Page]:
    """A tab in a new profile at the shared Nest."""
    async with open_tab(browser, nest.base_url) as tab:
        yield tab
