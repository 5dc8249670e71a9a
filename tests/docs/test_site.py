"""The built site in a browser: accessibility, search and diagrams from files, and no other host."""

from __future__ import annotations

import functools
import http.server
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page

from tests.browser.accessibility import check_page
from tests.browser.conftest import browser  # noqa: F401 -- a fixture
from tests.deploy.environments import ROOT
from tests.docs.blocks import PAGES

CONFIG: Final = (ROOT / "mkdocs.yml").read_text()
OUTSIDE: Final = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
CHECKED: Final = ("index", "start/python", "recipes/verify-tokens", "concepts/subscriptions", "http-api", "settings")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads the file with MkDocs' own tags as text."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, suffix, _node: suffix)
SITE: Final = yaml.load(CONFIG, Loader=_Loader)  # noqa: S506 -- a safe loader


def navigation(entry: object) -> list[str]:
    if isinstance(entry, dict):
        entry = list(entry.values())
    return [page for each in entry for page in navigation(each)] if isinstance(entry, list) else [str(entry)]


def test_the_navigation_has_every_page() -> None:
    listed = navigation(SITE["nav"])
    assert len(listed) == len(set(listed))
    assert {f"docs/{page}" for page in listed if not page.startswith("repository/")} == {*PAGES} - {"README.md"}
    assert all((ROOT / page.removeprefix("repository/")).exists() for page in listed if page.startswith("repository/"))


def test_the_theme_loads_nothing_from_another_host() -> None:
    assert SITE["theme"]["font"] is False
    assert "offline" in SITE["plugins"]
    scripts = (*SITE["extra_javascript"], *SITE["extra"]["polyfills"], *SITE["extra_css"])
    assert all("://" not in name for name in scripts)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from this checkout."""
    mkdocs = ROOT / ".venv-docs/bin/mkdocs"
    assert mkdocs.exists(), "run make docs first"
    folder = tmp_path_factory.mktemp("site")
    command = [mkdocs, "build", "--strict", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True, env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"})
    return folder


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[Page]:  # noqa: F811 -- the fixture
    """A tab that may open files and this machine's addresses only."""
    context = await browser.new_context(reduced_motion="reduce")
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    page = await context.new_page()
    yield page
    await context.close()
    assert [url for url in asked if not url.startswith(("file:", "http://127.0.0.1:", "data:", "blob:"))] == []
    assert errors == []


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The address of a server with the site."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_no_page_names_a_script_style_or_picture_of_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not OUTSIDE.search(path.read_text()), path


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
async def test_axe_finds_no_violation(name: str, site: Path, tab: Page) -> None:
    await tab.goto((site / f"{name}.html").as_uri())
    await check_page(tab, f"docs-{name.replace('/', '-')}")


@pytest.mark.slow
async def test_search_works_from_files(site: Path, tab: Page) -> None:
    await tab.goto((site / "index.html").as_uri())
    await tab.keyboard.press("/")
    await tab.keyboard.type("idempotency key")
    result = tab.locator(".md-search-result__link", has_text="Idempotency").first
    await result.click()
    await tab.locator("article h1").wait_for()
    assert "idempotency key" in (await tab.locator("article").inner_text()).lower()


@pytest.mark.slow
async def test_diagrams_are_drawn(served: str, tab: Page) -> None:
    await tab.goto(f"{served}/concepts/subscriptions.html")
    diagram = tab.locator("div.mermaid")
    await diagram.wait_for()
    assert (await diagram.bounding_box() or {})["height"] > 50
