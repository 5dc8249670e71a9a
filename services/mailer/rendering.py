"""What does a mail or a text say? A template and its variables become a subject, a text and the same as HTML."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2 import Template as Compiled
from markupsafe import escape
from pydantic import ValidationError

from services.mailer.errors import UnusableVariables
from shared.messages import Part
from shared.messages.mailer import TEXT_VARIABLES, VARIABLES, Template, TextTemplate

FOLDER: Final = Path(__file__).parent / "templates"
LANGUAGE: Final = "en"
KEPT: Final = 256
"""Rendered letters kept in memory."""
_HOLE: Final = secrets.token_hex(16)
"""Stands for the link in a kept letter; random, so that nobody can have written it into a name."""
_SUBJECT: Final = "Subject: "
_CONTROL: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's controls, invisible marks that turn the reading direction, halves of characters, line separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible too, and needed: Persian names and emoji are written with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """Whose mail it is, and what it looks like.

    Attributes:
        product_name: how the product is called.
        support_address: where people may write to.
        accent_colour: ``#rrggbb``, of the button; white text stands on it.
        logo_url: an image 32 pixels high; None: the name is written.
    """

    product_name: str
    support_address: str
    accent_colour: str = "#2f57d6"
    logo_url: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail's content.

    Attributes:
        subject: one line.
        text: for those who read no HTML; says the same.
        html: one document.
    """

    subject: str
    text: str
    html: str


class Letters:
    """Writes letters from a folder of templates, all of them compiled at once.

    A template is two files, ``<language>/<name>.txt``, whose first line is ``Subject: …``, and ``<name>.html``.

    Args:
        brand: whose mails they are.

    Raises:
        jinja2.TemplateError: a template is missing or can't be compiled.
    """

    def __init__(self, brand: Brand) -> None:
        environment = _environment(brand)
        self._compiled: dict[Template, tuple[Compiled, Compiled]] = {
            name: (
                environment.get_template(f"{LANGUAGE}/{name}.txt"),
                environment.get_template(f"{LANGUAGE}/{name}.html"),
            )
            for name in VARIABLES
        }
        # Mails with a link are by far the most, and differ in nothing else: they are rendered once around a hole.
        self._render = lru_cache(maxsize=KEPT)(self._rendered)

    def write(self, template: Template, variables: str) -> Letter:
        """A letter.

        Args:
            template: which one.
            variables: JSON of the template's class in ``VARIABLES``.

        Raises:
            UnusableVariables: the JSON is not that.
        """
        shown = _shown(VARIABLES[template], template, variables)
        link = shown.get("link")
        if link is None:
            return self._render(template, **shown)
        hollow = self._render(template, **{**shown, "link": _HOLE})
        return Letter(
            subject=hollow.subject,
            text=hollow.text.replace(_HOLE, link),
            html=hollow.html.replace(_HOLE, str(escape(link))),
        )

    def _rendered(self, template: Template, **shown: Any) -> Letter:
        text, html = self._compiled[template]
        head, _, body = text.render(shown).partition("\n\n")
        return Letter(subject=head.removeprefix(_SUBJECT), text=body, html=html.render(shown))


class Texts:
    """Writes texts from the templates ``<language>/texts/<name>.txt``, all of them compiled at once.

    Args:
        brand: whose texts they are.
        domain: the website whose pages may fill a code in by themselves; None for no such line. The last line names it
            and the code (https://wicg.github.io/sms-one-time-codes/).

    Raises:
        jinja2.TemplateError: a template is missing or can't be compiled.
    """

    def __init__(self, brand: Brand, domain: str | None) -> None:
        environment = _environment(brand)
        environment.globals["domain"] = domain
        self._compiled: dict[TextTemplate, Compiled] = {
            name: environment.get_template(f"{LANGUAGE}/texts/{name}.txt") for name in TEXT_VARIABLES
        }

    def write(self, template: TextTemplate, variables: str) -> str:
        """What a text says.

        Args:
            template: which one.
            variables: JSON of the template's class in ``TEXT_VARIABLES``.

        Raises:
            UnusableVariables: the JSON is not that.
        """
        return self._compiled[template].render(_shown(TEXT_VARIABLES[template], template, variables)).strip()


def day(moment: datetime) -> str:
    """The day of a moment in UTC: ``5 December 2026``."""
    return f"{moment.astimezone(UTC):%-d %B %Y}"


def one_line(text: str) -> str:
    """The text without what breaks a line or can't be seen: what comes from outside must not look like ours."""
    if text.isascii() and text.isprintable():
        return text
    kept = [c if c in _JOINERS or unicodedata.category(c) not in _CONTROL else " " for c in text]
    return " ".join("".join(kept).split())


def _environment(brand: Brand) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        # What is inserted into HTML is escaped; text is left as it is.
        autoescape=select_autoescape(enabled_extensions=("html",), default=False),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["brand"] = brand
    environment.filters["day"] = day
    return environment


def _shown(kind: type[Part], template: str, variables: str) -> dict[str, Any]:
    try:
        given = kind.model_validate_json(variables)
    except ValidationError as wrong:
        errors = wrong.errors(include_url=False, include_context=False, include_input=False)
        places = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['type']}" for error in errors[:5])
        # Without its cause: a validation error quotes what it was given, links that log people in among it.
        raise UnusableVariables(f"{template}: {places}") from None
    return {name: one_line(value) if isinstance(value, str) else value for name, value in given}
