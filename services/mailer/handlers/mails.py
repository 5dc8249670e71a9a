"""How does a mail go out? Written, handed over, and recorded; what is not taken now is ordered again for later."""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.errors import UnusableAddress
from services.mailer.handlers.deliveries import earlier_tries, keep
from services.mailer.mime import compose
from services.mailer.models.addresses import usable_address
from services.mailer.models.deliveries import Delivery, HandedOver, HandOver, TurnedDown
from services.mailer.smtp import Mail
from shared.faultpoints import fault_point
from shared.messages.mailer import MailHandedOver, SendMail
from shared.telemetry import log
from shared.work import Work


async def send_mail(command: SendMail, work: Work, mailer: Mailer) -> None:
    """Hand a mail over, and record what came of it; what the server does not take now is ordered again for later.

    The order is the committed intent, and its id makes the Message-ID: whoever runs it a second time, because the
    outcome of the first time was lost, sends a copy of the same mail.
    """
    known = await earlier_tries(command, mailer)
    if known is not None and known.settled:
        return
    address = mailer.reveal(command.to)
    delivery = known or first_try(command, address, work, mailer)
    outcome = await hand_over(command, address, delivery, mailer)
    if isinstance(outcome, HandedOver):
        fault_point("M1")
    tried = delivery.after(outcome, at=work.now)
    keep(tried, known, work, mailer)
    match tried.state:
        case "handed_over":
            work.publish(MailHandedOver(key=tried.id, delivery_id=tried.id, template=command.template, at=work.now))
        case "queued":
            again = {"key": work.key, "order_id": tried.order_id, "attempt": tried.attempts + 1}
            work.publish(command.model_copy(update=again), at=tried.next_try())
        case "failed":
            log.error("mail failed", delivery=tried.id, template=tried.template, reason=tried.reason)


def first_try(command: SendMail, address: str, work: Work, mailer: Mailer) -> Delivery:
    """The delivery of a new order."""
    order_id = command.order_id or work.id
    return Delivery.order(
        channel="mail",
        id=work.new_id("delivery"),
        order_id=order_id,
        template=command.template,
        client_id=command.client_id,
        recipient=mailer.sealed(command.to),
        recipient_hash=mailer.sealer.fingerprint(b"recipient", address.lower().encode()),
        message_id=f"<{order_id}@{mailer.sender.domain}>",
        at=work.now,
    )


async def hand_over(command: SendMail, address: str, delivery: Delivery, mailer: Mailer) -> HandOver:
    """Write the mail and try to hand it over."""
    letter = mailer.letters.write(command.template, mailer.reveal(command.variables))
    try:
        recipient = usable_address(address)
    except UnusableAddress as unusable:
        return TurnedDown(f"unusable address: {unusable}")
    content = compose(
        letter,
        sender=mailer.sender.header,
        recipient=recipient,
        message_id=delivery.message_id,
        at=delivery.created_at,
    )
    mail = Mail(message_id=delivery.message_id, sender=mailer.sender.address, recipient=recipient, content=content)
    return await mailer.smtp.hand_over(mail)
