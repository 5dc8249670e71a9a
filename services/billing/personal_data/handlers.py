"""Billing's part of the export and the erasure of a user."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.reschedule import retry_time
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.personal_data import EraseUserFromBilling, ExportUserFromBilling
from shared.personal_data.erasure import erase_part, finish_erasure, postpone_erasure
from shared.personal_data.export import export_part


async def export_user_from_billing(command: ExportUserFromBilling, work: Work, billing: Billing) -> None:
    """Export the user's data in billing, one part with each message."""
    await export_part(command, work, billing.personal_data.exported, sealer=billing.sealer)


async def erase_user_from_billing(command: EraseUserFromBilling, work: Work, billing: Billing) -> None:
    """Erase the user's data in billing and, if requested, the user's customers in Stripe.

    The IDs of the user and of the customers are recorded as erased first, and data is removed only after that commit.
    Handlers that run at the same time are serialized with it by ``payers``, or see the recorded IDs.
    """
    customers = await _customers(command.user_id, billing)
    ids = [command.user_id, *customers]
    if not await billing.erased.contains_all(ids):
        await billing.payers.serialize(command.user_id, work)
        await billing.erased.add(ids, work)
        work.publish(command.model_copy(update={"key": work.key}))
        return
    if command.delete_stripe_customer:
        try:
            for customer_id in customers:
                # Each attempt has its own idempotency key: Stripe keeps a failure under a key for a day.
                await billing.stripe.delete_customer(customer_id, key=f"{work.id}:{customer_id}")
        except (StripeUnavailable, KeySpent, StripeRefused) as failure:
            reason = type(failure).__name__
            if isinstance(failure, StripeRefused):
                failure.report(user=command.user_id)
            postpone_erasure(command, work, waits_for="stripe", reason=reason, at=retry_time(command.attempt, work))
            return
    if await erase_part(command, work, billing.personal_data.erased, sealer=billing.sealer):
        finish_erasure(command, work)


async def _customers(user_id: str, billing: Billing) -> list[str]:
    """Stripe's IDs of all customers that belong or belonged to the user."""
    customer_ids = set(await billing.mappings.customers_of(user_id))
    customer_ids.update(await billing.subscriptions.customers_of(user_id))
    trial = await billing.trials.find_by_user(user_id)
    if trial is not None and trial.stp_customer_id is not None:
        customer_ids.add(trial.stp_customer_id)
    return sorted(customer_ids)
