"""What does a mail or a text say? A template and its variables become a subject, a text and the same as HTML."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from markupsafe import escape
from pydantic import ValidationError

from services.mailer import samples
from services.mailer.errors import UnusableTemplate, UnusableVariables
from services.mailer.models.looks import Looks
from services.mailer.sources import Sources, in_words
from shared.mail import best_locale
from shared.messages import Part
from shared.messages.mailer.mails import VARIABLES, Template
from shared.messages.mailer.texts import TEXT_VARIABLES, TextTemplate

KEPT: Final = 512
"""Rendered letters kept in memory; some 10 KB each."""
LONG_LINE: Final = 300
"""Characters; a link that is put into a line later may make it longer by far."""
_TAG: Final = re.compile(r"(<[a-z][a-z0-9:]*) (?=[^<>]*>)")
_HOLES: Final = {name: secrets.token_hex(16) for name in ("link", "unsubscribe")}
"""Stand for the links in a kept letter; random, so that nobody can have written them into a name."""
_GAP: Final = re.compile(r"\n{3,}")
_CONTROL: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's controls, invisible marks that turn the reading direction, halves of characters, line separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible too, and needed: Persian names and emoji are written with them."""

Wanted = Sequence[str | None]
"""The languages that somebody reads, the dearest first; None where one is not known."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail's content.

    Attributes:
        subject: one line.
        text: for those who read no HTML; says the same.
        html: one document.
        locale: the language that it is written in.
    """

    subject: str
    text: str
    html: str
    locale: str = "en"


class Letters:
    """Writes letters.

    Args:
        sources: the templates.
    """

    def __init__(self, sources: Sources) -> None:
        self._html, self._text = sources.environment("html"), sources.environment("txt")
        self._locales = {name: frozenset(sources.having(f"{name}.jinja")) for name in VARIABLES}
        # Mails with links are by far the most, and differ in little else: they are rendered once around holes.
        self._render = lru_cache(maxsize=KEPT)(self._rendered)

    def language(self, template: Template, *, looks: Looks, wanted: Wanted = ()) -> str:
        """The best language that there is for a letter.

        Args:
            template: which one.
            looks: what it wears.
            wanted: the languages that its reader reads; after them that of the looks, and English.
        """
        return best_locale((*wanted, looks.locale), self._locales[template])

    def write(
        self,
        template: Template,
        variables: str,
        *,
        looks: Looks,
        wanted: Wanted = (),
        unsubscribe: str | None = None,
    ) -> Letter:
        """A letter in the best language that there is.

        Args:
            template: which one.
            variables: JSON of the template's class in ``VARIABLES``.
            looks: what it wears.
            wanted: as for ``language``.
            unsubscribe: where its reader is rid of news; None: it offers nothing of the kind.

        Raises:
            UnusableVariables: the JSON is not that.
        """
        shown = {**_shown(VARIABLES[template], template, variables), "unsubscribe": unsubscribe}
        locale = self.language(template, looks=looks, wanted=wanted)
        links = {name: shown[name] for name in _HOLES if shown.get(name) is not None}
        hollow = self._render(template, locale, looks, **{**shown, **{name: _HOLES[name] for name in links}})
        text, html = hollow.text, hollow.html
        for name, link in links.items():
            text, html = text.replace(_HOLES[name], link), html.replace(_HOLES[name], str(escape(link)))
        return replace(hollow, text=text, html=html)

    def check(self) -> None:
        """Write each template in each language once, with all that it may be given and with what it needs.

        Raises:
            UnusableTemplate: one can't be written.
        """
        looks = Looks(product_name="Product", sender_address="a@example.com", support_address="b@example.com")
        for template, locales in self._locales.items():
            for locale in sorted(locales):
                for variables, link in (
                    (samples.full(template), samples.UNSUBSCRIBE),
                    (samples.needed(template), None),
                ):
                    try:
                        self.write(template, variables, looks=looks, wanted=[locale], unsubscribe=link)
                    except Exception as failure:  # noqa: BLE001 -- a template may do anything
                        raise UnusableTemplate(in_words(failure, f"{locale}/{template}.jinja")) from None

    def _rendered(self, template: Template, locale: str, looks: Looks, **shown: Any) -> Letter:
        name = f"{locale}/{template}"
        given = {**shown, "looks": looks, "colours": looks.palette, "locale": locale}
        head, _, body = self._text.get_template(name).render(given).lstrip().partition("\n\n")
        return Letter(
            subject=" ".join(head.split()),
            text=_GAP.sub("\n\n", body).strip() + "\n",
            html=_in_short_lines(self._html.get_template(name).render(given)),
            locale=locale,
        )


def _in_short_lines(html: str) -> str:
    """The same HTML, its long lines broken inside of tags, where a break means nothing.

    A mail with lines of 998 characters and fewer goes out as it is; to encode the others for each mail costs more than
    all else about it.
    """
    return "\n".join(line if len(line) <= LONG_LINE else _TAG.sub(r"\1\n", line) for line in html.split("\n"))


class Texts:
    """Writes texts.

    Args:
        sources: the templates.
        domain: the website whose pages may fill a code in by themselves; None for no such line. The last line names it
            and the code (https://wicg.github.io/sms-one-time-codes/).
    """

    def __init__(self, sources: Sources, domain: str | None) -> None:
        self._environment = sources.environment("txt")
        self._locales = {name: frozenset(sources.having(f"texts/{name}.txt")) for name in TEXT_VARIABLES}
        self._domain = domain

    def write(self, template: TextTemplate, variables: str, *, looks: Looks, wanted: Wanted = ()) -> str:
        """What a text says, in the best language that there is.

        Args:
            template: which one.
            variables: JSON of the template's class in ``TEXT_VARIABLES``.
            looks: whose text it is.
            wanted: as in ``Letters.write``.

        Raises:
            UnusableVariables: the JSON is not that.
        """
        shown = _shown(TEXT_VARIABLES[template], template, variables)
        locale = best_locale((*wanted, looks.locale), self._locales[template])
        given = {**shown, "looks": looks, "colours": looks.palette, "locale": locale, "domain": self._domain}
        return self._environment.get_template(f"{locale}/texts/{template}").render(given).strip()

    def check(self) -> None:
        """Write each template in each language once.

        Raises:
            UnusableTemplate: one can't be written.
        """
        looks = Looks(product_name="Product", sender_address="a@example.com", support_address="b@example.com")
        for template, locales in self._locales.items():
            for locale in sorted(locales):
                try:
                    self.write(template, samples.full(template), looks=looks, wanted=[locale])
                except Exception as failure:  # noqa: BLE001 -- a template may do anything
                    raise UnusableTemplate(in_words(failure, f"{locale}/texts/{template}.txt")) from None


def one_line(text: str) -> str:
    """The text without what breaks a line or can't be seen: what comes from outside must not look like ours."""
    if text.isascii() and text.isprintable():
        return text
    kept = [c if c in _JOINERS or unicodedata.category(c) not in _CONTROL else " " for c in text]
    return " ".join("".join(kept).split())


def _shown(kind: type[Part], template: str, variables: str) -> dict[str, Any]:
    try:
        given = kind.model_validate_json(variables)
    except ValidationError as wrong:
        errors = wrong.errors(include_url=False, include_context=False, include_input=False)
        places = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['type']}" for error in errors[:5])
        # Without its cause: a validation error quotes what it was given, links that log people in among it.
        raise UnusableVariables(f"{template}: {places}") from None
    return {name: _presentable(value) for name, value in given}


def _presentable(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value
