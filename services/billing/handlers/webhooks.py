"""Which of Stripe's events matter, and what do they hint at?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from services.billing import alarms
from services.billing.context import Billing
from services.billing.handlers.payment_hints import PAYMENT_HINTS
from services.billing.handlers.subscriptions import follow_subscription
from shared.messages.billing import FollowSubscription
from shared.messages.stripe import StripeEvent, StripeObject
from shared.telemetry import log
from shared.work import Work


async def stripe_event(event: StripeEvent, work: Work, billing: Billing) -> None:
    """Look at what an event is about; nothing it says is believed but its type and its object's id.

    Types that nobody here follows are acknowledged and counted: Stripe has many, and adds more.
    """
    if event.livemode != billing.livemode:
        alarms.OTHER_MODE.inc()
        log.error("event of the other mode", stripe_event=event.id, livemode=event.livemode)
        return
    hint = HINTS.get(event.type)
    alarms.EVENTS.labels("other" if hint is None else event.type).inc()
    if hint is not None:
        await hint(event.data.object, work, billing)


async def _subscription(subject: StripeObject, work: Work, billing: Billing) -> None:
    await follow_subscription(FollowSubscription(subscription_id=subject.id), work, billing)


Hint = Callable[[StripeObject, Work, Billing], Awaitable[None]]
HINTS: Final[dict[str, Hint]] = {
    "customer.subscription.created": _subscription,
    "customer.subscription.updated": _subscription,
    "customer.subscription.deleted": _subscription,
    **PAYMENT_HINTS,
}
"""What each type of event makes us read again."""
