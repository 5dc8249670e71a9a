"""Handler of the delivery list, and functions shared by the handlers that send mails and texts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from services.mailer.context import Mailer
from services.mailer.deliveries.models import Delivery, ReportKind
from shared.bus.work import Work
from shared.messages.mailer.deliveries import DeliveriesView, DeliveryState, DeliveryView, ListDeliveries
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.texts import SendText
from shared.metrics import labelled
from shared.paging import cursor_of

DELIVERIES: Final = Counter(
    "nest_deliveries",
    "Mails and texts (medium) by outcome: handed_over to the server, queued for another attempt, failed for good, "
    "suppressed, or reported later as delivered, bounced or complained.",
    ["medium", "template", "outcome"],
)


async def list_deliveries(query: ListDeliveries, _work: Work, mailer: Mailer) -> DeliveriesView:
    """Return a page of deliveries. A recipient is found by its keyed hash; the address in the query is not stored."""
    hashes = None if query.recipient is None else mailer.recipient_hashes(mailer.unseal(query.recipient))
    found = await mailer.deliveries.list_page(query, hashes)
    page = found[: query.limit]
    views = tuple(DeliveryView.model_validate(delivery, from_attributes=True) for delivery in page)
    return DeliveriesView(
        deliveries=views, next_cursor=cursor_of(page[-1].created_at, page[-1].id) if len(found) > len(page) else None
    )


async def find_delivery(command: SendMail | SendText, mailer: Mailer) -> Delivery | None:
    """Return the delivery that a retry continues, or None for a first order.

    A first order without ``order_id`` can have no delivery: a repeat of it would have found its own inbox row.
    """
    return None if command.order_id is None else await mailer.deliveries.find(command.order_id)


def count_delivery(delivery: Delivery, outcome: DeliveryState | ReportKind, work: Work) -> None:
    """Count the outcome of an attempt, or a report, once the work is committed."""
    work.count(labelled(DELIVERIES, delivery.medium, delivery.template, outcome))


def order_retry(command: SendMail | SendText, delivery: Delivery, work: Work) -> None:
    """Publish the order of a deferred delivery again, for the time of its next attempt."""
    retry = {"key": work.key, "order_id": delivery.order_id, "attempt": delivery.attempts + 1}
    work.publish(command.model_copy(update=retry), at=delivery.next_attempt())
