"""Handler of the delivery list, and functions shared by the handlers that send mails and texts."""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.deliveries.models import Delivery
from shared.bus.work import Work
from shared.messages.mailer.deliveries import DeliveriesView, DeliveryView, ListDeliveries
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.texts import SendText


async def list_deliveries(query: ListDeliveries, _work: Work, mailer: Mailer) -> DeliveriesView:
    """Return a page of deliveries and the cursor of the next page.

    A recipient is looked up by its keyed hash; the address in the query is unsealed here and stored nowhere.
    """
    hashes = None if query.recipient is None else mailer.recipient_hashes(mailer.unseal(query.recipient).strip())
    found = await mailer.deliveries.list_page(query, hashes)
    page = found[: query.limit]
    return DeliveriesView(
        deliveries=tuple(map(_view, page)), next_cursor=page[-1].id if len(found) > len(page) else None
    )


async def find_delivery(command: SendMail | SendText, mailer: Mailer) -> Delivery | None:
    """Return the delivery that a retry continues, or None for a first order.

    A first order without ``order_id`` can have no delivery: a repeat of it would have found its own inbox row.
    """
    return None if command.order_id is None else await mailer.deliveries.find(command.order_id)


def store_delivery(delivery: Delivery, stored: Delivery | None, work: Work, mailer: Mailer) -> None:
    """Insert or replace a delivery.

    Args:
        delivery: the new state.
        stored: the delivery as it was read, or None if it is new.
        work: the work to add the write to.
        mailer: the context with the store.
    """
    if stored is None:
        mailer.deliveries.add(delivery, work)
    else:
        mailer.deliveries.save(delivery, work)


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
