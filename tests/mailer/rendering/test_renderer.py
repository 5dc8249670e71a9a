import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mailer.branding.models import Branding
from services.mailer.rendering.renderer import MailRenderer, RenderedMail, TextRenderer, UnusableVariables, one_line
from services.mailer.rendering.template_loader import Templates
from shared.messages.mailer.mails import VARIABLES, Template
from shared.messages.mailer.texts import TEXT_VARIABLES

LINK = "https://magic.getbeak.app/?code=a.b&state=x%2Fy"
UNSUBSCRIBE = "https://nest.example/unsubscribe/k1.abc?lang=en"
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


LOCALES = ("en", "de", "fr", "es", "it")
LOOKS = Branding(
    product_name="Bëak & Co",
    sender_address="mail@getbeak.app",
    support_address="help@getbeak.app",
    accent_colour="#123456",
)


@pytest.fixture(scope="module")
def letters() -> MailRenderer:
    return MailRenderer(Templates.read())


def write(
    letters: MailRenderer,
    template: Template,
    variables: dict[str, Any],
    *,
    branding: Branding = LOOKS,
    locale: str | None = None,
    unsubscribe: str | None = None,
) -> RenderedMail:
    return letters.render(
        template, json.dumps(variables), branding=branding, requested=[locale], unsubscribe=unsubscribe
    )


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
        self.text += f"{data} "


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    parsed.close()
    return parsed


def test_a_dispute_that_is_decided_says_how_and_asks_for_no_evidence(letters: MailRenderer) -> None:
    opened = write(letters, "dispute", NEEDED)
    decided = write(letters, "dispute", {**NEEDED, "outcome": "lost"})
    assert decided.subject == "lost: " + opened.subject
    for before, after in ((opened.text, decided.text), (outline(opened.html).text, outline(decided.html).text)):
        assert "lost" in after
        assert ("Evidence" in before, "Evidence" in after) == (True, False)


