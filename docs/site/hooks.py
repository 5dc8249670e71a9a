# ruff: noqa: INP001 -- a program of MkDocs, not part of a package
"""Hooks of MkDocs, so that the same Markdown reads well on GitHub and on the site.

- Links to Markdown outside of `docs/`, such as the README, lead to copies below `repository/` on the site; links to
  other files lead to those files.
- Lists follow CommonMark: a nested block is indented by the width of its marker, where Python-Markdown wants four
  spaces.
- Style and scripts of this folder are part of the site; nothing is loaded from another host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
OUTSIDE: Final = "repository"
"""Folder of the site with files from outside of `docs/`, under their paths in the repository."""
ASSETS: Final = ("site.css", "site.js", "scripts/mermaid.js", "scripts/iframe-worker.js")
LINK: Final = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
"""A link from the end of its text, which may contain code and line breaks."""
MERMAID: Final = re.compile(r'<script src="[^"]*mermaid\.js"></script>')
SEARCH: Final = 'data-md-component="search" role="dialog"'
LABEL: Final = re.compile(r'id="(__nav_\w+_label)"[^>]*>\s*<span class="md-ellipsis">\s*(.*?)\s*<', re.DOTALL)
FOLDER: Final = re.compile(r'aria-labelledby="(__nav_\w+_label)"')
CODE: Final = re.compile(r"(`[^`\n]*`)")
FENCE: Final = re.compile(r"\s*(```+|~~~+)")
MARKER: Final = re.compile(r"(?:[-*+]|\d+[.)])(?: +)(?=\S)")
_LINKED: Final = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "clients/python/README.md",
    "clients/typescript/README.md",
)


def on_files(files: Files, config: Any) -> Files:
    """Add what the documents link to, and the style and scripts."""
    for name in ASSETS:
        files.append(File.generated(config, f"assets/{name}", abs_src_path=str(HERE / name)))
    files.append(File.generated(config, "assets/nest.svg", abs_src_path=str(ROOT / "shared/pages/static/nest.svg")))
    linked = set(_LINKED)
    for file in [*files.documentation_pages()]:
        linked |= set(_outside(_path(file.src_uri), file.content_string))
    for path in sorted(linked):
        if path.endswith(".md"):
            linked |= set(_outside(path, (ROOT / path).read_text()))
    for path in sorted(linked):
        files.append(File.generated(config, f"{OUTSIDE}/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite links that leave `docs/`, and indent lists as Python-Markdown reads them."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    return indented(_rewritten(markdown, page.file.src_uri))


def on_post_page(output: str, **_: Any) -> str:
    """Mend the theme for screen readers, and load Mermaid, of 3.5 MB, on pages with a diagram only."""
    output = output.replace(SEARCH, f'{SEARCH} aria-label="Search"')
    output = output.replace("<th></th>", "<td></td>")
    # The labels of its folders are hidden at first, and would leave them all without a name.
    names = dict(LABEL.findall(output))
    output = FOLDER.sub(lambda match: f'{match[0]} aria-label="{names.get(match[1], match[1])}"', output)
    return output if 'class="mermaid"' in output else MERMAID.sub("", output)


def _path(src_uri: str) -> str:
    """The path in the repository."""
    return src_uri.removeprefix(f"{OUTSIDE}/") if src_uri.startswith(f"{OUTSIDE}/") else f"docs/{src_uri}"


def _target(path: str, link: str) -> str | None:
    """The path in the repository that a relative link of a document leads to; None for other links."""
    if ":" in link or link.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _outside(path: str, markdown: str) -> list[str]:
    targets = [_target(path, match[2]) for line in _prose(markdown) for match in LINK.finditer(line)]
    return [each for each in targets if each and not each.startswith("docs/") and (ROOT / each).is_file()]


def _rewritten(markdown: str, src_uri: str) -> str:
    path, folder = _path(src_uri), posixpath.dirname(src_uri)

    def rewrite(match: re.Match[str]) -> str:
        target = _target(path, match[2])
        if target is None:
            return match[0]
        if target == "docs":
            target = "docs/index.md"
        inside = target.removeprefix("docs/") if target.startswith("docs/") else f"{OUTSIDE}/{target}"
        return f"{match[1]}{posixpath.relpath(inside, folder or '.')}{match[3]}"

    lines, fence = [], ""
    for line in markdown.splitlines():
        fence, code = _fence(line, fence)
        parts = CODE.split(line)
        prose = (part if CODE.fullmatch(part) else LINK.sub(rewrite, part) for part in parts)
        lines.append(line if code else "".join(prose))
    return "\n".join(lines) + "\n"


def _fence(line: str, fence: str) -> tuple[str, bool]:
    """The fence that is open after a line, and whether the line is code or a fence."""
    found = FENCE.match(line)
    if fence:
        return ("" if found and found[1].startswith(fence) else fence), True
    return (found[1] if found else ""), bool(found)


def _prose(markdown: str) -> list[str]:
    lines, fence = [], ""
    for line in markdown.splitlines():
        fence, code = _fence(line, fence)
        if not code:
            lines.append(CODE.sub("", line))
    return lines


def indented(markdown: str) -> str:
    """Indent nested blocks of lists by four spaces a level, and begin lists after a blank line."""
    written: list[str] = []
    levels: list[int] = []
    fence, previous, in_list = "", "", False
    for line in markdown.splitlines():
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        was_code = bool(fence)
        fence, code = _fence(line, fence)
        if not text:
            written.append("")
            previous = ""
            continue
        if not was_code:
            marker = None if code else MARKER.match(text)
            while levels and indent < levels[-1] and (previous == "" or marker or code or text.startswith("#")):
                levels.pop()
            if marker and not levels and previous and not previous.lstrip().startswith(("|", "#")) and not in_list:
                written.append("")
        depth, base = len(levels), levels[-1] if levels else 0
        written.append(" " * (4 * depth + max(indent - base, 0)) + text)
        if not was_code and not code and (marker := MARKER.match(text)):
            levels.append(indent + len(marker[0]))
        in_list = bool(levels)
        previous = line
    return "\n".join(written) + "\n"
