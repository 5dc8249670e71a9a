"""A client's mails look as was said of it, can be read in any colours, and change within a second."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.mailer.branding.colours import CARD, DARK_CARD, MIN_TEXT_CONTRAST, contrast, palette
from services.mailer.branding.models import Branding
from services.mailer.branding.store import BrandingCache
from shared.messages import Sealed
from shared.messages.auth.clients import SetClientLooks
from shared.messages.mailer.branding import ClientLooks, GetClientLooks, RecordClientLooks
from shared.messages.mailer.mails import SendMail, Template
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

COLOUR = st.integers(0, 0xFFFFFF).map("#{:06x}".format)
OWN = Branding(product_name="Nest", sender_address="mail@nest.example", support_address="help@nest.example")
CHOSEN = {
    "product_name": "Beak, Inc.",
    "sender_name": "Bëak, Inc.",
    "sender_address": "hello@getbeak.app",
    "support_address": "help@getbeak.app",
    "accent_colour": "#ffd400",
    "locale": "de",
}


@given(accent=COLOUR, page=COLOUR)
def test_every_text_can_be_read_whatever_colours_are_chosen(accent: str, page: str) -> None:
    colours = palette(accent, page)
    assert contrast(colours.on_accent, colours.accent) >= MIN_TEXT_CONTRAST
    assert contrast(colours.page_ink, colours.page) >= MIN_TEXT_CONTRAST
    assert contrast(colours.page_pale, colours.page) >= MIN_TEXT_CONTRAST
    assert contrast(colours.link, CARD) >= MIN_TEXT_CONTRAST
    assert contrast(colours.dark_link, DARK_CARD) >= MIN_TEXT_CONTRAST


def test_contrast_is_counted_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert palette("#ffd400", "#10223a").on_accent == "#16181d"


def test_what_was_not_said_is_as_the_settings_say() -> None:
    looks = OWN.overridden_by(ClientLooks(accent_colour="#000000"))
    assert {f.name for f in fields(Branding) if getattr(looks, f.name) != getattr(OWN, f.name)} == {"accent_colour"}
    # Nest's own name before somebody else's address would mislead.
    assert OWN.overridden_by(ClientLooks(sender_address="a@b.example")).sender == "Nest <a@b.example>"


@pytest.mark.parametrize(
    "wrong",
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
def test_looks_that_could_not_be_worn_are_refused(wrong: Mapping[str, str]) -> None:
    with pytest.raises(ValidationError):
        SetClientLooks.model_validate({"client_id": "client_1", **wrong})


async def record(harness: ServiceHarness, **chosen: str) -> Any:
    command = RecordClientLooks(key="client_1", client_id="client_1", looks=ClientLooks.model_validate(chosen))
    return await harness.deliver(command)


async def asked(harness: ServiceHarness) -> Any:
    return await harness.deliver(GetClientLooks(client_id="client_1"))


def order(template: Template, **rest: Any) -> SendMail:
    shown = {"link": "https://magic.getbeak.app/?code=a"} if template == "magic-link" else {}
    variables = Sealed.of(json.dumps(shown))
    return SendMail(template=template, to=Sealed.of("ada@example.com"), variables=variables, **rest)


async def test_looks_are_kept_and_shown(harness: ServiceHarness) -> None:
    before = await asked(harness)
    assert (before["updated_at"], before["shown"]["product_name"]) == (None, "Nest")
    await record(harness, **CHOSEN)
    after = await asked(harness)
    assert {name: value for name, value in after["chosen"].items() if value is not None} == CHOSEN
    assert after["shown"]["sender"] == '"Bëak, Inc." <hello@getbeak.app>'
    assert after["shown"]["button_text_colour"] == "#16181d"
    assert after["shown"]["background_colour"] == "#f3f4f6"
    # Said anew, all that is left out is as the settings say again.
    again = await record(harness, locale="fr")
    assert again == await asked(harness)
    assert again["shown"] == {**before["shown"], "locale": "fr"}
    assert await harness.database["client_looks"].count_documents({}) == 1


async def test_a_mail_wears_the_looks_of_its_client(harness: ServiceHarness, server: SmtpServer) -> None:
    await record(harness, **CHOSEN)
    await harness.deliver(order("magic-link", client_id="client_1"))
    await harness.deliver(order("magic-link", client_id="client_1", locale="es-MX"))
    await harness.deliver(order("magic-link", client_id="client_2"))
    german, spanish, other = [arrival.message for arrival in server.arrivals]
    assert german["Subject"] == "Bei Beak, Inc. anmelden"
    assert german["From"] == '"Bëak, Inc." <hello@getbeak.app>'
    assert spanish["Subject"] == "Inicia sesión en Beak, Inc."
    assert (other["Subject"], other["From"]) == ("Sign in to Nest", "Nëst <mail@nest.example>")
    # Bounces come to whoever answers for the mails.
    assert {arrival.sender for arrival in server.arrivals} == {"mail@nest.example"}


async def test_a_mail_that_names_no_app_is_as_its_reader_knows_mails(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await record(harness, **CHOSEN)
    await harness.deliver(order("welcome"))
    await harness.deliver(order("magic-link", client_id="client_1", locale="it"))
    await harness.deliver(order("welcome"))
    await harness.deliver(order("session-theft", client_id="client_2"))
    subjects = [arrival.message["Subject"] for arrival in server.arrivals]
    assert (subjects[0], subjects[2]) == ("Welcome to Nest", "Ti diamo il benvenuto in Beak, Inc.")
    assert subjects[3] == "Ti abbiamo disconnesso da Nest per sicurezza"


async def test_a_change_shows_within_a_second(harness: ServiceHarness) -> None:
    kept = harness.context.client_brandings
    now = 0.0
    wardrobe = BrandingCache(OWN, kept, clock=lambda: now)
    assert (await wardrobe.get("client_1")).product_name == "Nest"
    await record(harness, **CHOSEN)
    now = 0.9
    assert (await wardrobe.get("client_1")).product_name == "Nest"
    now = 1.0
    assert (await wardrobe.get("client_1")).product_name == "Beak, Inc."
    assert await wardrobe.get(None) == OWN