def test_every_template_says_what_it_is_given() -> None:
    assert set(VARIABLES) == set(TEMPLATES)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("variables", [FULL, NEEDED], ids=["full", "needed"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_becomes_a_whole_letter(
    letters: MailRenderer, template: Template, variables: dict[str, Any], locale: str
) -> None:
    letter = write(letters, template, variables, locale=locale)
    assert letter.locale == locale
    assert letter.subject
    assert len(letter.subject) < 80
    assert "\n" not in letter.subject
    assert "Bëak & Co" in letter.text
    assert "help@getbeak.app" in letter.text
    assert not re.search(r"\n{3,}| \n|None|\{|\}", letter.text)
    parsed = outline(letter.html)
    assert parsed.open == []
    assert "None" not in parsed.text
    # Gmail cuts off what is longer than 102 KB.
    assert len(letter.html.encode()) < 20_000


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_says_what_the_html_says(letters: MailRenderer, template: Template, locale: str) -> None:
    letter = write(letters, template, FULL, locale=locale, unsubscribe=UNSUBSCRIBE)
    shown = words(outline(letter.html).text)
    # The HTML repeats the link for those who see no button, and has a heading for what the subject says.
    assert set(words(letter.text.replace(LINK, "").replace(UNSUBSCRIBE, ""))) <= set(shown)
    for fact in ("Ada", "12.00 EUR", "fraudulent", LINK):
        assert (fact in letter.text) == (fact in unescape(letter.html))


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_two_languages_say_the_same(letters: MailRenderer, template: Template) -> None:
    written = {locale: write(letters, template, FULL, locale=locale) for locale in LOCALES}
    assert len({letter.text for letter in written.values()}) == len(LOCALES)
    assert len({letter.subject for letter in written.values()}) == len(LOCALES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_html_survives_mail_programs(letters: MailRenderer, template: Template) -> None:
    html = write(letters, template, FULL).html
    parsed = outline(html)
    tags = {tag for tag, _ in parsed.tags}
    styles = " ".join(attributes.get("style") or "" for _, attributes in parsed.tags)
    assert not re.search(r"\b(position|float|flex|grid|calc|var)\b", styles)
    assert not {tag for tag, attributes in parsed.tags if "class" in attributes and "style" not in attributes}
    # Nothing is fetched from anywhere, and every link leads somewhere by itself.
    assert not tags & {"img", "link"}
    assert "url(" not in html
    assert "@import" not in html
    hrefs = [attributes["href"] or "" for tag, attributes in parsed.tags if tag == "a"]
    assert all(href.startswith(("https://", "mailto:")) for href in hrefs)
    # Outlook lays out tables only; scripts, forms and linked style sheets are dropped everywhere.
    assert not tags & {"script", "form", "link", "svg", "flex", "section"}
    assert all(
        attributes.get("role") == "presentation" or attributes.get("class") == "facts"
        for tag, attributes in parsed.tags
        if tag == "table"
    )
    assert all("style" in attributes for tag, attributes in parsed.tags if tag in {"p", "h1", "a"})
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in parsed.tags
    assert parsed.tags[0][0] == "html"
    assert parsed.tags[0][1]["lang"] == "en"


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_and_the_html_name_the_same_links(letters: MailRenderer, template: Template) -> None:
    letter = write(letters, template, FULL, unsubscribe=UNSUBSCRIBE)
    linked = {a["href"] for tag, a in outline(letter.html).tags if tag == "a" and a["href"] is not None}
    assert {href for href in linked if href.startswith("https:")} == set(re.findall(r"https://\S+", letter.text))


def test_links_lead_where_they_say(letters: MailRenderer) -> None:
    for template in ("magic-link", "trial-magic-link"):
        letter = write(letters, template, NEEDED)
        assert f"\n{LINK}\n" in letter.text
        links = [attributes["href"] for tag, attributes in outline(letter.html).tags if tag == "a"]
        assert links == [LINK, LINK, "mailto:help@getbeak.app"]


@pytest.mark.parametrize("locale", LOCALES)
def test_the_link_by_which_news_end_stands_last_in_words_of_the_mails_language(
    letters: MailRenderer, locale: str
) -> None:
    offering = write(letters, "welcome", {}, locale=locale, unsubscribe=UNSUBSCRIBE)
    link = outline(offering.html).tags[-1]
    assert (link[0], link[1]["href"]) == ("a", UNSUBSCRIBE)
    said = offering.text.splitlines()[-1].removesuffix(UNSUBSCRIBE)
    assert re.fullmatch(r"[A-ZÀ-Ü].{10,40}\w\xa0?: ", said)
    others = [write(letters, "welcome", {}, locale=each, unsubscribe=UNSUBSCRIBE) for each in LOCALES if each != locale]
    assert not [other for other in others if said in other.text]
    assert write(letters, "welcome", {}, locale=locale).text in offering.text


def test_letters_of_one_template_differ_in_what_they_were_given(letters: MailRenderer) -> None:
    for number in range(3):
        link = f"https://getbeak.app/?code={number}&a='\"<>"
        letter = write(letters, "magic-link", {"link": link, "minutes": number + 1})
        assert link in letter.text
        assert f"for {number + 1} minutes" in letter.text
        assert LINK not in letter.html
        assert link in [attributes.get("href") for _, attributes in outline(letter.html).tags]


def test_what_is_inserted_into_html_is_escaped(letters: MailRenderer) -> None:
    letter = write(letters, "welcome", {"name": '<img src=x onerror="alert(1)">'})
    assert "<img" not in letter.html
    assert '<img src=x onerror="alert(1)">' in letter.text


def test_a_name_stays_on_its_line_and_short(letters: MailRenderer) -> None:
    letter = write(letters, "welcome", {"name": "Eve,\r\n\r\nyour account is locked: evil.example " + "x" * 10_000})
    assert letter.text.startswith("Hello Eve, your account is locked: evil.example")
    assert len(letter.text.splitlines()[0]) < 80


def test_a_trial_ends_on_a_day_in_utc(letters: MailRenderer) -> None:
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
def test_wrong_variables_are_named_by_place_only(letters: MailRenderer, variables: Any, place: str) -> None:
    with pytest.raises(UnusableVariables) as unusable:
        letters.render("magic-link", json.dumps(variables), branding=LOOKS)
    assert str(unusable.value) == f"magic-link: {place}"
    assert unusable.value.__cause__ is None


def test_a_logo_takes_the_place_of_the_name(letters: MailRenderer) -> None:
    looks = replace(LOOKS, product_name="Beak", logo_url="https://getbeak.app/logo.png?a=1&b=2")
    html = write(letters, "welcome", {}, branding=looks).html
    [image] = [attributes for tag, attributes in outline(html).tags if tag == "img"]
    assert (image["src"], image["alt"]) == ("https://getbeak.app/logo.png?a=1&b=2", "Beak")


def test_one_line_keeps_what_can_be_seen() -> None:
    assert one_line("a\r\nb\t\u2028c\u202ed\x00e") == "a b c d e"
    joined = "नी\u200cल 👩\u200d💻"
    assert one_line(joined) == joined


@pytest.mark.parametrize(
    ("locale", "day"),
    [
        ("en", "1 August 2027"),
        ("de", "1. August 2027"),
        ("fr", "1er août 2027"),
        ("es", "1 de agosto de 2027"),
        ("it", "1º agosto 2027"),
    ],
)
def test_a_day_is_written_as_people_write_it(letters: MailRenderer, locale: str, day: str) -> None:
    # Where the moment lies on the next day already, it is still this one in UTC.
    variables = {"ends_at": "2027-08-02T01:30:00.000+02:00"}
    assert day in write(letters, "trial-ending", variables, locale=locale).text


@pytest.mark.parametrize(
    ("wanted", "own", "written"),
    [
        (["de-AT"], "en", "de"),
        (["pt-BR"], "fr-CA", "fr"),
        (["pt"], "tlh", "en"),
        ([None], "it", "it"),
        ([None, "ES"], "it", "es"),
        ([], "en", "en"),
    ],
)
def test_a_letter_is_written_in_the_best_language_there_is(
    letters: MailRenderer, wanted: list[str | None], own: str, written: str
) -> None:
    letter = letters.render("welcome", "{}", branding=replace(LOOKS, locale=own), requested=wanted)
    assert letter.locale == written
    assert f'<html lang="{written}"' in letter.html


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", TEXT_VARIABLES)
def test_a_text_costs_one_message(template: Any, locale: str) -> None:
    variables = json.dumps({"code": "123456", "minutes": 10})
    looks = replace(LOOKS, product_name="Beak")
    text = TEXTS.render(template, variables, branding=looks, requested=[locale])
    # A single character outside GSM 03.38 would make it UCS-2, with 70 characters to a message instead of 160.
    assert set(text) <= GSM
    assert len(text) <= 160
    assert text.startswith("123456 ")


GSM = set(
    "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉÄÖÑÜ§äöñüà¤¿¡ \n!\"#%&'()*+,-./:;<=>?"
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
"""https://www.etsi.org/deliver/etsi_gts/03/0338/05.00.00_60/gsmts_0338v050000p.pdf, table 6.2.1."""
HOSTILE = st.text(max_size=80) | st.sampled_from(
    [
        "</p><script>alert(1)</script>",
        "--><img src=x onerror=alert(1)>",
        "--!><b>",
        "{{ 7 * 7 }}{% raw %}",
        '" onmouseover="alert(1)',
        "a\r\nBcc: b@example.com",
        "\u202egnp.exe",
        "<![endif]-->",
        "]]>",
        "&lt;b&gt;",
    ]
)


@settings(max_examples=100, deadline=None)
@given(name=HOSTILE, reason=HOSTILE, product=HOSTILE, link=HOSTILE)
def test_nothing_given_breaks_out_of_its_place(name: str, reason: str, product: str, link: str) -> None:
    # What a link is held to before it gets here: no space, nothing invisible.
    link = "https://example.com/?" + re.sub(r"[^\w<>\"'!&=;-]", "", link)
    looks = replace(LOOKS, product_name=one_line(product) or "x")
    cases: list[tuple[Template, dict[str, str], dict[str, str]]] = [
        ("session-theft", {"name": name}, {"name": "x"}),
        ("payment-failed", {"name": name, "link": link}, {"name": "x", "link": "https://x"}),
        ("dispute", {"reason": f"r{reason}", "link": link}, {"reason": "r", "link": "https://x"}),
    ]
    for template, hostile, tame in cases:
        always = {"dispute_id": "dp_1", "amount": "1 EUR"}
        expected = write(LETTERS, template, {**always, **tame}, branding=replace(LOOKS, product_name="x"))
        letter = write(LETTERS, template, {**always, **hostile}, branding=looks)
        assert "\n" not in letter.subject
        assert letter.text.count("\n") == expected.text.count("\n")
        assert skeleton(letter.html) == skeleton(expected.html)
        assert comments(letter.html) == comments(expected.html)
        # What looks like a template is none.
        assert ("{{ 7 * 7 }}" in name) <= (template == "dispute" or "{{ 7 * 7 }}" in letter.text)


SOURCES = Templates.read()
TEXTS = TextRenderer(SOURCES, None)
LETTERS = MailRenderer(SOURCES)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def skeleton(html: str) -> list[tuple[str, list[str]]]:
    """The tags and the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in outline(html).tags]


def comments(html: str) -> tuple[int, int]:
    """How many comments there are, read as browsers read them."""
    return len(re.findall(r"<!--", html)), len(re.findall(r"--!?>", html))
