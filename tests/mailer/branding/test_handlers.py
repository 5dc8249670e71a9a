import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from shared.messages import Sealed
from shared.messages.auth.clients import SetClientLooks
from shared.messages.mailer.branding import ClientLooks, GetClientLooks, RecordClientLooks
from shared.messages.mailer.mails import SendMail, Template
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

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
    variables = {"link": "https://magic.getbeak.app/?code=a"} if template == "magic-link" else {}
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


async def test_mail_without_client_is_branded_as_the_last_one(harness: ServiceHarness, server: SmtpServer) -> None:
    await set_branding(harness, **CHOSEN)
    await harness.deliver(mail_command("welcome"))
    await harness.deliver(mail_command("magic-link", client_id="client_1", locale="it"))
    await harness.deliver(mail_command("welcome"))
    await harness.deliver(mail_command("session-theft", client_id="client_2"))
    subjects = [arrival.message["Subject"] for arrival in server.arrivals]
    assert (subjects[0], subjects[2]) == ("Welcome to Nest", "Ti diamo il benvenuto in Beak, Inc.")
    assert subjects[3] == "Ti abbiamo disconnesso da Nest per sicurezza"
