import html
import json
import re

import pytest

from services.mailer.mails.app_links import AppLinks
from shared.mail import AppLink, app_link_of_token
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


def test_link_ends_in_a_letter_whatever_its_token_ends_in() -> None:
    links = AppLinks(Sealer({"test": bytes(range(32))}), "https://nest.example")
    ends = set()
    for number in range(200):
        variables = json.dumps({"link": f"beak://{number}", "minutes": None})
        shown = json.loads(links.shown_in("magic-link", variables, product_name="B" * (number % 3), locale="pt"))
        link = shown.pop("link")
        assert shown == {"minutes": None}
        assert link.endswith("?lang=pt")
        ends.add(link.removesuffix("?lang=pt")[-1])
    assert ends & set("-_=")
