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
ALL_VARIABLES = {
    "link": LINK,
    "minutes": 10,
    "name": "Ada",
    "ends_at": "2026-12-05T23:30:00.000Z",
    "dispute_id": "dp_1",
    "endpoint_id": "webhookendpoint_1",
    "host": "app.example",
    "amount": "12.00 EUR",
    "reason": "fraudulent",
    "application": "An app",
    "renews_at": "2026-12-05T23:30:00.000Z",
    "paid_at": "2026-12-05T23:30:00.000Z",
    "card": "4242",
    "expires": "12/2026",
}
REQUIRED_VARIABLES = {
    name: ALL_VARIABLES[name]
    for name in (
        *("link", "dispute_id", "amount", "reason", "ends_at", "renews_at", "paid_at", "card", "expires"),
        *("endpoint_id", "host"),
    )
}
TEMPLATES: tuple[Template, ...] = get_args(Template)
LOCALES = ("en", "de", "fr", "es", "it")
BRANDING = Branding(
    product_name="Bëak & Co",
    sender_address="mail@getbeak.app",
    support_address="help@getbeak.app",
    accent_colour="#123456",
)
RENDERER = MailRenderer(Templates.read())
TEXT_RENDERER = TextRenderer(Templates.read(), None)


def render(
    template: Template,
    variables: dict[str, Any],
    *,
    branding: Branding = BRANDING,
    locale: str | None = None,
    unsubscribe: str | None = None,
) -> RenderedMail:
    return RENDERER.render(
        template, json.dumps(variables), branding=branding, requested=[locale], unsubscribe=unsubscribe
    )


class Outline(HTMLParser):
    """Parser that records open tags, all tags with attributes, and the text."""

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


def test_decided_dispute_has_an_outcome_and_no_note_about_evidence() -> None:
    opened = render("dispute", REQUIRED_VARIABLES)
    decided = render("dispute", {**REQUIRED_VARIABLES, "outcome": "lost"})
    assert decided.subject == "lost: " + opened.subject
    for before, after in ((opened.text, decided.text), (outline(opened.html).text, outline(decided.html).text)):
        assert "lost" in after
        assert ("Evidence" in before, "Evidence" in after) == (True, False)


