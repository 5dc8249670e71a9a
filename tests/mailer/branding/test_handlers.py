import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.mailer.mails.handlers import LINKS
from shared.messages import Sealed
from shared.messages.auth.clients import SetClientLooks
from shared.messages.auth.sessions import FindLastLogin
from shared.messages.mailer.branding import ClientLooks, GetClientLooks, RecordClientLooks
from shared.messages.mailer.mails import LastLogin, NoteLinkRedeemed, SendMail, Template
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

FIRST_LINK, SECOND_LINK = "a" * 32, "b" * 32
"""Message IDs of the orders of two links."""
NEVER = LastLogin()
CHOSEN = {
    "product_name": "Beak, Inc.",
    "sender_name": "Bëak, Inc.",
    "sender_address": "hello@getbeak.app",
    "support_address": "help@getbeak.app",
    "accent_colour": "#ffd400",
    "locale": "de",
}


@pytest.mark.parametrize(
    "fields",
    [
        {"product_name": "a\nb"},
        {"sender_name": "a\r\nBcc: b@example.com"},
        {"sender_address": "a@b@c.example"},
        {"sender_address": "a..b@c.example"},
        {"sender_address": "a@localhost"},
        {"accent_colour": "red"},
        {"accent_colour": "#fff;background:url(x)"},
        {"logo_url": "javascript:alert(1)"},
        {"logo_url": 'https://x.example/"onerror="'},
        {"logo_url": "https:///x"},
        {"locale": "German"},
    ],
)
def test_invalid_branding_is_rejected(fields: Mapping[str, str]) -> None:
    with pytest.raises(ValidationError):
        SetClientLooks.model_validate({"client_id": "client_1", **fields})


async def set_branding(harness: ServiceHarness, **chosen: str) -> Any:
    looks = ClientLooks.model_validate(chosen)
    return await harness.deliver(RecordClientLooks(key="client_1", client_id="client_1", looks=looks))


async def get_branding(harness: ServiceHarness) -> Any:
    return await harness.deliver(GetClientLooks(client_id="client_1"))


def mail_command(template: Template, **rest: Any) -> SendMail:
    variables = {"link": "https://magic.getbeak.app/?code=a"} if template in LINKS else {}
    sealed = Sealed.of(json.dumps(variables))
    return SendMail(template=template, to=Sealed.of("ada@example.com"), variables=sealed, **rest)


async def test_branding_is_stored_and_replaced_as_a_whole(harness: ServiceHarness) -> None:
    before = await get_branding(harness)
    assert (before["updated_at"], before["shown"]["product_name"]) == (None, "Nest")
    await set_branding(harness, **CHOSEN)
    after = await get_branding(harness)
    assert {name: value for name, value in after["chosen"].items() if value is not None} == CHOSEN
    assert after["shown"]["sender"] == '"Bëak, Inc." <hello@getbeak.app>'
    assert after["shown"]["button_text_colour"] == "#16181d"
    assert after["shown"]["background_colour"] == "#f3f4f6"
    # Omitted fields return to the deployment's settings.
    replaced = await set_branding(harness, locale="fr")
    assert replaced == await get_branding(harness)
    assert replaced["shown"] == {**before["shown"], "locale": "fr"}
    assert await harness.database["client_looks"].count_documents({}) == 1


async def test_document_has_the_stored_field_names(harness: ServiceHarness) -> None:
    await set_branding(harness, **CHOSEN)
    document = await harness.database["client_looks"].find_one({})
    assert document is not None
    assert (document["_id"], document["version"]) == ("client_1", 1)
    assert set(document) == {
        "_id",
        *("productName", "senderName", "senderAddress", "supportAddress"),
        *("accentColour", "backgroundColour", "logoUrl", "locale"),
        *("createdAt", "updatedAt", "version"),
    }


async def test_document_without_later_fields_is_read(harness: ServiceHarness) -> None:
    await set_branding(harness, **CHOSEN)
    await harness.database["client_looks"].update_one({}, {"$unset": {"backgroundColour": "", "logoUrl": ""}})
    branding = await get_branding(harness)
    assert (branding["chosen"]["background_colour"], branding["chosen"]["product_name"]) == (None, "Beak, Inc.")


async def test_mail_shows_the_branding_of_its_client(harness: ServiceHarness, server: SmtpServer) -> None:
    await set_branding(harness, **CHOSEN)
    await harness.deliver(mail_command("magic-link", client_id="client_1"))
    await harness.deliver(mail_command("magic-link", client_id="client_1", locale="es-MX"))
    await harness.deliver(mail_command("magic-link", client_id="client_2"))
    german, spanish, other = [arrival.message for arrival in server.arrivals]
    assert german["Subject"] == "Bei Beak, Inc. anmelden"
    assert german["From"] == '"Bëak, Inc." <hello@getbeak.app>'
    assert spanish["Subject"] == "Inicia sesión en Beak, Inc."
    assert (other["Subject"], other["From"]) == ("Sign in to Nest", "Nëst <mail@nest.example>")
    # Bounces always return to the deployment's sender.
    assert {arrival.sender for arrival in server.arrivals} == {"mail@nest.example"}


async def order_link(harness: ServiceHarness, order_id: str, client_id: str, locale: str) -> None:
    await harness.deliver(mail_command("magic-link", client_id=client_id, locale=locale), id=order_id)


