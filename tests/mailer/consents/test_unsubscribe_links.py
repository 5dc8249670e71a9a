"""Beside which mails a mail program offers to unsubscribe, and where that leads."""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from services.mailer.app import INDEXES, open_context
from services.mailer.consents.unsubscribe_links import UNSUBSCRIBABLE
from services.mailer.handlers import HANDLERS
from shared.mail import user_of_token
from shared.messages.mailer.mails import Template
from tests.mailer.conftest import MakeSettings
from tests.mailer.mails.test_handlers import LINK, ORDER, order
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

TEMPLATES: tuple[Template, ...] = get_args(Template)
VARIABLES: dict[str, Any] = {"link": LINK, "dispute_id": "du_1", "amount": "12.00 EUR", "reason": "fraudulent"}


@pytest.mark.parametrize("template", TEMPLATES)
async def test_logins_receipts_and_alarms_have_no_link_and_the_others_have(
    harness: ServiceHarness, server: SmtpServer, template: Template
) -> None:
    await harness.deliver(order(template=template, variables=VARIABLES, user_id="user_1"))
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


async def test_the_link_shows_neither_the_user_nor_the_address(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(order(template="welcome", variables={}, user_id="user_1"))
    link = str(server.arrivals[0].message["List-Unsubscribe"])
    assert "user_1" not in link
    assert "example.com" not in link
    assert "person" not in link.lower()


async def test_the_link_is_in_one_line(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(order(template="welcome", variables={}, user_id="user_" + "x" * 60))
    [line] = [each for each in server.arrivals[0].content.split(b"\r\n") if each.startswith(b"List-Unsubscribe:")]
    assert line.endswith(b">")
    assert len(line) < 998


async def test_who_is_no_user_of_ours_gets_no_link(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(order(template="welcome", variables={}))
    message = server.arrivals[0].message
    assert message["List-Unsubscribe"] is None
    assert b"nsubscribe" not in server.arrivals[0].content


async def test_the_link_carries_the_language_that_the_mail_is_written_in(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    for asked, written in (("de-AT", "de"), ("tlh", "en"), (None, "en")):
        await harness.deliver(order(template="welcome", variables={}, user_id="user_1", locale=asked))
        assert str(server.arrivals[-1].message["List-Unsubscribe"]).endswith(f"?lang={written}>")


async def test_of_two_mails_that_differ_in_their_reader_alone_each_has_its_own_link(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    for user_id in ("user_1", "user_2"):
        await harness.deliver(order(template="welcome", variables={}, user_id=user_id))
    for arrival, user_id in zip(server.arrivals, ("user_1", "user_2"), strict=True):
        text = arrival.message.get_body(("plain",)).get_content()
        found = re.search(r"/unsubscribe/([^?]+)", text)
        assert found is not None
        assert user_of_token(harness.sealer, found[1]) == user_id


@pytest.fixture
async def tagging(
    mongo_url: str, database_prefix: str, settings: MakeSettings, server: SmtpServer
) -> AsyncIterator[ServiceHarness]:
    """A mailer whose mails have return addresses of their own."""
    chosen = settings(smtp_port=server.port, mail_return_path_tags=True)
    async with ServiceHarness(
        mongo_url,
        f"{database_prefix}tagging",
        service="mailer",
        handlers=HANDLERS,
        indexes=INDEXES,
        open_context=partial(open_context, settings=chosen),
    ) as harness:
        yield harness


async def test_each_mail_may_have_a_return_address_of_its_own(tagging: ServiceHarness, server: SmtpServer) -> None:
    await tagging.deliver(order(), id=ORDER)
    [arrival] = server.arrivals
    assert arrival.sender == f"mail+{ORDER}@nest.example"
    assert arrival.message["From"].addresses[0].addr_spec == "mail@nest.example"
