"""Templates of the operator's own go before Nest's; what can't be used is named before anything is sent."""

from pathlib import Path

import pytest

from services.mailer.app import renderers
from services.mailer.branding.models import Branding
from services.mailer.rendering.css_inlining import StyleSheet
from services.mailer.rendering.renderer import MailRenderer, TextRenderer
from services.mailer.rendering.template_loader import Templates, UnusableTemplate
from shared.settings import SettingsError
from tests.mailer.conftest import MakeSettings

LOOKS = Branding(product_name="Beak", sender_address="mail@getbeak.app", support_address="help@getbeak.app")
WELCOME = """{% extends "en/letter" %}
{% from "parts" import paragraph with context %}
{% block subject %}Hi from {{ looks.product_name }}{% endblock %}
{% block heading %}Hi{% endblock %}
{% block content %}{% call paragraph() %}Ours{% if name %}, {{ name }}{% endif %}.{% endcall %}{% endblock %}
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nests_own_templates_can_all_be_used() -> None:
    sources = Templates.read()
    sources.check()
    MailRenderer(sources).check()
    TextRenderer(sources, "example.com").check()
    assert set(sources.locales) == {"en", "de", "fr", "es", "it"}
    assert len({len(files) for files in sources.locales.values()}) == 1, "a language lacks a template"


def test_a_template_of_ones_own_goes_before_nests(tmp_path: Path) -> None:
    put(tmp_path, "en/welcome.jinja", WELCOME)
    letters = MailRenderer(Templates.read(tmp_path))
    own = letters.render("welcome", '{"name": "Ada"}', branding=LOOKS)
    assert (own.subject, own.text.splitlines()[0]) == ("Hi from Beak", "Ours, Ada.")
    assert letters.render("welcome", "{}", branding=LOOKS, requested=["de"]).subject == "Willkommen bei Beak"
    assert letters.render("session-theft", "{}", branding=LOOKS).subject.startswith("You were signed out")


def test_a_template_of_ones_own_places_the_link_by_which_news_end_where_it_likes(tmp_path: Path) -> None:
    put(
        tmp_path,
        "en/letter.jinja",
        """{% extends "layout" %}
{% block footer %}{% if unsubscribe %}Enough? {{ unsubscribe }}{% endif %}{% endblock %}""",
    )
    letters = MailRenderer(Templates.read(tmp_path))
    letters.check()
    link = "https://nest.example/unsubscribe/k1.a?b=1&c=2"
    given = letters.render("welcome", "{}", branding=LOOKS, unsubscribe=link)
    assert given.text.endswith(f"Enough? {link}\n")
    assert "Enough? https://nest.example/unsubscribe/k1.a?b=1&amp;c=2<" in given.html
    without = letters.render("welcome", "{}", branding=LOOKS)
    assert "Enough?" not in without.text + without.html


def test_a_language_of_ones_own_need_not_have_everything(tmp_path: Path) -> None:
    put(tmp_path, "nl/letter.jinja", '{% extends "layout" %}{% block footer %}Groeten{% endblock %}')
    put(tmp_path, "nl/welcome.jinja", WELCOME.replace("en/letter", "nl/letter").replace("Hi", "Hoi"))
    sources = Templates.read(tmp_path)
    sources.check()
    letters = MailRenderer(sources)
    letters.check()
    assert letters.render("welcome", "{}", branding=LOOKS, requested=["nl-BE"]).subject == "Hoi from Beak"
    assert letters.render("session-theft", "{}", branding=LOOKS, requested=["nl", "fr"]).locale == "fr"


def test_styles_of_ones_own_are_inlined(tmp_path: Path) -> None:
    sheet = (Path(__file__).parents[3] / "services/mailer/templates/styles.css").read_text()
    put(tmp_path, "styles.css", sheet.replace("border-radius: 12px", "border-radius: 3px"))
    assert "border-radius:3px" in MailRenderer(Templates.read(tmp_path)).render("welcome", "{}", branding=LOOKS).html


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("en/wellcome.jinja", WELCOME, "is not a template that Nest uses"),
        ("english/welcome.jinja", WELCOME, "is not a template that Nest uses"),
        ("notes.txt", "", "is not a template that Nest uses"),
        ("en/welcome.jinja", WELCOME + "{{ link }}", "there is no variable link"),
        ("en/welcome.jinja", WELCOME.replace("name }}", "nmae }}"), "there is no variable nmae"),
        ("en/welcome.jinja", WELCOME.replace("product_name", "product"), "no attribute 'product'"),
        ("en/welcome.jinja", WELCOME.replace("{% endif %}", ""), "line 5: "),
        ("en/welcome.jinja", WELCOME.replace("paragraph", "paragraf"), "welcome.jinja"),
        ("en/welcome.jinja", WELCOME.replace("en/letter", "en/lettre"), "welcome.jinja"),
        ("en/trial-ending.jinja", WELCOME.replace("Ours", "{{ ends_at.nothing.more }}"), "trial-ending.jinja"),
        ("en/texts/login-code.txt", "{{ cod }}", "there is no variable cod"),
        ("en/day.jinja", "{{ moment.dy }}", "no attribute 'dy'"),
        ("parts.html", '<p class="huge">', "class huge is not in styles.css"),
        ("styles.css", "p > a { color: red }", "p > a is not a single class"),
        ("styles.css", ".a { color: red", "unsupported syntax"),
    ],
)
def test_a_template_that_can_not_be_used_keeps_the_mailer_from_starting(
    *, tmp_path: Path, settings: MakeSettings, name: str, text: str, wrong: str
) -> None:
    put(tmp_path, name, text)
    with pytest.raises(SettingsError) as refused:
        renderers(settings(mail_templates=tmp_path))
    assert str(refused.value).startswith("NEST_MAIL_TEMPLATES: ")
    assert wrong in str(refused.value)
    assert Path(name).name in str(refused.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        renderers(settings(mail_templates=tmp_path / "gone"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "styles.css").write_bytes(b"\xff")
    with pytest.raises(UnusableTemplate, match=r"styles\.css cannot be read"):
        Templates.read(tmp_path)


def test_a_sheet_becomes_styles_and_what_depends_on_the_screen_stays() -> None:
    sheet = StyleSheet.parse(
        "/* why */ .a, .b { color: var(--page-ink); } .a { margin: 0 }"
        "@media (prefers-color-scheme: dark) { .a { color: red; background: blue; } }"
    )
    assert sheet.inlined('<p class="a"><i class="b">') == (
        '<p class="a" style="color:{{ colours.page_ink }};margin:0"><i class="b" style="color:{{ colours.page_ink }}">'
    )
    assert sheet.conditional.splitlines() == [
        "@media (prefers-color-scheme: dark){",
        ".a{color:red !important;background:blue !important}",
        "}",
        "[data-ogsc] .a{color:red !important}",
        "[data-ogsb] .a{background:blue !important}",
    ]
