"""How does a mail go out? Written, handed over, and recorded; what is not taken now is ordered again for later."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from services.mailer.context import Mailer
from services.mailer.errors import UnusableAddress
from services.mailer.handlers.deliveries import earlier_tries, keep
from services.mailer.handlers.suppressions import suppress, suppression_of
from services.mailer.mime import compose
from services.mailer.models.addresses import usable_address
from services.mailer.models.deliveries import Delivery, HandedOver, HandOver, TurnedDown
from services.mailer.smtp import Mail
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.messages.mailer.mails import MailHandedOver, SendMail, Template
from shared.telemetry import log

SAYS_ITSELF: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link", "dispute"})
"""What is ordered through an app by its reader, or goes to operators: nothing need be looked up for it."""

FAILED: Final = Counter(
    "nest_mails_failed", "Mails given up: the server said never, or not now for a day; by template.", ["template"]
)


async def send_mail(command: SendMail, work: Work, mailer: Mailer) -> None:
    """Hand a mail over, and record what came of it; what the server does not take now is ordered again for later.

    The order is the committed intent, and its id makes the Message-ID: whoever runs it a second time, because the
    outcome of the first time was lost, sends a copy of the same mail.
    """
    known = await earlier_tries(command, mailer)
    if known is not None and known.settled:
        return
    address = mailer.unseal(command.to)
    delivery = known or await first_try(command, address, work, mailer)
    suppression = await suppression_of(address, command.template, mailer)
    if suppression is not None:
        keep(delivery.suppressed(suppression.cause, at=work.now), known, work, mailer)
        return
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
            FAILED.labels(tried.template).inc()
            log.error("mail failed", delivery=tried.id, template=tried.template, reason=tried.reason)
            if isinstance(outcome, TurnedDown) and outcome.dead_address:
                await suppress("bounce", tried, work, mailer)


async def first_try(command: SendMail, address: str, work: Work, mailer: Mailer) -> Delivery:
    """The delivery of a new order."""
    order_id = command.order_id or work.id
    recipient_hash = mailer.recipient_hash(address)
    client_id, locale = await dress(command, recipient_hash, mailer)
    return Delivery.order(
        channel="mail",
        id=work.new_id("delivery"),
        order_id=order_id,
        template=command.template,
        client_id=client_id,
        locale=locale,
        recipient=mailer.sealed(command.to),
        recipient_hash=recipient_hash,
        message_id=f"<{order_id}@{mailer.sender.domain}>",
        at=work.now,
    )


async def dress(command: SendMail, recipient_hash: str, mailer: Mailer) -> tuple[str | None, str | None]:
    """The client whose looks a mail wears, and the language that its reader asked for.

    Most orders do not say: a subscription belongs to no app. Then it is as the last mail was that this address got
    through one.
    """
    if command.template in SAYS_ITSELF:
        return command.client_id, command.locale
    last = await mailer.deliveries.last_through_app(recipient_hash)
    if last is None:
        return command.client_id, command.locale
    return command.client_id or last.client_id, command.locale or last.locale


async def hand_over(command: SendMail, address: str, delivery: Delivery, mailer: Mailer) -> HandOver:
    """Write the mail and try to hand it over."""
    looks = await mailer.wardrobe.of(delivery.client_id)
    variables = mailer.unseal(command.variables)
    locale = mailer.letters.language(command.template, looks=looks, wanted=(delivery.locale,))
    unsubscribe = mailer.unsubscribe_links.beside(command.template, command.user_id, locale)
    letter = mailer.letters.write(command.template, variables, looks=looks, wanted=(locale,), unsubscribe=unsubscribe)
    try:
        recipient = usable_address(address)
    except UnusableAddress as unusable:
        return TurnedDown(f"unusable address: {unusable}")
    content = compose(
        letter,
        sender=looks.sender,
        recipient=recipient,
        message_id=delivery.message_id,
        at=delivery.created_at,
        unsubscribe=unsubscribe,
    )
    mail = Mail(
        message_id=delivery.message_id,
        sender=mailer.sender.return_path(delivery.order_id),
        recipient=recipient,
        content=content,
    )
    return await mailer.smtp.hand_over(mail)
