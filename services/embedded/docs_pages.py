"""The documents of this checkout as pages, so that they can be read without an installation or a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from shared.pages.pages import HTML, Pages, page_headers

DOCS: Final = Path(__file__).parents[2] / "docs"
"""The folder of the documents; a package that was installed without the checkout has none."""
_HEADERS: Final = page_headers()
_OUTSIDE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|/")
_NOT_IN_SLUG: Final = re.compile(r"[^\w\- ]")
_GROUPS: Final = {
    "": "Documents",
    "concepts": "Concepts",
    "recipes": "Recipes",
    "deploy": "Deploy",
    "move": "Move here",
}
"""Headings in the list of pages by folder; other folders are not listed."""


@dataclass(frozen=True)
class Document:
    """A document as HTML, with its first heading as the title."""

    title: str
    html: str


class DocsPages:
    """The routes of the documents.

    Args:
        pages: the templates.
        folder: the documents, Markdown files.
    """

    def __init__(self, pages: Pages, folder: Path = DOCS) -> None:
        self._pages = pages
        self._folder = folder
        self._titles: dict[str, str] = {}
        self.routes = [Route("/dev/docs", self._first), Route("/dev/docs/{path:path}", self._document)]

    async def _first(self, _: Request) -> Response:
        """Lead to the index, so that relative links have a folder to begin with."""
        return RedirectResponse(f"/dev/docs/{next(iter(self._all()), 'index.md')}", headers=_HEADERS)

    async def _document(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        if path not in self._all():
            return PlainTextResponse("document not found", 404, _HEADERS)
        document = render((self._folder / path).read_text("utf-8"))
        groups = {
            heading: [(each, self._title(each)) for each in self._all() if each.rpartition("/")[0] == folder]
            for folder, heading in _GROUPS.items()
        }
        text = self._pages.render("document.html", document=document, path=path, groups=groups)
        return Response(text, 200, _HEADERS, HTML)

    def _all(self) -> list[str]:
        """Paths of all documents, the index first."""
        found = [each.relative_to(self._folder).as_posix() for each in self._folder.rglob("*.md")]
        return sorted(found, key=lambda path: (path != "index.md", path))

    def _title(self, path: str) -> str:
        if path not in self._titles:
            with (self._folder / path).open(encoding="utf-8") as lines:
                self._titles[path] = next((line[2:].strip() for line in lines if line.startswith("# ")), path)
        return self._titles[path]


def render(text: str) -> Document:
    """Render Markdown (CommonMark with tables); headings have the anchors that GitHub gives them."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    title, slugs = "", dict[str, int]()
    for heading, content in _headings(tokens):
        title = title or content
        slug = _NOT_IN_SLUG.sub("", content.lower()).replace(" ", "-")
        count = slugs[slug] = slugs.get(slug, -1) + 1
        heading.attrSet("id", f"{slug}-{count}" if count else slug)
    for token in _all_tokens(tokens):
        if token.type == "link_open" and _leaves(str(token.attrGet("href") or "")):
            # A file of the checkout, which no page shows.
            token.attrs.pop("href")
    html = markdown.renderer.render(tokens, markdown.options, {})
    # Tables and code can be wider than a phone, and then scroll, by the keyboard too.
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    html = html.replace("<pre><code", '<pre tabindex="0"><code')
    return Document(title, html)


def _headings(tokens: list[Token]) -> Iterator[tuple[Token, str]]:
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            yield token, "".join(each.content for each in following.children or () if each.content)


def _all_tokens(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _leaves(href: str) -> bool:
    """Whether a relative link leads to a file that is not a document."""
    path = href.partition("#")[0]
    return bool(path) and not _OUTSIDE.match(href) and (href.startswith("../../") or not path.endswith(".md"))
