import html
import json
import re
from dataclasses import replace

import pytest

from services.mailer.mails.app_links import AppLinks
from services.mailer.rendering.samples import BRANDING
from shared.mail import AppLink, PressLink, app_link_of_token, press_link_of_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer
from tests.mailer.mails.test_handlers import mail_command
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

APP_LINK = "beak://callback?a=b'&state=s%20t&code=authzcode_1." + "ab" * 32
OPEN = re.compile(r"https://nest\.example/open/([A-Za-z0-9._=-]+)\?lang=([a-z]+)")


@pytest.mark.parametrize("template", ["magic-link", "trial-magic-link"])
@pytest.mark.parametrize("scheme", ["beak://", "BEAK://", "com.example.app:/", "intent:"])
async def test_mail_links_to_a_page_that_opens_the_app(
    harness: ServiceHarness, server: SmtpServer, template: Template, scheme: str
) -> None:
    link = APP_LINK.replace("beak://", scheme)
    await harness.deliver(mail_command(template=template, variables={"link": link, "minutes": 10}, locale="de-AT"))
    content = server.arrivals[0].content.decode()
    assert scheme not in content
    assert "authzcode" not in content
    message = server.arrivals[0].message
    shown = set()
    for kind in ("plain", "html"):
        found = OPEN.findall(html.unescape(message.get_body((kind,)).get_content()))
        assert found
        shown |= set(found)
    [(token, language)] = shown
    assert language == "de"
    assert app_link_of_token(harness.sealer, token) == AppLink(link, "Nest")


@pytest.mark.parametrize("link", ["https://a.example/?code=1", "HTTPS://a.example/?code=1", "http://127.0.0.1/?code=1"])
async def test_web_links_are_unchanged(harness: ServiceHarness, server: SmtpServer, link: str) -> None:
    await harness.deliver(mail_command(variables={"link": link}))
    assert link in server.arrivals[0].message.get_body(("plain",)).get_content()


async def test_link_of_a_client_that_asks_for_a_press_leads_to_a_page(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    link = "https://a.example/cb?state=s&code=authzcode_1." + "ab" * 32
    await harness.deliver(mail_command(variables={"link": link, "press": True}, locale="de"))
    content = server.arrivals[0].message
    shown = set()
    for kind in ("plain", "html"):
        text = html.unescape(content.get_body((kind,)).get_content())
        assert "authzcode" not in text
        shown |= set(re.findall(r"https://nest\.example/continue/([A-Za-z0-9._=-]+)\?lang=de", text))
    [token] = shown
    palette = BRANDING.palette
    assert press_link_of_token(harness.sealer, token) == PressLink(
        link, "Nest", accent=palette.accent, on_accent=palette.on_accent, background=palette.page
    )
    assert app_link_of_token(harness.sealer, token) is None


@pytest.mark.parametrize(
    ("logo_url", "shown"),
    [("https://cdn.example/logo.png", True), ("https://cdn.example/" + "x" * 200, False), (None, False)],
)
def test_page_gets_a_logo_with_a_short_url(logo_url: str | None, shown: bool) -> None:  # noqa: FBT001 -- a parameter
    links = AppLinks(Sealer({"test": bytes(range(32))}), "https://nest.example")
    variables = json.dumps({"link": "https://a.example/", "press": True})
    branding = replace(BRANDING, logo_url=logo_url)
    link = json.loads(links.shown_in("magic-link", variables, branding=branding, locale="en"))["link"]
    press_link = press_link_of_token(links.sealer, link.rpartition("/")[2].partition("?")[0])
    assert press_link is not None
    assert press_link.logo_url == (logo_url if shown else None)


@pytest.mark.parametrize("press", [True, False])
def test_link_with_the_scheme_of_an_app_leads_to_one_page_only(press: bool) -> None:  # noqa: FBT001 -- a parameter
    links = AppLinks(Sealer({"test": bytes(range(32))}), "https://nest.example")
    variables = json.dumps({"link": "beak://1", "press": press})
    link = json.loads(links.shown_in("magic-link", variables, branding=BRANDING, locale="en"))["link"]
    assert link.startswith("https://nest.example/open/")


def test_link_ends_in_a_letter_whatever_its_token_ends_in() -> None:
    links = AppLinks(Sealer({"test": bytes(range(32))}), "https://nest.example")
    ends = set()
    for number in range(200):
        variables = json.dumps({"link": f"beak://{number}", "minutes": None})
        shown = json.loads(
            links.shown_in(
                "magic-link", variables, branding=replace(BRANDING, product_name="B" * (number % 3)), locale="pt"
            )
        )
        link = shown.pop("link")
        assert shown == {"minutes": None}
        assert link.endswith("?lang=pt")
        ends.add(link.removesuffix("?lang=pt")[-1])
    assert ends & set("-_=")
