"""What does the mailer do with each message?"""

from __future__ import annotations

from dataclasses import dataclass

from services.mailer.errors import UnusableAddress
from services.mailer.mime import compose
from services.mailer.models import Consent, Delivery, HandedOver, HandOver, TurnedDown, usable_address
from services.mailer.rendering import Letters
from services.mailer.smtp import Mail, Smtp
from services.mailer.store import Consents, Deliveries
from shared.faultpoints import fault_point
from shared.handling import Handler
from shared.messages import Message
from shared.messages.mailer import (
    GetMarketingConsent,
    MailHandedOver,
    MarketingConsentChanged,
    MarketingConsentView,
    RecordMarketingConsent,
    SendMail,
)
from shared.sealed import Sealer
from shared.telemetry import log
from shared.work import Work

SERVICE = "mailer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who our mails come from.

    Attributes:
        address: ASCII; where bounces go.
        header: the ``From`` header, the address with a name.
    """

    address: str
    header: str

    @property
    def domain(self) -> str:
        """The right side of the address, and of every Message-ID."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailer:
    """What the handlers work with.

    Attributes:
        deliveries: the mails and their states.
        consents: who lets us send what.
        letters: writes what mails say.
        smtp: hands them over.
        sender: who they come from.
        sealer: opens what is sealed for the mailer.
    """

    deliveries: Deliveries
    consents: Consents
    letters: Letters
    smtp: Smtp
    sender: Sender
    sealer: Sealer


async def send_mail(command: SendMail, work: Work, mailer: Mailer) -> None:
    """Hand a mail over, and record what came of it; what the server does not take now is ordered again for later.

    The order is the committed intent, and its id makes the Message-ID: whoever runs it a second time, because the
    outcome of the first time was lost, sends a copy of the same mail.
    """
    known = await earlier_tries(command, mailer)
    if known is not None and known.settled:
        return
    address = mailer.sealer.reveal(SERVICE, command.to)
    delivery = known or first_try(command, address, work, mailer)
    outcome = await hand_over(command, address, delivery, mailer)
    if isinstance(outcome, HandedOver):
        fault_point("M1")
    tried = delivery.after(outcome, at=work.now)
    if known is None:
        mailer.deliveries.add(tried, work)
    else:
        mailer.deliveries.save(tried, work)
    match tried.state:
        case "handed_over":
            work.publish(MailHandedOver(key=tried.id, delivery_id=tried.id, template=tried.template, at=work.now))
        case "queued":
            again = {"key": work.key, "order_id": tried.order_id, "attempt": tried.attempts + 1}
            work.publish(command.model_copy(update=again), at=tried.next_try())
        case "failed":
            log.error("mail failed", delivery=tried.id, template=tried.template, reason=tried.reason)


async def earlier_tries(command: SendMail, mailer: Mailer) -> Delivery | None:
    """The delivery that an order continues; a first order has none, or its own inbox row would have answered it."""
    return None if command.order_id is None else await mailer.deliveries.find(command.order_id)


def first_try(command: SendMail, address: str, work: Work, mailer: Mailer) -> Delivery:
    """The delivery of a new order."""
    return Delivery.order(
        id=work.new_id("delivery"),
        order_id=command.order_id or work.id,
        template=command.template,
        client_id=command.client_id,
        recipient=command.to.ciphertext or mailer.sealer.seal(SERVICE, address.encode()),
        recipient_hash=mailer.sealer.fingerprint(b"recipient", address.lower().encode()),
        domain=mailer.sender.domain,
        at=work.now,
    )


async def hand_over(command: SendMail, address: str, delivery: Delivery, mailer: Mailer) -> HandOver:
    """Write the mail and try to hand it over."""
    letter = mailer.letters.write(command.template, mailer.sealer.reveal(SERVICE, command.variables))
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


async def record_marketing_consent(command: RecordMarketingConsent, work: Work, mailer: Mailer) -> None:
    """Keep what a user consents to; announced when it is something else than before."""
    before = await mailer.consents.find(command.user_id)
    if before is None:
        consent = Consent.give(
            command.user_id, command.level, id=work.new_id("mktngconsent"), source=command.source, at=work.now
        )
        mailer.consents.add(consent, work)
    else:
        consent = before.choose(command.level, source=command.source, at=work.now)
        mailer.consents.save(consent, work)
    if before is None or before.level != consent.level:
        work.publish(
            MarketingConsentChanged(
                key=consent.user_id, user_id=consent.user_id, level=consent.level, source=consent.source, at=work.now
            )
        )


async def get_marketing_consent(query: GetMarketingConsent, work: Work, mailer: Mailer) -> MarketingConsentView:  # noqa: ARG001 -- as every handler
    """What a user consents to."""
    return (await mailer.consents.get(query.user_id)).view()


HANDLERS: dict[type[Message], Handler] = {
    SendMail: send_mail,
    RecordMarketingConsent: record_marketing_consent,
    GetMarketingConsent: get_marketing_consent,
}
