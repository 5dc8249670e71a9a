"""Handlers of entitlements: readings of Stripe's active entitlements, and refreshes after a product has changed."""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.context import Billing
from services.billing.entitlements.models import ActiveEntitlements
from services.billing.entitlements.sync import update_entitlements
from services.billing.events.models import Outcome, entitlements_of
from services.billing.events.pending import pending_events, settle
from services.billing.stripe_api.calls import RightMissing, StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.billing.entitlements import FollowEntitlements, RefreshEntitlements
from shared.messages.billing.errors import StripeUnavailable
from shared.telemetry import log

SUBSCRIPTIONS_PER_STEP: Final = 200
"""Subscriptions that one command covers."""


async def follow_entitlements(command: FollowEntitlements, work: Work, billing: Billing) -> None:
    """Read the active entitlements of a customer, update the features of its user, and settle the pending events."""
    pending = await pending_events(command, entitlements_of(command.customer_id), billing)
    if pending is None:
        return
    outcome: Outcome = "read"
    try:
        features = await billing.stripe.active_entitlements(command.customer_id)
    except RightMissing:
        # Then the features of the products count.
        log.warning("stripe key may not read active entitlements", customer=command.customer_id)
        outcome = "refused"
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(customer=command.customer_id)
        outcome = "refused"
    else:
        mapping = await billing.mappings.find(command.customer_id)
        if mapping is None:
            # The features of the products count once the subscription is recorded.
            outcome = "nobody"
        else:
            active = ActiveEntitlements(stp_customer_id=command.customer_id, features=tuple(features), read_at=work.now)
            await update_entitlements(mapping.user_id, work, billing, active=active)
    settle(pending, outcome, work, billing)


async def refresh_entitlements(command: RefreshEntitlements, work: Work, billing: Billing) -> None:
    """Compute the features of a user, or of the next users of a product, and order the step after it.

    A step reads a bounded number of subscriptions by their ID, so that a product of a million users delays nothing.
    """
    if command.user_id:
        await update_entitlements(command.user_id, work, billing)
        return
    page = await billing.subscriptions.live_after(command.after, limit=SUBSCRIPTIONS_PER_STEP)
    users = {each.user_id for each in page if command.product_id in each.products}
    await asyncio.gather(*(update_entitlements(user_id, work, billing) for user_id in users))
    if len(page) == SUBSCRIPTIONS_PER_STEP:
        work.publish(command.model_copy(update={"key": work.key, "after": page[-1].id}))
