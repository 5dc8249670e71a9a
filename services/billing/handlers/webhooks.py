"""Which of Stripe's events matter, and what do they hint at?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from services.billing import alarms
from services.billing.context import Billing
from services.billing.handlers.payment_hints import PAYMENT_HINTS
from services.billing.models.events import KeptEvent, Outcome
from shared.messages.billing import FollowSubscription
from shared.messages.stripe import StripeEvent, StripeObject
from shared.telemetry import log
from shared.work import Work


async def stripe_event(event: StripeEvent, work: Work, billing: Billing) -> None:
    """Keep an event, and look at what it is about; nothing it says is believed but its type and its object's id.

    One about a subscription waits until that has been read: by an order under the subscription's own id, so that one
    reader at a time looks at it, whatever the events were ordered by, and one reading covers all that wait by then.
    Types that nobody here follows are acknowledged, counted and kept: Stripe has many, and adds more.
    """
    kept = KeptEvent.of(event, at=work.now)
    if await billing.events.find(kept.id) is not None:
        # Known from earlier than the inbox remembers; whoever wants it looked at again reopens it.
        return
    outcome = await outcome_of(event, kept, work, billing)
    billing.events.add(
        kept if outcome is None else kept.handled(outcome, at=work.now, kept_for=billing.events_kept), work
    )


async def outcome_of(event: StripeEvent, kept: KeptEvent, work: Work, billing: Billing) -> Outcome | None:
    """What comes of an event at once; None if it waits."""
    if event.livemode != billing.livemode:
        alarms.OTHER_MODE.inc()
        log.error("event of the other mode", stripe_event=event.id, livemode=event.livemode)
        return "other_mode"
    subject = event.data.object
    hint = HINTS.get(event.type)
    about_subscription = event.type in SUBSCRIPTION_EVENTS and subject.id
    followed = about_subscription or hint is not None
    alarms.EVENTS.labels(event.type if followed else "other").inc()
    if about_subscription:
        work.publish(FollowSubscription(key=subject.id, subscription_id=subject.id, event_id=kept.id))
        return None
    if hint is None:
        return "not_followed"
    await hint(subject, work, billing)
    return "put_off" if work.timers else "read"


SUBSCRIPTION_EVENTS: Final = frozenset(
    f"customer.subscription.{what}"
    for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end", "pending_update_applied")
)
"""What makes us read the subscription again."""
Hint = Callable[[StripeObject, Work, Billing], Awaitable[None]]
HINTS: Final[dict[str, Hint]] = {
    **PAYMENT_HINTS,
}
"""What each other type of event makes us read again."""