def test_every_template_has_a_class_of_variables() -> None:
    assert set(VARIABLES) == set(TEMPLATES)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("variables", [ALL_VARIABLES, REQUIRED_VARIABLES], ids=["all", "required"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_renders_in_every_language(template: Template, variables: dict[str, Any], locale: str) -> None:
    mail = render(template, variables, locale=locale)
    assert mail.locale == locale
    assert mail.subject
    assert len(mail.subject) < 80
    assert "\n" not in mail.subject
    assert "Bëak & Co" in mail.text
    assert "help@getbeak.app" in mail.text
    assert not re.search(r"\n{3,}| \n|None|\{|\}", mail.text)
    parsed = outline(mail.html)
    assert parsed.open == []
    assert "None" not in parsed.text
    # Gmail clips mails of more than 102 KB.
    assert len(mail.html.encode()) < 20_000


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_text_has_the_content_of_the_html(template: Template, locale: str) -> None:
    mail = render(template, ALL_VARIABLES, locale=locale, unsubscribe=UNSUBSCRIBE)
    html_words = words(outline(mail.html).text)
    # The HTML repeats the link below the button, and the subject as a heading.
    assert set(words(mail.text.replace(LINK, "").replace(UNSUBSCRIBE, ""))) <= set(html_words)
    for fact in ("Ada", "12.00 EUR", "fraudulent", LINK):
        assert (fact in mail.text) == (fact in unescape(mail.html))


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_language_has_its_own_text(template: Template) -> None:
    rendered = {locale: render(template, ALL_VARIABLES, locale=locale) for locale in LOCALES}
    assert len({mail.text for mail in rendered.values()}) == len(LOCALES)
    assert len({mail.subject for mail in rendered.values()}) == len(LOCALES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_html_is_compatible_with_mail_clients(template: Template) -> None:
    html = render(template, ALL_VARIABLES).html
    parsed = outline(html)
    tags = {tag for tag, _ in parsed.tags}
    styles = " ".join(attributes.get("style") or "" for _, attributes in parsed.tags)
    assert not re.search(r"\b(position|float|flex|grid|calc|var)\b", styles)
    assert not {tag for tag, attributes in parsed.tags if "class" in attributes and "style" not in attributes}
    # Nothing is loaded, and every link is absolute.
    assert not tags & {"img", "link"}
    assert "url(" not in html
    assert "@import" not in html
    hrefs = [attributes["href"] or "" for tag, attributes in parsed.tags if tag == "a"]
    assert all(href.startswith(("https://", "mailto:")) for href in hrefs)
    # Outlook supports tables only; scripts, forms and linked style sheets are removed everywhere.
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
def test_text_and_html_have_the_same_links(template: Template) -> None:
    mail = render(template, ALL_VARIABLES, unsubscribe=UNSUBSCRIBE)
    linked = {a["href"] for tag, a in outline(mail.html).tags if tag == "a" and a["href"] is not None}
    assert {href for href in linked if href.startswith("https:")} == set(re.findall(r"https://\S+", mail.text))


def test_shown_links_are_their_own_targets() -> None:
    for template in ("magic-link", "trial-magic-link"):
        mail = render(template, REQUIRED_VARIABLES)
        assert f"\n{LINK}\n" in mail.text
        links = [attributes["href"] for tag, attributes in outline(mail.html).tags if tag == "a"]
        assert links == [LINK, LINK, "mailto:help@getbeak.app"]


@pytest.mark.parametrize("locale", LOCALES)
def test_unsubscribe_link_is_last_and_translated(locale: str) -> None:
    with_link = render("welcome", {}, locale=locale, unsubscribe=UNSUBSCRIBE)
    link = outline(with_link.html).tags[-1]
    assert (link[0], link[1]["href"]) == ("a", UNSUBSCRIBE)
    label = with_link.text.splitlines()[-1].removesuffix(UNSUBSCRIBE)
    assert re.fullmatch(r"[A-ZÀ-Ü].{10,40}\w\xa0?: ", label)
    others = [render("welcome", {}, locale=each, unsubscribe=UNSUBSCRIBE) for each in LOCALES if each != locale]
    assert not [other for other in others if label in other.text]
    assert render("welcome", {}, locale=locale).text in with_link.text


def test_cached_mail_has_the_link_of_its_order() -> None:
    for number in range(3):
        link = f"https://getbeak.app/?code={number}&a='\"<>"
        mail = render("magic-link", {"link": link, "minutes": number + 1})
        assert link in mail.text
        assert f"for {number + 1} minutes" in mail.text
        assert LINK not in mail.html
        assert link in [attributes.get("href") for _, attributes in outline(mail.html).tags]


def test_variables_are_escaped_in_html() -> None:
    mail = render("welcome", {"name": '<img src=x onerror="alert(1)">'})
    assert "<img" not in mail.html
    assert '<img src=x onerror="alert(1)">' in mail.text


def test_name_is_truncated_to_one_line() -> None:
    mail = render("welcome", {"name": "Eve,\r\n\r\nyour account is locked: evil.example " + "x" * 10_000})
    assert mail.text.startswith("Hello Eve, your account is locked: evil.example")
    assert len(mail.text.splitlines()[0]) < 80


def test_end_of_a_trial_is_shown_as_a_day_in_utc() -> None:
    assert "until 5 December 2026." in render("welcome-trial", ALL_VARIABLES).text


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, "link: missing"),
        ({"link": "https://a b"}, "link: string_pattern_mismatch"),
        ({"link": "https://a\u202eb"}, "link: string_pattern_mismatch"),
        ({"link": LINK, "minutes": "secret"}, "minutes: int_parsing"),
        ([], ": model_type"),
    ],
)
def test_error_names_the_field_without_its_value(variables: Any, error: str) -> None:
    with pytest.raises(UnusableVariables) as raised:
        RENDERER.render("magic-link", json.dumps(variables), branding=BRANDING)
    assert str(raised.value) == f"magic-link: {error}"
    assert raised.value.__cause__ is None


