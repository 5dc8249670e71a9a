"""What is kept of a mail or a text on its way?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.deliveries import Delivery
from shared.bus.work import Work
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.texts import SendText


async def earlier_tries(command: SendMail | SendText, mailer: Mailer) -> Delivery | None:
    """The delivery that an order continues; a first order has none, or its own inbox row would have answered it."""
    return None if command.order_id is None else await mailer.deliveries.find(command.order_id)


def keep(tried: Delivery, known: Delivery | None, work: Work, mailer: Mailer) -> None:
    """Store a delivery after one more try.

    Args:
        tried: as it is now.
        known: as it was stored before, if it was.
        work: what is filled.
        mailer: where.
    """
    if known is None:
        mailer.deliveries.add(tried, work)
    else:
        mailer.deliveries.save(tried, work)
