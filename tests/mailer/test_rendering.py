import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, get_args

import pytest

from services.mailer.errors import UnusableVariables
from services.mailer.rendering import Brand, Letter, Letters, day, one_line
from shared.messages.mailer import VARIABLES, Template

LINK = "https://magic.getbeak.app/?code=a.b&state=x%2Fy"
FULL = {
    "link": LINK,
    "minutes": 10,
    "name": "Ada",
    "ends_at": "2026-12-05T23:30:00.000Z",
    "dispute_id": "dp_1",
    "amount": "12.00 EUR",
    "reason": "fraudulent",
}
NEEDED = {name: FULL[name] for name in ("link", "dispute_id", "amount", "reason")}
TEMPLATES: tuple[Template, ...] = get_args(Template)


@pytest.fixture(scope="module")
def letters() -> Letters:
    return Letters(Brand(product_name="Bëak & Co", support_address="help@getbeak.app", accent_colour="#123456"))


def write(letters: Letters, template: Template, variables: dict[str, Any]) -> Letter:
    return letters.write(template, json.dumps(variables))


class Outline(HTMLParser):
    """Notes what is open, and what is wrong."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    parsed.close()
    return parsed


def test_a_dispute_that_is_decided_says_how_and_asks_for_no_evidence(letters: Letters) -> None:
    opened = write(letters, "dispute", NEEDED)
    decided = write(letters, "dispute", {**NEEDED, "outcome": "lost"})
    assert decided.subject == "lost: " + opened.subject
    for before, after in ((opened.text, decided.text), (outline(opened.html).text, outline(decided.html).text)):
        assert "lost" in after
        assert ("Evidence" in before, "Evidence" in after) == (True, False)


def test_every_template_says_what_it_is_given() -> None:
    assert set(VARIABLES) == set(TEMPLATES)


@pytest.mark.parametrize("variables", [FULL, NEEDED], ids=["full", "needed"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_becomes_a_whole_letter(letters: Letters, template: Template, variables: dict[str, Any]) -> None:
    letter = write(letters, template, variables)
    assert letter.subject
    assert "\n" not in letter.subject
    assert "Bëak & Co" in letter.text
    assert "help@getbeak.app" in letter.text
    assert not re.search(r"\n{3,}| \n|None|\{|\}", letter.text)
    parsed = outline(letter.html)
    assert parsed.open == []
    assert "None" not in parsed.text
    # Gmail cuts off what is longer than 102 KB.
    assert len(letter.html.encode()) < 20_000


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_html_survives_mail_programs(letters: Letters, template: Template) -> None:
    parsed = outline(write(letters, template, FULL).html)
    tags = {tag for tag, _ in parsed.tags}
    # Outlook lays out tables only; scripts, forms and linked style sheets are dropped everywhere.
    assert not tags & {"script", "form", "link", "svg", "flex", "section"}
    assert all(attributes.get("role") == "presentation" for tag, attributes in parsed.tags if tag == "table")
    assert all("style" in attributes for tag, attributes in parsed.tags if tag in {"p", "h1", "a", "td"} and attributes)
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in parsed.tags
    assert parsed.tags[0] == ("html", {"lang": "en", "dir": "ltr", "xmlns": "http://www.w3.org/1999/xhtml"})


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_and_the_html_name_the_same_links(letters: Letters, template: Template) -> None:
    letter = write(letters, template, FULL)
    linked = {a["href"] for tag, a in outline(letter.html).tags if tag == "a" and a["href"] is not None}
    assert {href for href in linked if href.startswith("https:")} == set(re.findall(r"https://\S+", letter.text))


def test_links_lead_where_they_say(letters: Letters) -> None:
    for template in ("magic-link", "trial-magic-link"):
        letter = write(letters, template, NEEDED)
        assert f"\n{LINK}\n" in letter.text
        links = [attributes["href"] for tag, attributes in outline(letter.html).tags if tag == "a"]
        assert links == [LINK, LINK, "mailto:help@getbeak.app"]


def test_letters_of_one_template_differ_in_what_they_were_given(letters: Letters) -> None:
    for number in range(3):
        link = f"https://getbeak.app/?code={number}&a='\"<>"
        letter = write(letters, "magic-link", {"link": link, "minutes": number + 1})
        assert link in letter.text
        assert f"for {number + 1} minutes" in letter.text
        assert outline(letter.html).tags[-3][1].get("href") != LINK
        assert link in [attributes.get("href") for _, attributes in outline(letter.html).tags]


def test_what_is_inserted_into_html_is_escaped(letters: Letters) -> None:
    letter = write(letters, "welcome", {"name": '<img src=x onerror="alert(1)">'})
    assert "<img" not in letter.html
    assert '<img src=x onerror="alert(1)">' in letter.text


def test_a_name_stays_on_its_line_and_short(letters: Letters) -> None:
    letter = write(letters, "welcome", {"name": "Eve,\r\n\r\nyour account is locked: evil.example " + "x" * 10_000})
    assert letter.text.startswith("Hello Eve, your account is locked: evil.example")
    assert len(letter.text.splitlines()[0]) < 80


def test_a_trial_ends_on_a_day_in_utc(letters: Letters) -> None:
    assert "until 5 December 2026." in write(letters, "welcome-trial", FULL).text


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "link: missing"),
        ({"link": "https://a b"}, "link: string_pattern_mismatch"),
        ({"link": "https://a\u202eb"}, "link: string_pattern_mismatch"),
        ({"link": LINK, "minutes": "secret"}, "minutes: int_parsing"),
        ([], ": model_type"),
    ],
)
def test_wrong_variables_are_named_by_place_only(letters: Letters, variables: Any, place: str) -> None:
    with pytest.raises(UnusableVariables) as unusable:
        letters.write("magic-link", json.dumps(variables))
    assert str(unusable.value) == f"magic-link: {place}"
    assert unusable.value.__cause__ is None


def test_a_logo_takes_the_place_of_the_name() -> None:
    brand = Brand(product_name="Beak", support_address="h@getbeak.app", logo_url="https://getbeak.app/logo.png?a=1&b=2")
    html = write(Letters(brand), "welcome", {}).html
    [image] = [attributes for tag, attributes in outline(html).tags if tag == "img"]
    assert (image["src"], image["alt"]) == ("https://getbeak.app/logo.png?a=1&b=2", "Beak")


def test_one_line_keeps_what_can_be_seen() -> None:
    assert one_line("a\r\nb\t\u2028c\u202ed\x00e") == "a b c d e"
    joined = "नी\u200cल 👩\u200d💻"
    assert one_line(joined) == joined


def test_day_is_written_for_people() -> None:
    assert day(datetime(2026, 12, 5, 23, 59, tzinfo=UTC)) == "5 December 2026"
