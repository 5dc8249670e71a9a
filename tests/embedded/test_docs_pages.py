"""The documents of the checkout as pages."""

import re
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from services.embedded.docs_pages import DOCS, DocsPages, render
from shared.pages.pages import Pages

VARIABLES = {"base_url": "http://127.0.0.1", "client_id": "c", "version": "1", "logins": True, "docs": True}


@pytest.fixture
async def browser(tmp_path: Path) -> httpx.AsyncClient:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "index.md").write_text("# Nest\n\nSee [login](recipes/login.md#two).\n")
    login = "# Log in\n\n## Two\n\n<script>1</script> [source](../../Makefile)\n"
    (tmp_path / "recipes" / "login.md").write_text(login)
    (tmp_path / "secret.txt").write_text("secret")
    pages = Pages("services.embedded", static_path="/dev/static", variables=VARIABLES)
    app = Starlette(routes=DocsPages(pages, tmp_path).routes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_documents_are_listed_and_shown(browser: httpx.AsyncClient) -> None:
    first = await browser.get("/dev/docs", follow_redirects=True)
    assert first.url.path == "/dev/docs/index.md"
    assert '<a href="recipes/login.md#two">login</a>' in first.text
    login = (await browser.get("/dev/docs/recipes/login.md")).text
    assert '<a href="/dev/docs/recipes/login.md" aria-current="page">Log in</a>' in login
    assert '<h2 id="two">Two</h2>' in login
    assert "&lt;script&gt;" in login
    assert "<a>source</a>" in login
    for path in ("none.md", "secret.txt", "../README.md", "..%2FREADME.md", "recipes"):
        assert (await browser.get(f"/dev/docs/{path}")).status_code == 404


def test_anchors_are_those_that_the_documents_link_to() -> None:
    """Every link between documents leads to a heading, so anchors are made as the documents expect."""
    documents = {path.resolve(): render(path.read_text()).html for path in DOCS.glob("*.md")}
    for path, html in documents.items():
        for target, anchor in re.findall(r'href="([^":#]*)#([^"]+)"', html):
            shown = documents.get((path.parent / target).resolve() if target else path)
            if shown is not None:
                assert f'id="{anchor}"' in shown, f"{path.name}: {target}#{anchor}"
