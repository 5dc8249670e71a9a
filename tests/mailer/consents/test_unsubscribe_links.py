import re
from collections.abc import AsyncIterator
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from services.mailer.consents.unsubscribe_links import UNSUBSCRIBABLE
from shared.mail import user_of_token
from shared.messages.mailer.mails import Template
from tests.mailer.conftest import MakeSettings, mailer_harness
from tests.mailer.mails.test_handlers import LINK, ORDER_ID, mail_command
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

TEMPLATES: tuple[Template, ...] = get_args(Template)
VARIABLES: dict[str, Any] = {
    "link": LINK,
    "dispute_id": "du_1",
    "amount": "12.00 EUR",
    "reason": "fraudulent",
    "ends_at": "2026-12-01T00:00:00Z",
    "renews_at": "2026-12-01T00:00:00Z",
    "paid_at": "2026-12-01T00:00:00Z",
    "card": "4242",
    "expires": "11/2026",
    "endpoint_id": "webhookendpoint_1",
    "host": "app.example",
}


@pytest.mark.parametrize("template", TEMPLATES)
async def test_only_unsubscribable_templates_have_a_link(
    harness: ServiceHarness, server: SmtpServer, template: Template
) -> None:
    await harness.deliver(mail_command(template=template, variables=VARIABLES, user_id="user_1"))
    message = server.arrivals[0].message
    text, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    if template not in UNSUBSCRIBABLE:
        assert message["List-Unsubscribe"] is None
        assert message["List-Unsubscribe-Post"] is None
        assert "nsubscribe" not in text + html
        return
    link = str(message["List-Unsubscribe"])
    assert text.splitlines()[-1] == f"Unsubscribe from news: {link[1:-1]}"
    assert f'href="{link[1:-1]}" class="footer-link"' in html
    assert link.startswith("<https://nest.example/unsubscribe/")
    assert link.endswith(">")
    assert user_of_token(harness.sealer, urlsplit(link[1:-1]).path.rpartition("/")[2]) == "user_1"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_link_reveals_neither_user_nor_address(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(template="welcome", variables={}, user_id="user_1"))
    link = str(server.arrivals[0].message["List-Unsubscribe"])
    assert "user_1" not in link
    assert "example.com" not in link
    assert "person" not in link.lower()


async def test_link_header_is_not_folded(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(template="welcome", variables={}, user_id="user_" + "x" * 60))
    [line] = [each for each in server.arrivals[0].content.split(b"\r\n") if each.startswith(b"List-Unsubscribe:")]
    assert line.endswith(b">")
    assert len(line) < 998


async def test_recipient_without_a_user_gets_no_link(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(template="welcome", variables={}))
    message = server.arrivals[0].message
    assert message["List-Unsubscribe"] is None
    assert b"nsubscribe" not in server.arrivals[0].content


async def test_link_has_the_language_of_the_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    for requested, language in (("de-AT", "de"), ("tlh", "en"), (None, "en")):
        await harness.deliver(mail_command(template="welcome", variables={}, user_id="user_1", locale=requested))
        assert str(server.arrivals[-1].message["List-Unsubscribe"]).endswith(f"?lang={language}>")


async def test_equal_mails_to_different_users_have_different_links(harness: ServiceHarness, server: SmtpServer) -> None:
    for user_id in ("user_1", "user_2"):
        await harness.deliver(mail_command(template="welcome", variables={}, user_id=user_id))
    for arrival, user_id in zip(server.arrivals, ("user_1", "user_2"), strict=True):
        text = arrival.message.get_body(("plain",)).get_content()
        token = re.search(r"/unsubscribe/([^?]+)", text)
        assert token is not None
        assert user_of_token(harness.sealer, token[1]) == user_id


@pytest.fixture
async def tagging(
    mongo_url: str, database_prefix: str, settings: MakeSettings, server: SmtpServer
) -> AsyncIterator[ServiceHarness]:
    """A harness of the mailer with tagged return paths."""
    loaded = settings(smtp_port=server.port, mail_return_path_tags=True)
    async with mailer_harness(mongo_url, f"{database_prefix}tagging_", loaded) as harness:
        yield harness


async def test_return_path_is_tagged_with_the_order_id(tagging: ServiceHarness, server: SmtpServer) -> None:
    await tagging.deliver(mail_command(), id=ORDER_ID)
    [arrival] = server.arrivals
    assert arrival.sender == f"mail+{ORDER_ID}@nest.example"
    assert arrival.message["From"].addresses[0].addr_spec == "mail@nest.example"
