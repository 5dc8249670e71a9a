"""Handler that sends texts: render, send through the provider, store the outcome, retry while the text is useful."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.mailer.context import Mailer
from services.mailer.deliveries.handlers import count_delivery, find_delivery, order_retry
from services.mailer.deliveries.models import Delivery, Outcome, Rejected
from services.mailer.texts.providers import Text
from shared.bus.work import Work
from shared.messages.mailer.texts import SendText, TextHandedOver
from shared.metrics import LOGINS
from shared.telemetry import log

PROMPT: Final = timedelta(seconds=2)
"""An order that is older may have been carried out before, by a process that crashed before its commit."""


async def send_text(command: SendText, work: Work, mailer: Mailer) -> None:
    """Send a text and store the outcome; order it again for later if the provider defers it."""
    stored = await find_delivery(command, mailer)
    if stored is not None and stored.finished:
        return
    number = mailer.unseal(command.to)
    delivery = stored or _new_delivery(command, number, work, mailer)
    outcome = await _send(command, number, delivery, work, mailer)
    work.commit_at_once()
    delivery = delivery.after(outcome, at=work.now, until=command.expires_at)
    mailer.deliveries.add_or_save(delivery, work, stored=stored)
    count_delivery(delivery, delivery.state, work)
    match delivery.state:
        case "handed_over":
            work.count(LOGINS.labels("phone", "texted"))
            work.publish(
                TextHandedOver(key=delivery.id, delivery_id=delivery.id, template=command.template, at=work.now)
            )
        case "queued":
            order_retry(command, delivery, work)
        case "failed":
            log.error("text failed", delivery=delivery.id, template=delivery.template, reason=delivery.reason)


def _new_delivery(command: SendText, number: str, work: Work, mailer: Mailer) -> Delivery:
    order_id = command.order_id or work.id
    return Delivery(
        medium="text",
        id=work.new_id("delivery"),
        order_id=order_id,
        template=command.template,
        client_id=command.client_id,
        locale=command.locale,
        recipient=mailer.sealed(command.to),
        recipient_hash=mailer.recipient_hash(number),
        message_id=order_id,
        created_at=work.now,
        updated_at=work.now,
    )


async def _send(command: SendText, number: str, delivery: Delivery, work: Work, mailer: Mailer) -> Outcome:
    """Render the text and try once to send it, unless it has expired."""
    if work.now >= command.expires_at:
        return Rejected("expired before it could be sent")
    branding = await mailer.branding_cache.get(delivery.client_id)
    text = Text(
        order_id=delivery.order_id,
        to=number,
        body=mailer.text_renderer.render(
            command.template,
            mailer.unseal(command.variables),
            branding=branding,
            requested=(delivery.locale, *command.other_locales),
        ),
        useful_for=command.expires_at - work.now,
        may_have_been_sent=delivery.attempts > 0 or work.now - command.ordered_at > PROMPT,
    )
    return await mailer.text_provider.send(text)
