"""How do operators see to whom nothing is sent, and end that?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.handlers.suppressions import lift
from services.mailer.models.deliveries import Delivery
from services.mailer.models.suppressions import Suppression
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.mailer.errors import SuppressionNotFound
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions, SuppressionsView, SuppressionView


async def list_suppressions(query: ListSuppressions, _work: Work, mailer: Mailer) -> SuppressionsView:
    """The addresses that get nothing but what is asked for at them, by the mails that showed it."""
    hashes = None if query.recipient is None else _hashes(query.recipient, mailer)
    found = await mailer.suppressions.page(query, hashes)
    page = found[: query.limit]
    deliveries = await mailer.deliveries.some([each.delivery_id for each in page])
    return SuppressionsView(
        suppressions=tuple(_view(each, deliveries.get(each.delivery_id)) for each in page),
        next_cursor=page[-1].delivery_id if len(found) > len(page) else None,
    )


async def lift_suppression(command: LiftSuppression, work: Work, mailer: Mailer) -> SuppressionView:
    """Send everything to an address again, until it bounces or complains anew.

    Raises:
        SuppressionNotFound: nothing keeps mails from it.
        RecipientComplained: somebody called a mail spam, and it is not said that they want mails all the same.
    """
    suppression = await _named(command, mailer)
    work.annotate(resource_id=suppression.delivery_id)
    suppression.must_be_liftable(although_complained=command.although_complained)
    lift(suppression, work, mailer)
    deliveries = await mailer.deliveries.some([suppression.delivery_id])
    return _view(suppression, deliveries.get(suppression.delivery_id))


async def _named(command: LiftSuppression, mailer: Mailer) -> Suppression:
    if command.delivery_id is not None:
        return await mailer.suppressions.get_shown_by(command.delivery_id)
    found = None
    if command.recipient is not None:
        found = await mailer.suppressions.find(_hashes(command.recipient, mailer))
    if found is None:
        raise SuppressionNotFound
    return found


def _hashes(recipient: Sealed, mailer: Mailer) -> list[str]:
    return mailer.recipient_hashes(mailer.unseal(recipient).strip())


def _view(suppression: Suppression, shown_by: Delivery | None) -> SuppressionView:
    return SuppressionView(
        delivery_id=suppression.delivery_id,
        cause=suppression.cause,
        since=suppression.since,
        template=None if shown_by is None else shown_by.template,
        reason=None if shown_by is None else shown_by.reason,
    )
