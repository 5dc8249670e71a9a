from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from shared.pages.pages import Pages, page_headers

SHARED = Path(__file__).parents[2] / "shared" / "pages"
NODE_MODULES = Path(__file__).parents[1] / "reference" / "clients" / "typescript" / "node_modules"


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages("services.embedded", static_path="/dev/static", variables={"version": "1"})


def test_htmx_is_the_release_file_of_its_package() -> None:
    package = NODE_MODULES / "htmx.org"
    assert (SHARED / "static" / "htmx.min.js").read_bytes() == (package / "dist" / "htmx.min.js").read_bytes()
    assert (package / "LICENSE").read_text() in (SHARED / "static" / "htmx.LICENSE.txt").read_text()


def test_pages_run_no_inline_script_or_style(pages: Pages) -> None:
    policy = page_headers()["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-src 'self'" in page_headers(frame_src="'self'")["content-security-policy"]
    layout = pages.environment.from_string('{% extends "pages/layout.html" %}').render()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", layout)
    assert '"includeIndicatorCSS":false' in layout


def test_templates_escape_values_and_refuse_unknown_names(pages: Pages) -> None:
    page = pages.environment.from_string('{% extends "pages/layout.html" %}{% block main %}{{ name }}{% endblock %}')
    assert "&lt;script&gt;" in page.render(name="<script>")
    with pytest.raises(UndefinedError):
        page.render()


def test_static_files_are_kept_by_their_hash_alone(pages: Pages) -> None:
    url = pages.static_url("nest.css")
    assert re.fullmatch(r"/dev/static/[0-9a-f]{16}/nest\.css", url)
    path = url.removeprefix("/dev/static/")
    current = pages.static(path)
    assert current is not None
    assert current.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert current.media_type == "text/css; charset=utf-8"
    for other in ("nest.css", f"{'0' * 16}/nest.css"):
        found = pages.static(other)
        assert found is not None
        assert found.content == current.content
        assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["", "/", "unknown.css", "../pages.py", "a/b/nest.css", "htmx.LICENSE.txt", "0/.."])
def test_other_paths_have_no_static_file(pages: Pages, path: str) -> None:
    assert pages.static(path) is None


def test_unknown_static_file_fails_when_the_page_is_made(pages: Pages) -> None:
    with pytest.raises(KeyError):
        pages.static_url("unknown.css")
