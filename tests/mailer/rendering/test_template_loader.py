from pathlib import Path

import pytest

from services.mailer.app import renderers
from services.mailer.branding.models import Branding
from services.mailer.rendering.css_inlining import StyleSheet
from services.mailer.rendering.renderer import MailRenderer, TextRenderer
from services.mailer.rendering.template_loader import Templates, UnusableTemplate
from shared.settings import SettingsError
from tests.mailer.conftest import MakeSettings

BRANDING = Branding(product_name="Beak", sender_address="mail@getbeak.app", support_address="help@getbeak.app")
WELCOME = """{% extends "en/letter" %}
{% from "parts" import paragraph with context %}
{% block subject %}Hi from {{ looks.product_name }}{% endblock %}
{% block heading %}Hi{% endblock %}
{% block content %}{% call paragraph() %}Ours{% if name %}, {{ name }}{% endif %}.{% endcall %}{% endblock %}
"""


def write_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nests_own_templates_are_usable() -> None:
    templates = Templates.read()
    templates.check()
    MailRenderer(templates).check()
    TextRenderer(templates, "example.com").check()
    assert set(templates.locales) == {"en", "de", "fr", "es", "it"}
    assert len({len(files) for files in templates.locales.values()}) == 1, "a language lacks a template"


def test_operators_template_overrides_nests(tmp_path: Path) -> None:
    write_file(tmp_path, "en/welcome.jinja", WELCOME)
    renderer = MailRenderer(Templates.read(tmp_path))
    mail = renderer.render("welcome", '{"name": "Ada"}', branding=BRANDING)
    assert (mail.subject, mail.text.splitlines()[0]) == ("Hi from Beak", "Ours, Ada.")
    assert renderer.render("welcome", "{}", branding=BRANDING, requested=["de"]).subject == "Willkommen bei Beak"
    assert renderer.render("session-theft", "{}", branding=BRANDING).subject.startswith("You were signed out")


def test_operators_footer_contains_the_unsubscribe_link(tmp_path: Path) -> None:
    write_file(
        tmp_path,
        "en/letter.jinja",
        """{% extends "layout" %}
{% block footer %}{% if unsubscribe %}Enough? {{ unsubscribe }}{% endif %}{% endblock %}""",
    )
    renderer = MailRenderer(Templates.read(tmp_path))
    renderer.check()
    link = "https://nest.example/unsubscribe/k1.a?b=1&c=2"
    mail = renderer.render("welcome", "{}", branding=BRANDING, unsubscribe=link)
    assert mail.text.endswith(f"Enough? {link}\n")
    assert "Enough? https://nest.example/unsubscribe/k1.a?b=1&amp;c=2<" in mail.html
    without = renderer.render("welcome", "{}", branding=BRANDING)
    assert "Enough?" not in without.text + without.html


def test_additional_language_may_be_incomplete(tmp_path: Path) -> None:
    write_file(tmp_path, "nl/letter.jinja", '{% extends "layout" %}{% block footer %}Groeten{% endblock %}')
    write_file(tmp_path, "nl/welcome.jinja", WELCOME.replace("en/letter", "nl/letter").replace("Hi", "Hoi"))
    templates = Templates.read(tmp_path)
    templates.check()
    renderer = MailRenderer(templates)
    renderer.check()
    assert renderer.render("welcome", "{}", branding=BRANDING, requested=["nl-BE"]).subject == "Hoi from Beak"
    assert renderer.render("session-theft", "{}", branding=BRANDING, requested=["nl", "fr"]).locale == "fr"


def test_operators_styles_are_inlined(tmp_path: Path) -> None:
    sheet = (Path(__file__).parents[3] / "services/mailer/templates/styles.css").read_text()
    write_file(tmp_path, "styles.css", sheet.replace("border-radius: 12px", "border-radius: 3px"))
    assert "border-radius:3px" in MailRenderer(Templates.read(tmp_path)).render("welcome", "{}", branding=BRANDING).html


@pytest.mark.parametrize(
    ("name", "text", "error"),
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
def test_unusable_template_prevents_the_start(
    *, tmp_path: Path, settings: MakeSettings, name: str, text: str, error: str
) -> None:
    write_file(tmp_path, name, text)
    with pytest.raises(SettingsError) as raised:
        renderers(settings(mail_templates=tmp_path))
    assert str(raised.value).startswith("NEST_MAIL_TEMPLATES: ")
    assert error in str(raised.value)
    assert Path(name).name in str(raised.value)


def test_missing_folder_is_named(tmp_path: Path, settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        renderers(settings(mail_templates=tmp_path / "gone"))


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "styles.css").write_bytes(b"\xff")
    with pytest.raises(UnusableTemplate, match=r"styles\.css cannot be read"):
        Templates.read(tmp_path)


def test_style_sheet_is_inlined_except_for_media_blocks() -> None:
    sheet = StyleSheet.parse(
        "/* why */ .a, .b { color: var(--page-ink); } .a { margin: 0 }"
        "@media (prefers-color-scheme: dark) { .a { color: red; background: blue; } }"
    )
    assert sheet.inlined('<p class="a"><i class="b">') == (
        '<p class="a" style="color:{{ colours.page_ink }};margin:0"><i class="b" style="color:{{ colours.page_ink }}">'
    )
    assert sheet.media_blocks.splitlines() == [
        "@media (prefers-color-scheme: dark){",
        ".a{color:red !important;background:blue !important}",
        "}",
        "[data-ogsc] .a{color:red !important}",
        "[data-ogsb] .a{background:blue !important}",
    ]
