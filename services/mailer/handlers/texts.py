"""How does a text go out? Written, handed over, and recorded; while it is of use it is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.mailer.context import Mailer
from services.mailer.handlers.deliveries import earlier_tries, keep
from services.mailer.models.deliveries import Delivery, HandOver, TurnedDown
from services.mailer.sms import Text
from shared.bus.work import Work
from shared.messages.mailer.texts import SendText, TextHandedOver
from shared.telemetry import log

PROMPT: Final = timedelta(seconds=2)
"""An order that is older was perhaps carried out before, by a process that came to tell nobody."""


async def send_text(command: SendText, work: Work, mailer: Mailer) -> None:
    """Hand a text over, and record what came of it; what the provider does not take now is ordered again for later."""
    known = await earlier_tries(command, mailer)
    if known is not None and known.settled:
        return
    number = mailer.unseal(command.to)
    delivery = known or first_try(command, number, work, mailer)
    outcome = await hand_over(command, number, delivery, work, mailer)
    tried = delivery.after(outcome, at=work.now, until=command.expires_at)
    keep(tried, known, work, mailer)
    match tried.state:
        case "handed_over":
            work.publish(TextHandedOver(key=tried.id, delivery_id=tried.id, template=command.template, at=work.now))
        case "queued":
            again = {"key": work.key, "order_id": tried.order_id, "attempt": tried.attempts + 1}
            work.publish(command.model_copy(update=again), at=tried.next_try())
        case "failed":
            log.error("text failed", delivery=tried.id, template=tried.template, reason=tried.reason)


def first_try(command: SendText, number: str, work: Work, mailer: Mailer) -> Delivery:
    """The delivery of a new order."""
    order_id = command.order_id or work.id
    return Delivery.order(
        channel="text",
        id=work.new_id("delivery"),
        order_id=order_id,
        template=command.template,
        client_id=command.client_id,
        locale=command.locale,
        recipient=mailer.sealed(command.to),
        recipient_hash=mailer.recipient_hash(number),
        message_id=order_id,
        at=work.now,
    )


async def hand_over(command: SendText, number: str, delivery: Delivery, work: Work, mailer: Mailer) -> HandOver:
    """Write the text and try to hand it over, unless it is of no use any more."""
    if work.now >= command.expires_at:
        return TurnedDown("what it says holds no longer")
    looks = await mailer.wardrobe.of(delivery.client_id)
    variables = mailer.unseal(command.variables)
    text = Text(
        order_id=delivery.order_id,
        to=number,
        body=mailer.texts.write(
            command.template, variables, looks=looks, wanted=(delivery.locale, *command.other_locales)
        ),
        useful_for=command.expires_at - work.now,
        perhaps_sent=delivery.attempts > 0 or work.now - command.ordered_at > PROMPT,
    )
    return await mailer.text_provider.hand_over(text)
