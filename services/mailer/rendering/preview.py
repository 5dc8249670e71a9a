"""Preview of mails and texts: one HTML page with every template, in every language and in several brandings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from services.mailer.branding.models import Branding
from services.mailer.consents.unsubscribe_links import UNSUBSCRIBABLE
from services.mailer.rendering import samples
from services.mailer.rendering.renderer import MailRenderer, RenderedMail, TextRenderer
from services.mailer.rendering.template_loader import Templates
from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES

MODES: Final = {"light": "not all", "dark": "all"}
"""Media condition per colour scheme. A frame cannot be switched between schemes, so each mail is written for one."""
_LOGO: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='120' height='32'%3E%3Crect width='120' "
    "height='32' rx='6' fill='%23ffd400'/%3E%3Ctext x='60' y='22' text-anchor='middle' font-family='sans-serif' "
    "font-size='16' fill='%23000'%3EA logo%3C/text%3E%3C/svg%3E"
)


@dataclass(frozen=True, slots=True)
class PreviewItem:
    """A rendered mail or text on the page, with the names of its template and branding. A text has no HTML."""

    name: str
    locale: str
    branding: str
    mail: RenderedMail

    @property
    def path(self) -> str:
        """Path of its files below the preview folder, without suffix."""
        return f"{self.branding}/{self.locale}/{self.name}"


def preview_brandings(default: Branding) -> dict[str, Branding]:
    """Return the brandings to show: the default, and two that are hard to render well."""
    return {
        "own": default,
        "bright": replace(default, accent_colour="#ffd400", background_colour="#10223a", logo_url=_LOGO),
        "long": replace(
            default, product_name="The Extraordinarily Long-Named Product of Llanfairpwllgwyngyll & Daughters"
        ),
    }


def render_all(templates: Templates, brandings: Mapping[str, Branding], domain: str | None) -> Iterator[PreviewItem]:
    """Render every template in every language and every branding.

    Raises:
        UnusableTemplate: a template cannot be used.
    """
    templates.check()
    mails, texts = MailRenderer(templates), TextRenderer(templates, domain)
    mails.check()
    texts.check()
    for label, branding in brandings.items():
        for template in VARIABLES:
            for locale in sorted(templates.locales_with(f"{template}.jinja")):
                link = samples.UNSUBSCRIBE if template in UNSUBSCRIBABLE else None
                variables = samples.all_variables(template)
                mail = mails.render(template, variables, branding=branding, requested=[locale], unsubscribe=link)
                yield PreviewItem(template, locale, label, mail)
        for text in TEXT_VARIABLES:
            for locale in sorted(templates.locales_with(f"texts/{text}.txt")):
                body = texts.render(text, samples.all_variables(text), branding=branding, requested=[locale])
                yield PreviewItem(text, locale, label, RenderedMail(subject="", text=body, html="", locale=locale))


def write_preview(folder: Path, items: list[PreviewItem]) -> Path:
    """Write each item to files, and a page that shows all of them; return the page's path."""
    for item in items:
        (folder / item.path).parent.mkdir(parents=True, exist_ok=True)
        if item.mail.html:
            (folder / f"{item.path}.html").write_text(item.mail.html, "utf-8")
            for mode, condition in MODES.items():
                frame = folder / "frames" / f"{item.path}.{mode}.html"
                frame.parent.mkdir(parents=True, exist_ok=True)
                frame.write_text(item.mail.html.replace("(prefers-color-scheme: dark)", condition), "utf-8")
        head = f"Subject: {item.mail.subject}\n\n" if item.mail.subject else ""
        (folder / f"{item.path}.txt").write_text(f"{head}{item.mail.text}", "utf-8")
    environment = Environment(
        loader=PackageLoader("services.mailer.rendering", "preview_page"), autoescape=True, undefined=StrictUndefined
    )
    page = folder / "index.html"
    page.write_text(environment.get_template("index.html").render(items=items), "utf-8")
    return page
