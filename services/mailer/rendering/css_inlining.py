"""CSS inlining: replaces classes by ``style`` attributes when templates are loaded.

Many mail clients drop style sheets. The style sheet declares each class, and in two ``@media`` blocks its changes in
dark mode and on narrow screens. Only these two blocks remain a style sheet, for the mail clients that support one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
_MEDIA: Final = re.compile(r"@media\s*\(([^)]*)\)\s*\{((?:[^{}]*\{[^{}]*\})*)\s*\}")
_RULE: Final = re.compile(r"([^{}]+)\{([^{}]*)\}")
_CLASS: Final = re.compile(r"\.([a-z][a-z0-9-]*)")
_COLOUR: Final = re.compile(r"var\(--([a-z-]+)\)")
_CLASSES: Final = re.compile(r'\bclass="([a-z0-9 -]*)"')


class UnusableStyle(Exception):
    """The style sheet has unsupported syntax, or a template uses an unknown class; the text says which."""


@dataclass(frozen=True, slots=True)
class StyleSheet:
    """A parsed style sheet: the declarations of each class, and the ``@media`` blocks as they appear in a mail."""

    styles: dict[str, str]
    media_blocks: str

    @classmethod
    def parse(cls, text: str) -> StyleSheet:
        """Parse a style sheet of the supported subset of CSS: rules of single classes, and ``@media``.

        ``var(--page)`` is replaced by a colour of the mail's ``Palette``.

        Raises:
            UnusableStyle: the sheet contains other syntax.
        """
        text = _COMMENT.sub("", text)
        blocks = {condition: _rules(body) for condition, body in _MEDIA.findall(text)}
        return cls(_rules(_MEDIA.sub("", text)), "\n".join(_media_block(*block) for block in blocks.items()))

    def inlined(self, template: str) -> str:
        """Return a template with ``style`` attributes added; classes remain for dark mode and narrow screens.

        Raises:
            UnusableStyle: the template uses an unknown class.
        """
        return _CLASSES.sub(self._with_style, template)

    def _with_style(self, match: re.Match[str]) -> str:
        names = match[1].split()
        unknown = [name for name in names if name not in self.styles]
        if unknown:
            raise UnusableStyle(f"class {unknown[0]} is not in styles.css")
        style = ";".join(filter(None, (self.styles[name] for name in names)))
        return f'{match[0]} style="{style}"' if style else match[0]


def _rules(text: str) -> dict[str, str]:
    rules: dict[str, str] = {}
    for selectors, body in _RULE.findall(text):
        style = ";".join(" ".join(each.split()) for each in body.split(";") if each.strip()).replace(": ", ":")
        for selector in selectors.split(","):
            name = _CLASS.fullmatch(selector.strip())
            if name is None:
                raise UnusableStyle(f"styles.css: {selector.strip()} is not a single class")
            rules[name[1]] = ";".join(filter(None, (rules.get(name[1]), _with_colours(style))))
    if rest := _RULE.sub("", text).strip():
        raise UnusableStyle(f"styles.css: unsupported syntax: {rest[:40]}")
    return rules


def _with_colours(style: str) -> str:
    return _COLOUR.sub(lambda match: "{{ colours." + match[1].replace("-", "_") + " }}", style)


def _media_block(condition: str, rules: dict[str, str]) -> str:
    # !important, since attributes otherwise take precedence over the sheet.
    lines = [f".{name}{{{_important(style)}}}" for name, style in rules.items()]
    block = f"@media ({condition}){{\n" + "\n".join(lines) + "\n}"
    if "dark" not in condition:
        return block
    # Outlook on the web and on phones has no media query for dark mode: it marks elements that it has darkened, with
    # one attribute for colours and another for backgrounds.
    outlook = []
    for name, style in rules.items():
        for attribute, properties in (("data-ogsc", ("color:",)), ("data-ogsb", ("background:", "background-color:"))):
            own = ";".join(each for each in style.split(";") if each.startswith(properties))
            if own:
                outlook.append(f"[{attribute}] .{name}{{{_important(own)}}}")
    return "\n".join([block, *outlook])


def _important(style: str) -> str:
    return ";".join(f"{each} !important" for each in style.split(";"))
