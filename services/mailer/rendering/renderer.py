"""Rendering of mails and texts: a template and its variables become subject, plain text and HTML."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final

from markupsafe import escape
from pydantic import ValidationError

from services.mailer.branding.models import Branding
from services.mailer.rendering import samples
from services.mailer.rendering.template_loader import Templates, UnusableTemplate, describe_failure
from shared.messages import Part
from shared.messages.languages import best_locale
from shared.messages.mailer.mails import VARIABLES, Template
from shared.messages.mailer.texts import TEXT_VARIABLES, TextTemplate

CACHED_MAILS: Final = 512
"""Rendered mails in the cache, some 10 KB each."""
MAX_HTML_LINE: Final = 300
"""Characters; a link that is inserted into a line later makes it much longer."""
_TAG: Final = re.compile(r"(<[a-z][a-z0-9:]*) (?=[^<>]*>)")
_PLACEHOLDERS: Final = {name: secrets.token_hex(16) for name in ("link", "unsubscribe", "code")}
"""Stand for the links and the typed code in a cached mail; random, so that no variable can contain one."""
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_CONTROL: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, invisible formatting (such as bidirectional overrides), surrogates, line and
paragraph separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible too, but required in Persian names and emoji."""

Locales = Sequence[str | None]
"""Languages in order of preference; None for an unknown one."""


class UnusableVariables(Exception):
    """The variables of an order do not fit its template; the text names the fields, never their values."""


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """Content of a mail: a subject in one line, and a plain text and an HTML document with the same content."""

    subject: str
    text: str
    html: str
    locale: str = "en"


class MailRenderer:
    """Renders mails."""

    def __init__(self, templates: Templates) -> None:
        self._html, self._text = templates.environment("html"), templates.environment("txt")
        self._locales = {name: frozenset(templates.locales_with(f"{name}.jinja")) for name in VARIABLES}
        # Most mails contain links and codes and differ in little else: they are rendered once, with placeholders for
        # these, which therefore are not kept in memory.
        self._render_cached = lru_cache(maxsize=CACHED_MAILS)(self._render)

    def choose_locale(self, template: Template, *, branding: Branding, requested: Locales = ()) -> str:
        """Return the best available language of a mail: a requested one, else that of the branding, else English."""
        return best_locale((*requested, branding.locale), self._locales[template])

    def render(
        self,
        template: Template,
        variables: str,
        *,
        branding: Branding,
        requested: Locales = (),
        unsubscribe: str | None = None,
    ) -> RenderedMail:
        """Render a mail in the best available language, with an unsubscribe link or without (None).

        ``variables`` is JSON of the template's class in ``VARIABLES``.

        Raises:
            UnusableVariables: the JSON does not fit the class.
        """
        values = {**_parsed(VARIABLES[template], template, variables), "unsubscribe": unsubscribe}
        locale = self.choose_locale(template, branding=branding, requested=requested)
        links = {name: values[name] for name in _PLACEHOLDERS if values.get(name) is not None}
        placeholders = {name: _PLACEHOLDERS[name] for name in links}
        cached = self._render_cached(template, locale, branding, **{**values, **placeholders})
        text, html = cached.text, cached.html
        for name, link in links.items():
            text, html = text.replace(_PLACEHOLDERS[name], link), html.replace(_PLACEHOLDERS[name], str(escape(link)))
        return replace(cached, text=text, html=html)

    def check(self) -> None:
        """Render each template in each language, with all variables and with the required ones only.

        Raises:
            UnusableTemplate: a template cannot be rendered.
        """
        for template, locales in self._locales.items():
            render = partial(self.render, template, branding=samples.BRANDING)
            for locale in sorted(locales):
                with _template_checked(f"{locale}/{template}.jinja"):
                    render(samples.all_variables(template), requested=[locale], unsubscribe=samples.UNSUBSCRIBE)
                    render(samples.required_variables(template), requested=[locale])

    def _render(self, template: Template, locale: str, branding: Branding, **values: Any) -> RenderedMail:
        name = f"{locale}/{template}"
        context = {**values, **_common_variables(branding, locale)}
        head, _, body = self._text.get_template(name).render(context).lstrip().partition("\n\n")
        return RenderedMail(
            subject=" ".join(head.split()),
            text=_BLANK_LINES.sub("\n\n", body).strip() + "\n",
            html=_in_short_lines(self._html.get_template(name).render(context)),
            locale=locale,
        )


def _in_short_lines(html: str) -> str:
    """Break long lines inside of tags, where a line break has no meaning.

    A mail whose lines have at most 998 characters is sent unencoded; encoding each mail would cost more CPU than all
    other steps together.
    """
    return "\n".join(line if len(line) <= MAX_HTML_LINE else _TAG.sub(r"\1\n", line) for line in html.split("\n"))


class TextRenderer:
    """Renders texts.

    ``domain`` is the website whose pages may fill in the code automatically: the text's last line names it and the code
    (https://wicg.github.io/sms-one-time-codes/). None for no such line.
    """

    def __init__(self, templates: Templates, domain: str | None) -> None:
        self._environment = templates.environment("txt")
        self._locales = {name: frozenset(templates.locales_with(f"texts/{name}.txt")) for name in TEXT_VARIABLES}
        self._domain = domain

    def choose_locale(self, template: TextTemplate, *, branding: Branding, requested: Locales = ()) -> str:
        """Return the best available language of a text: a requested one, else that of the branding, else English."""
        return best_locale((*requested, branding.locale), self._locales[template])

    def render(self, template: TextTemplate, variables: str, *, branding: Branding, requested: Locales = ()) -> str:
        """Render a text in the best available language: a requested one, else that of the branding, else English.

        ``variables`` is JSON of the template's class in ``TEXT_VARIABLES``.

        Raises:
            UnusableVariables: the JSON does not fit the class.
        """
        values = _parsed(TEXT_VARIABLES[template], template, variables)
        locale = self.choose_locale(template, branding=branding, requested=requested)
        context = {**values, **_common_variables(branding, locale), "domain": self._domain}
        return self._environment.get_template(f"{locale}/texts/{template}").render(context).strip()

    def check(self) -> None:
        """Render each template in each language.

        Raises:
            UnusableTemplate: a template cannot be rendered.
        """
        for template, locales in self._locales.items():
            variables = samples.all_variables(template)
            for locale in sorted(locales):
                with _template_checked(f"{locale}/texts/{template}.txt"):
                    self.render(template, variables, branding=samples.BRANDING, requested=[locale])


@contextmanager
def _template_checked(file: str) -> Iterator[None]:
    try:
        yield
    except Exception as failure:  # noqa: BLE001 -- a template may raise anything
        raise UnusableTemplate(describe_failure(failure, file)) from None


def one_line(text: str) -> str:
    """Replace line breaks and invisible characters by spaces, so that a variable cannot imitate our own text."""
    if text.isascii() and text.isprintable():
        return text
    visible = [c if c in _JOINERS or unicodedata.category(c) not in _CONTROL else " " for c in text]
    return " ".join("".join(visible).split())


def _common_variables(branding: Branding, locale: str) -> dict[str, Any]:
    return {"looks": branding, "colours": branding.palette, "locale": locale}


def _parsed(kind: type[Part], template: str, variables: str) -> dict[str, Any]:
    try:
        parsed = kind.model_validate_json(variables)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        fields = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['type']}" for error in errors[:5])
        # Without a cause: a validation error quotes its input, which contains login links.
        raise UnusableVariables(f"{template}: {fields}") from None
    return {name: _presentable(value) for name, value in parsed}


def _presentable(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value
