"""Events of Nest as events of webhooks: the table of types, and the data of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from shared.messages import Event
from shared.messages.auth.sessions import SessionRevoked
from shared.messages.auth.tokens import RefreshTokenReused, UserAuthenticated
from shared.messages.auth.users import UserCreated
from shared.messages.auth.webhooks import UserErased
from shared.messages.billing.disputes import DisputeClosed, DisputeOpened
from shared.messages.billing.payments import (
    PaymentActionRequired,
    PaymentCancelled,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
)
from shared.messages.billing.subscriptions import (
    CancellationPlanned,
    CancellationWithdrawn,
    DuplicateSubscriptionCancelled,
    DuplicateSubscriptionFound,
    PlanChanged,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionLapsed,
    SubscriptionMoved,
    SubscriptionResumed,
    SubscriptionStarted,
)
from shared.messages.billing.trials import TrialStarted
from shared.messages.mailer.consents import MarketingConsentChanged
from shared.messages.mailer.webhook_events import DATA, EventType, WebhookEvent

SOURCES: Final[Mapping[type[Event], tuple[EventType, ...]]] = {
    UserCreated: ("user.created",),
    UserAuthenticated: ("user.logged_in",),
    UserErased: ("user.erased",),
    SessionRevoked: ("session.revoked",),
    RefreshTokenReused: ("session.revoked",),
    SubscriptionStarted: ("subscription.started",),
    SubscriptionChanged: ("subscription.changed", "trial.ended"),
    SubscriptionEnded: ("subscription.ended", "trial.ended"),
    SubscriptionLapsed: ("subscription.lapsed",),
    SubscriptionMoved: ("subscription.moved",),
    PlanChanged: ("subscription.plan_changed",),
    CancellationPlanned: ("subscription.cancellation_planned",),
    CancellationWithdrawn: ("subscription.cancellation_withdrawn",),
    SubscriptionResumed: ("subscription.resumed",),
    DuplicateSubscriptionFound: ("subscription.duplicate_found",),
    DuplicateSubscriptionCancelled: ("subscription.duplicate_cancelled",),
    TrialStarted: ("trial.started",),
    PaymentSucceeded: ("payment.succeeded",),
    PaymentFailed: ("payment.failed",),
    PaymentActionRequired: ("payment.action_required",),
    PaymentCancelled: ("payment.cancelled",),
    PaymentRefunded: ("payment.refunded",),
    DisputeOpened: ("payment.disputed",),
    DisputeClosed: ("payment.dispute_closed",),
    MarketingConsentChanged: ("consent.changed",),
}
"""Types that an event leads to. ``trial.ended`` only if the subscription was a trial before."""


def webhook_events(event: Event, *, published_at: int, new_id: Callable[[], str]) -> Iterator[WebhookEvent]:
    """Return the webhook events of an event, in order.

    Args:
        event: one of ``SOURCES``.
        published_at: when it was published, Unix milliseconds; for events without a time of their own.
        new_id: returns the ID of the next one.
    """
    published = datetime.fromtimestamp(published_at / 1000, UTC)
    for event_type in SOURCES[type(event)]:
        if event_type == "trial.ended" and not _ends_trial(event):
            continue
        values: Any = event
        if isinstance(event, RefreshTokenReused):
            values = {**event.model_dump(), "session_id": event.root_grant, "by": "theft"}
        data = DATA[event_type].model_validate(values, from_attributes=True)
        yield WebhookEvent(
            event_id=new_id(),
            type=event_type,
            at=getattr(event, "happened_at", None) or getattr(event, "at", None) or published,
            user_id=getattr(event, "user_id", None),
            client_id=getattr(event, "client_id", None),
            data=data.model_dump(mode="json"),
        )


def _ends_trial(event: Event) -> bool:
    return (
        isinstance(event, SubscriptionChanged | SubscriptionEnded)
        and event.status_before == "trialing"
        and event.status != "trialing"
    )
