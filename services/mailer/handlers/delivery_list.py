"""How do operators see what became of mails and texts? A page at a time, newest first."""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.deliveries import Delivery
from shared.bus.work import Work
from shared.messages.mailer.deliveries import DeliveriesView, DeliveryView, ListDeliveries


async def list_deliveries(query: ListDeliveries, _work: Work, mailer: Mailer) -> DeliveriesView:
    """What went out, by the filters given, and where the next page begins.

    A recipient is found by a keyed hash, as is kept; the address itself is opened here and nowhere kept.
    """
    hashes = None if query.recipient is None else mailer.recipient_hashes(mailer.unseal(query.recipient).strip())
    found = await mailer.deliveries.page(query, hashes)
    page = found[: query.limit]
    return DeliveriesView(
        deliveries=tuple(map(_view, page)), next_cursor=page[-1].id if len(found) > len(page) else None
    )


def _view(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        medium=delivery.channel,
        state=delivery.state,
        template=delivery.template,
        client_id=delivery.client_id,
        locale=delivery.locale,
        attempts=delivery.attempts,
        reason=delivery.reason,
        message_id=delivery.message_id,
        created_at=delivery.created_at,
        updated_at=delivery.updated_at,
    )
