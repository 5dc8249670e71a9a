"""Previews of mails and texts by the running mailer."""

from typing import get_args

import pytest

from shared.messages.auth.clients import ClientLooks
from shared.messages.mailer.branding import PreviewMail, RecordClientLooks
from shared.messages.mailer.mails import Template
from shared.messages.mailer.texts import TextTemplate
from tests.service_harness import ServiceHarness


async def test_preview_has_the_branding_and_language_of_the_client(harness: ServiceHarness) -> None:
    looks = ClientLooks(product_name="Beak", accent_colour="#0a7d4f", locale="de")
    await harness.deliver(RecordClientLooks(key="client_1", client_id="client_1", looks=looks))
    mail = await harness.deliver(PreviewMail(template="magic-link", client_id="client_1"))
    assert (mail["locale"], "Beak" in mail["subject"], "#0a7d4f" in mail["html"]) == ("de", True, True)
    english = await harness.deliver(PreviewMail(template="magic-link", client_id="client_1", locale="en"))
    assert english["locale"] == "en"


async def test_preview_shows_branding_that_is_not_set_yet(harness: ServiceHarness) -> None:
    harness.clear()
    chosen = ClientLooks(product_name="Unsaved", background_colour="#123456")
    mail = await harness.deliver(PreviewMail(template="welcome", client_id="client_1", looks=chosen))
    assert "Unsaved" in mail["text"]
    assert "#123456" in mail["html"]
    stored = await harness.deliver(PreviewMail(template="welcome", client_id="client_1"))
    assert "Unsaved" not in stored["text"]
    assert harness.published == []


@pytest.mark.parametrize("template", [*get_args(Template), *get_args(TextTemplate)])
async def test_every_mail_and_text_can_be_previewed(harness: ServiceHarness, template: str) -> None:
    mail = await harness.deliver(PreviewMail.model_validate({"template": template}))
    is_text = template in get_args(TextTemplate)
    assert (bool(mail["text"]), bool(mail["html"]), bool(mail["subject"])) == (True, not is_text, not is_text)
