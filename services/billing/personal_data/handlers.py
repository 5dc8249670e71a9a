"""How does billing do its part of an export or an erasure?"""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.reschedule import later
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.personal_data import EraseUserFromBilling, ExportUserFromBilling
from shared.personal_data.erasure import erase_part, finish_erasure, postpone_erasure
from shared.personal_data.export import export_part


async def export_user_from_billing(command: ExportUserFromBilling, work: Work, billing: Billing) -> None:
    """Hand over what is held on a user, a part at a time."""
    await export_part(command, work, billing.people.handed_over, sealer=billing.sealer)


async def erase_user_from_billing(command: EraseUserFromBilling, work: Work, billing: Billing) -> None:
    """Remove what is held on a user, Stripe's customers too if asked; later, if Stripe can't be asked now.

    First it is remembered who must not come back, and only when that is committed is anything removed: what is on its
    way takes turns with this, or sees it.
    """
    customers = await _customers(command.user_id, billing)
    ids = [command.user_id, *customers]
    if not await billing.erased.contains_all(ids):
        await billing.payers.take_turn(command.user_id, work)
        await billing.erased.add(ids, work)
        work.publish(command.model_copy(update={"key": work.key}))
        return
    if command.delete_stripe_customer:
        try:
            for customer_id in customers:
                # Each order has a key of its own: one that failed may stand for its failure for a day.
                await billing.stripe.delete_customer(customer_id, key=f"{work.id}:{customer_id}")
        except (StripeUnavailable, KeySpent, StripeRefused) as failure:
            reason = type(failure).__name__
            postpone_erasure(command, work, waits_for="stripe", reason=reason, at=later(command.attempt, work))
            return
    if await erase_part(command, work, billing.people.removed, sealer=billing.sealer):
        finish_erasure(command, work)


async def _customers(user_id: str, billing: Billing) -> list[str]:
    """Every customer that is known to be, or to have been, the user's."""
    known = set(await billing.mappings.customers_of(user_id))
    known.update(subscription.stp_customer_id for subscription in await billing.subscriptions.of_user(user_id))
    trial = await billing.trials.find_by_user(user_id)
    if trial is not None and trial.stp_customer_id is not None:
        known.add(trial.stp_customer_id)
    return sorted(known)
