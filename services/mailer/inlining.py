"""How do styles survive mail programs that drop style sheets? Each class becomes a ``style`` attribute, once, at start.

The sheet says for each class how it looks; two blocks of ``@media`` say what changes in dark mode and on narrow
screens. Only these two are left as a sheet, for the mail programs that read one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.mailer.errors import UnusableTemplate

_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
_MEDIA: Final = re.compile(r"@media\s*\(([^)]*)\)\s*\{((?:[^{}]*\{[^{}]*\})*)\s*\}")
_RULE: Final = re.compile(r"([^{}]+)\{([^{}]*)\}")
_CLASS: Final = re.compile(r"\.([a-z][a-z0-9-]*)")
_COLOUR: Final = re.compile(r"var\(--([a-z-]+)\)")
_CLASSES: Final = re.compile(r'\bclass="([a-z0-9 -]*)"')


@dataclass(frozen=True, slots=True)
class Sheet:
    """A style sheet, read.

    Attributes:
        styles: each class's declarations, for a ``style`` attribute.
        conditional: the rules of dark mode and narrow screens, as they stand in a mail.
    """

    styles: dict[str, str]
    conditional: str

    @classmethod
    def read(cls, text: str) -> Sheet:
        """The sheet of a text in the small part of CSS that is used here: rules of single classes, and ``@media``.

        ``var(--page)`` stands for a colour of the mail's ``Palette``.

        Raises:
            UnusableTemplate: something else is in it.
        """
        text = _COMMENT.sub("", text)
        blocks = {condition: _rules(body) for condition, body in _MEDIA.findall(text)}
        return cls(_rules(_MEDIA.sub("", text)), "\n".join(_block(*block) for block in blocks.items()))

    def inlined(self, source: str) -> str:
        """A template whose classes have become styles; the classes stay, for dark mode and narrow screens.

        Raises:
            UnusableTemplate: a class that the sheet does not know.
        """
        return _CLASSES.sub(self._styled, source)

    def _styled(self, found: re.Match[str]) -> str:
        names = found[1].split()
        unknown = [name for name in names if name not in self.styles]
        if unknown:
            raise UnusableTemplate(f"class {unknown[0]} is not in styles.css")
        style = ";".join(filter(None, (self.styles[name] for name in names)))
        return f'{found[0]} style="{style}"' if style else found[0]


def _rules(text: str) -> dict[str, str]:
    rules: dict[str, str] = {}
    for selectors, body in _RULE.findall(text):
        style = ";".join(" ".join(each.split()) for each in body.split(";") if each.strip()).replace(": ", ":")
        for selector in selectors.split(","):
            named = _CLASS.fullmatch(selector.strip())
            if named is None:
                raise UnusableTemplate(f"styles.css: {selector.strip()} is not a single class")
            rules[named[1]] = ";".join(filter(None, (rules.get(named[1]), _coloured(style))))
    if left := _RULE.sub("", text).strip():
        raise UnusableTemplate(f"styles.css: not understood: {left[:40]}")
    return rules


def _coloured(style: str) -> str:
    return _COLOUR.sub(lambda found: "{{ colours." + found[1].replace("-", "_") + " }}", style)


def _block(condition: str, rules: dict[str, str]) -> str:
    # What stands in the sheet must go before what stands in the attributes.
    lines = [f".{name}{{{_important(style)}}}" for name, style in rules.items()]
    block = f"@media ({condition}){{\n" + "\n".join(lines) + "\n}"
    if "dark" not in condition:
        return block
    # Outlook on the web and for phones knows no media query for it: it marks what it has made dark, colours and
    # backgrounds each with an attribute of its own.
    marked = []
    for name, style in rules.items():
        for attribute, properties in (("data-ogsc", ("color:",)), ("data-ogsb", ("background:", "background-color:"))):
            own = ";".join(each for each in style.split(";") if each.startswith(properties))
            if own:
                marked.append(f"[{attribute}] .{name}{{{_important(own)}}}")
    return "\n".join([block, *marked])


def _important(style: str) -> str:
    return ";".join(f"{each} !important" for each in style.split(";"))