async def send(harness: ServiceHarness, template: Template, login: LastLogin = NEVER, **fields: str) -> None:
    """Order a mail; auth answers the mailer's question with this last login of its recipient."""
    harness.clear()
    await harness.deliver(mail_command(template, **fields))
    (asked,) = harness.published_of(FindLastLogin)
    assert harness.unseal_secret("auth", asked.address) == "ada@example.com"
    harness.clear()
    await harness.deliver(asked.mail.model_copy(update={"last_login": login}))
    assert harness.published_of(FindLastLogin) == []


async def test_mail_without_client_is_branded_as_the_link_of_the_last_login(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await set_branding(harness, **CHOSEN)
    await send(harness, "welcome")
    await order_link(harness, FIRST_LINK, "client_1", "it")
    login = LastLogin(order_id=FIRST_LINK, at=harness.now)
    await send(harness, "welcome", login)
    await send(harness, "session-theft", login, client_id="client_2")
    subjects = [arrival.message["Subject"] for arrival in server.arrivals]
    assert (subjects[0], subjects[2]) == ("Welcome to Nest", "Ti diamo il benvenuto in Beak, Inc.")
    assert subjects[3] == "Ti abbiamo disconnesso da Nest per sicurezza"


async def test_auth_is_asked_once_and_not_about_mails_with_client_and_language(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    complete = {"client_id": "client_1", "locale": "it"}
    for template, fields in (("magic-link", {}), ("verify-address", {}), ("session-theft", complete)):
        await harness.deliver(mail_command(template, **fields))
    assert harness.published_of(FindLastLogin) == []
    await harness.deliver(mail_command("welcome"), id=FIRST_LINK)
    (asked,) = harness.published_of(FindLastLogin)
    harness.clear()
    server.answers["DATA"] = lambda _: "451 later"
    await harness.deliver(asked.mail.model_copy(update={"last_login": LastLogin()}))
    ((at, retry),) = await harness.delayed()
    server.answers.clear()
    harness.now = at
    await harness.deliver(retry)
    assert harness.published_of(FindLastLogin) == []
    assert [row["orderId"] for row in await harness.database["deliveries"].find({"template": "welcome"}).to_list()] == [
        FIRST_LINK
    ]


async def test_links_that_nobody_redeemed_brand_no_later_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    await set_branding(harness, **CHOSEN)
    await order_link(harness, SECOND_LINK, "client_1", "it")
    await send(harness, "welcome")
    assert [arrival.message["Subject"] for arrival in server.arrivals][1] == "Welcome to Nest"


async def test_a_strangers_links_do_not_replace_the_branding(harness: ServiceHarness, server: SmtpServer) -> None:
    await set_branding(harness, **CHOSEN)
    await order_link(harness, FIRST_LINK, "client_1", "it")
    login = LastLogin(order_id=FIRST_LINK, at=harness.now)
    for number in range(30):
        harness.now += timedelta(seconds=1)
        await order_link(harness, f"{number:032x}", "client_2", "fr")
    await send(harness, "welcome", login)
    assert server.arrivals[-1].message["Subject"] == "Ti diamo il benvenuto in Beak, Inc."


async def test_redemptions_that_an_earlier_release_noted_still_count(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await set_branding(harness, **CHOSEN)
    await order_link(harness, FIRST_LINK, "client_1", "it")
    harness.now += timedelta(seconds=1)
    await order_link(harness, SECOND_LINK, "client_2", "fr")
    before = LastLogin(order_id=SECOND_LINK, at=harness.now)
    for order_id in (SECOND_LINK, FIRST_LINK, SECOND_LINK):
        # A second note about one link changes nothing.
        harness.now += timedelta(seconds=1)
        await harness.deliver(NoteLinkRedeemed(order_id=order_id, at=harness.now))
    await send(harness, "welcome")
    await send(harness, "welcome", before)
    # Those mails have the branding too, and are newer than both notes.
    harness.now += timedelta(seconds=1)
    await send(harness, "welcome", LastLogin(order_id=SECOND_LINK, at=harness.now))
    subjects = [arrival.message["Subject"] for arrival in server.arrivals[2:]]
    assert subjects == ["Ti diamo il benvenuto in Beak, Inc."] * 2 + ["Bienvenue chez Nest"]


async def test_mails_of_earlier_releases_still_count_for_the_branding(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await set_branding(harness, **CHOSEN)
    await order_link(harness, FIRST_LINK, "client_1", "it")
    await harness.database["deliveries"].update_many({}, {"$unset": {"branded": "", "redeemedAt": ""}})
    await send(harness, "welcome")
    assert server.arrivals[-1].message["Subject"] == "Ti diamo il benvenuto in Beak, Inc."


async def test_last_login_whose_mail_has_expired_is_ignored(harness: ServiceHarness, server: SmtpServer) -> None:
    await send(harness, "welcome", LastLogin(order_id=FIRST_LINK, at=harness.now))
    assert server.arrivals[-1].message["Subject"] == "Welcome to Nest"


async def test_note_about_an_expired_delivery_is_ignored(harness: ServiceHarness) -> None:
    assert await harness.deliver(NoteLinkRedeemed(order_id=FIRST_LINK, at=harness.now)) is None