def test_logo_replaces_the_product_name() -> None:
    branding = replace(BRANDING, product_name="Beak", logo_url="https://getbeak.app/logo.png?a=1&b=2")
    html = render("welcome", {}, branding=branding).html
    [image] = [attributes for tag, attributes in outline(html).tags if tag == "img"]
    assert (image["src"], image["alt"]) == ("https://getbeak.app/logo.png?a=1&b=2", "Beak")


def test_one_line_keeps_visible_characters_and_joiners() -> None:
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
def test_day_is_formatted_for_the_language(locale: str, day: str) -> None:
    # It is 2 August there, but still 1 August in UTC.
    variables = {"ends_at": "2027-08-02T01:30:00.000+02:00"}
    assert day in render("trial-ending", variables, locale=locale).text


@pytest.mark.parametrize(
    ("requested", "default", "language"),
    [
        (["de-AT"], "en", "de"),
        (["pt-BR"], "fr-CA", "fr"),
        (["pt"], "tlh", "en"),
        ([None], "it", "it"),
        ([None, "ES"], "it", "es"),
        ([], "en", "en"),
    ],
)
def test_mail_is_rendered_in_the_best_available_language(
    requested: list[str | None], default: str, language: str
) -> None:
    mail = RENDERER.render("welcome", "{}", branding=replace(BRANDING, locale=default), requested=requested)
    assert mail.locale == language
    assert f'<html lang="{language}"' in mail.html


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", TEXT_VARIABLES)
def test_text_fits_one_sms(template: Any, locale: str) -> None:
    variables = json.dumps({"code": "123456", "minutes": 10})
    branding = replace(BRANDING, product_name="Beak")
    text = TEXT_RENDERER.render(template, variables, branding=branding, requested=[locale])
    # With a single character outside GSM 03.38 it would be UCS-2, with 70 characters per SMS instead of 160.
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
def test_hostile_variables_do_not_change_the_structure(name: str, reason: str, product: str, link: str) -> None:
    # The message class rejects links with spaces or invisible characters.
    link = "https://example.com/?" + re.sub(r"[^\w<>\"'!&=;-]", "", link)
    branding = replace(BRANDING, product_name=one_line(product) or "x")
    cases: list[tuple[Template, dict[str, str], dict[str, str]]] = [
        ("session-theft", {"name": name}, {"name": "x"}),
        ("payment-failed", {"name": name, "link": link}, {"name": "x", "link": "https://x"}),
        ("dispute", {"reason": f"r{reason}", "link": link}, {"reason": "r", "link": "https://x"}),
    ]
    for template, hostile, tame in cases:
        ids = {"dispute_id": "dp_1", "amount": "1 EUR"}
        expected = render(template, {**ids, **tame}, branding=replace(BRANDING, product_name="x"))
        mail = render(template, {**ids, **hostile}, branding=branding)
        assert "\n" not in mail.subject
        assert mail.text.count("\n") == expected.text.count("\n")
        assert skeleton(mail.html) == skeleton(expected.html)
        assert comments(mail.html) == comments(expected.html)
        # Template syntax in a variable is not evaluated.
        assert ("{{ 7 * 7 }}" in name) <= (template == "dispute" or "{{ 7 * 7 }}" in mail.text)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def skeleton(html: str) -> list[tuple[str, list[str]]]:
    """Tags with the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in outline(html).tags]


def comments(html: str) -> tuple[int, int]:
    """Number of beginnings and ends of comments, as browsers parse them."""
    return len(re.findall(r"<!--", html)), len(re.findall(r"--!?>", html))
