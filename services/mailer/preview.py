"""What does every mail look like? A page that shows each of them, in every language and in several looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from services.mailer import samples
from services.mailer.models.looks import Looks
from services.mailer.rendering import Letter, Letters, Texts
from services.mailer.sources import Sources
from services.mailer.unsubscribing import UNSUBSCRIBABLE
from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES

PLAIN: Final = Looks(product_name="Product", sender_address="mail@example.com", support_address="help@example.com")
"""What is shown where the settings name no looks."""
MODES: Final = {"light": "not all", "dark": "all"}
"""A frame can't be told which mode it is in: its mail is written for the one."""
_LOGO: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='120' height='32'%3E%3Crect width='120' "
    "height='32' rx='6' fill='%23ffd400'/%3E%3Ctext x='60' y='22' text-anchor='middle' font-family='sans-serif' "
    "font-size='16' fill='%23000'%3EA logo%3C/text%3E%3C/svg%3E"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A mail or a text on the page.

    Attributes:
        name: its template.
        locale: its language.
        looks: what it wears, by name.
        letter: the mail; a text has no HTML.
    """

    name: str
    locale: str
    looks: str
    letter: Letter

    @property
    def path(self) -> str:
        """Where it is written, without its ending."""
        return f"{self.looks}/{self.locale}/{self.name}"


def all_looks(own: Looks) -> dict[str, Looks]:
    """Those to be shown: a deployment's own, and two that are hard to get right."""
    return {
        "own": own,
        "bright": replace(own, accent_colour="#ffd400", background_colour="#10223a", logo_url=_LOGO),
        "long": replace(own, product_name="The Extraordinarily Long-Named Product of Llanfairpwllgwyngyll & Daughters"),
    }


def written(sources: Sources, looks: Mapping[str, Looks], domain: str | None) -> Iterator[Shown]:
    """Every template in every language and in all looks.

    Raises:
        UnusableTemplate: one can't be used.
    """
    sources.check()
    letters, texts = Letters(sources), Texts(sources, domain)
    letters.check()
    texts.check()
    for label, worn in looks.items():
        for template in VARIABLES:
            for locale in sorted(sources.having(f"{template}.jinja")):
                link = samples.UNSUBSCRIBE if template in UNSUBSCRIBABLE else None
                letter = letters.write(template, samples.full(template), looks=worn, wanted=[locale], unsubscribe=link)
                yield Shown(template, locale, label, letter)
        for text in TEXT_VARIABLES:
            for locale in sorted(sources.having(f"texts/{text}.txt")):
                body = texts.write(text, samples.full(text), looks=worn, wanted=[locale])
                yield Shown(text, locale, label, Letter(subject="", text=body, html="", locale=locale))


def write_preview(folder: Path, shown: list[Shown]) -> Path:
    """Write each into a file, and a page that shows all; returns the page."""
    for each in shown:
        (folder / each.path).parent.mkdir(parents=True, exist_ok=True)
        if each.letter.html:
            (folder / f"{each.path}.html").write_text(each.letter.html, "utf-8")
            for mode, condition in MODES.items():
                frame = folder / "frames" / f"{each.path}.{mode}.html"
                frame.parent.mkdir(parents=True, exist_ok=True)
                frame.write_text(each.letter.html.replace("(prefers-color-scheme: dark)", condition), "utf-8")
        head = f"Subject: {each.letter.subject}\n\n" if each.letter.subject else ""
        (folder / f"{each.path}.txt").write_text(f"{head}{each.letter.text}", "utf-8")
    environment = Environment(
        loader=PackageLoader("services.mailer", "preview_page"), autoescape=True, undefined=StrictUndefined
    )
    page = folder / "index.html"
    page.write_text(environment.get_template("index.html").render(shown=shown), "utf-8")
    return page
