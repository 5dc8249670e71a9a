"""To whom is nothing sent but what they ask for?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.deliveries import Delivery
from services.mailer.models.suppressions import ASKED_FOR, Suppression
from shared.bus.work import Work
from shared.messages.mailer.mail_reports import AddressSuppressed
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import Cause, SuppressionLifted
from shared.telemetry import log


async def suppression_of(address: str, template: Template, mailer: Mailer) -> Suppression | None:
    """Why this mail is not sent to this address, if it is not."""
    if template in ASKED_FOR:
        return None
    return await mailer.suppressions.find(mailer.recipient_hashes(address))


async def suppress(cause: Cause, shown_by: Delivery, work: Work, mailer: Mailer) -> None:
    """From now on send the recipient of a delivery nothing but what they ask for."""
    known = await _known(shown_by, mailer)
    suppression = Suppression(
        id=shown_by.recipient_hash if known is None else known.id,
        cause=cause,
        delivery_id=shown_by.id,
        since=work.now,
        version=1 if known is None else known.version,
    )
    if not suppression.outweighs(known):
        return
    if known is None:
        mailer.suppressions.add(suppression, work)
    else:
        mailer.suppressions.save(suppression, work)
    work.publish(AddressSuppressed(key=shown_by.id, delivery_id=shown_by.id, cause=cause, at=work.now))
    log.warning("address suppressed", delivery=shown_by.id, cause=cause)


async def lift_if_back(delivered: Delivery, work: Work, mailer: Mailer) -> None:
    """Send to the recipient of a delivery again, if it shows that the mailbox is back."""
    known = await _known(delivered, mailer)
    if known is not None and known.ended_by(delivered.created_at):
        lift(known, work, mailer)


def lift(suppression: Suppression, work: Work, mailer: Mailer) -> None:
    """From now on send everything to an address again."""
    mailer.suppressions.lift(suppression, work)
    work.publish(
        SuppressionLifted(
            key=suppression.delivery_id, delivery_id=suppression.delivery_id, cause=suppression.cause, at=work.now
        )
    )
    log.info("suppression lifted", delivery=suppression.delivery_id, cause=suppression.cause)


async def _known(delivery: Delivery, mailer: Mailer) -> Suppression | None:
    """What keeps mails from the recipient of a delivery, under whichever sealing key it was written down."""
    return await mailer.suppressions.find(mailer.hashes_of(delivery))
