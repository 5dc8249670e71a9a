"""Rules of subscriptions: which are active, which are duplicates, and which changes are announced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.billing.stripe_api.models import StripeSubscription
from shared.documents import stored_as
from shared.messages.billing.subscriptions import CancelType, SubscriptionStatusView, SubscriptionView

LIVE: Final = frozenset({"trialing", "active", "past_due"})
"""Statuses of which a user may have one subscription. ``incomplete`` is a checkout in progress, and ``unpaid`` and
``paused`` entitle to nothing."""
ACTIVE: Final = LIVE | {"incomplete"}
"""Statuses that clients see as active until the period ends."""
ENDED: Final = frozenset({"canceled", "incomplete_expired"})
"""Final statuses."""
STATUSES: Final = ACTIVE | ENDED | {"unpaid", "paused"}
"""Known statuses (https://docs.stripe.com/api/subscriptions/object); any other one entitles to nothing."""
ON_HOLD: Final = "void"
"""Value of ``collection_paused`` that suspends the service. With the other two ways to pause collection the service
goes on, free of charge or for later payment (https://docs.stripe.com/billing/subscriptions/pause-payment)."""
WELCOME_WINDOW: Final = timedelta(days=30)
"""Stripe keeps events this long. An older subscription that is first seen now comes from an earlier system, and its
user gets no welcome mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Our record of a Stripe subscription.

    Attributes:
        starts_at: start of the current period.
        ends_at: end of the current period, or of the subscription if it has ended.
        stp_created_at: when it was created in Stripe; of two live subscriptions the older one is kept.
        trial_id: our ID of the trial for which it was created.
        duplicate_of: our ID of the subscription that was kept when this one was cancelled.
        welcomed_at: when the welcome mail was ordered.
        read_at: when the reading began from which this record was made.
        overdue_since: since when it is unpaid, while it is past due.
        collection_paused: treatment of its invoices while payment collection is paused; None while it is not.
        trial_end_notified: the end of the trial about which the user last got a mail.
        taken_over: whether it came with an imported account. The state it had then is left alone, even a duplicate.
    """

    id: str
    user_id: str
    stp_product_id: str
    stp_subscription_id: str
    stp_customer_id: str
    status: str
    starts_at: datetime
    ends_at: datetime
    cancel_at: datetime | None
    cancel_type: CancelType | None
    cancelled_at: datetime | None
    stp_created_at: datetime
    trial_id: str | None
    duplicate_of: str | None
    welcomed_at: datetime | None
    read_at: datetime
    created_at: datetime
    updated_at: datetime
    overdue_since: datetime | None = None
    collection_paused: str | None = None
    trial_end_notified: datetime | None = stored_as("trialEndTold", default=None)
    taken_over: bool = False
    version: int = 1

    @classmethod
    def first_seen(
        cls,
        id: str,  # noqa: A002
        user_id: str,
        stripe_subscription: StripeSubscription,
        *,
        at: datetime,
        taken_over: bool = False,
    ) -> Self:
        """The first record of a subscription that was read at ``at``; the user of one taken over is not welcomed."""
        return cls(
            id=id,
            user_id=user_id,
            **_fields_of(stripe_subscription),
            duplicate_of=stripe_subscription.duplicate_of,
            welcomed_at=at if taken_over else None,
            read_at=at,
            created_at=at,
            updated_at=at,
            taken_over=taken_over,
        )

    def follow(self, user_id: str, stripe_subscription: StripeSubscription, *, read_at: datetime, at: datetime) -> Self:
        """The record updated to a reading; one that began (``read_at``) before the recorded one changes nothing."""
        if read_at < self.read_at:
            return self
        updated = replace(
            self,
            user_id=user_id,
            **_fields_of(stripe_subscription),
            duplicate_of=self.duplicate_of or stripe_subscription.duplicate_of,
            read_at=read_at,
        )
        return replace(updated, updated_at=at) if self.changes(updated) else updated

    def changes(self, updated: Subscription) -> tuple[str, ...]:
        """The stored names of the announced fields in which another record of this subscription differs."""
        return tuple(
            stored for name, stored in ANNOUNCED_FIELDS.items() if getattr(self, name) != getattr(updated, name)
        )

    def welcomed(self, at: datetime) -> Self:
        """The record after the welcome mail was ordered."""
        return replace(self, welcomed_at=at)

    def notified_of_trial_end(self, trial_end: datetime) -> Self:
        """The record after the mail about the end of its trial was ordered."""
        return replace(self, trial_end_notified=trial_end)

    def live(self, at: datetime, grace: timedelta) -> bool:
        """Whether it counts as the one live subscription of its user; an unpaid one until its grace period ends."""
        return self.status in LIVE and not grace_expired(self.overdue_since, at=at, grace=grace)

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self.status in ENDED

    @property
    def will_renew(self) -> bool:
        """Whether it continues after its current period."""
        return not self.ended and self.cancel_at is None

    def active(self, at: datetime, grace: timedelta) -> bool:
        """Whether clients see it as active: until its period ends and, if unpaid, at most for the grace period."""
        return self.status in ACTIVE and self.ends_at > at and not grace_expired(self.overdue_since, at=at, grace=grace)

    def entitled(self, at: datetime, grace: timedelta) -> bool:
        """Whether it entitles its user to the service.

        An active subscription may not: ``incomplete`` is a checkout in progress of a person who has never paid, and
        while invoices are voided the service is on hold. ``paused`` is not even active: a trial ended without a card.
        """
        return self.active(at, grace) and self.status in LIVE and self.collection_paused != ON_HOLD

    def welcome_due(self, stripe_subscription: StripeSubscription, *, at: datetime) -> bool:
        """Whether its user gets a welcome mail: once, if it ever started, is no duplicate and is not old.

        This depends on the subscription, not on the event that arrived first: a subscription that has ended when it is
        first seen causes as many mails as one that was seen from its first day.
        """
        recent = stripe_subscription.created > at - WELCOME_WINDOW
        return self.welcomed_at is None and stripe_subscription.started and self.duplicate_of is None and recent

    def trial_end_mail_due(
        self, stripe_subscription: StripeSubscription, notices: Iterable[datetime], *, at: datetime
    ) -> bool:
        """Whether its user gets a mail about the end of the trial: once for each end.

        ``notices`` are the creation times of the ``trial_will_end`` events that this reading settles.
        """
        ends_soon = any(stripe_subscription.trial_ends_soon(notice_at, at=at) for notice_at in notices)
        return ends_soon and stripe_subscription.trial_end != self.trial_end_notified

    def view(self, billing_portal_url: str | None) -> SubscriptionStatusView:
        """The view for clients."""
        return SubscriptionStatusView(
            status=self.status,
            billing_portal_url=billing_portal_url,
            start_date=self.starts_at,
            end_date=self.ends_at,
            cancel_at=self.cancel_at,
            cancel_type=self.cancel_type,
            cancelled_at=self.cancelled_at,
        )

    def operator_view(
        self, of_user: Iterable[Subscription], *, at: datetime, grace: timedelta, sold: bool
    ) -> SubscriptionView:
        """The view for operators, with the IDs of the user's other subscriptions.

        ``sold`` is whether Nest sells its product. If not, it is neither active nor entitled.
        """
        others = sorted((each for each in of_user if each.id != self.id), key=_age)
        return SubscriptionView(
            id=self.id,
            user_id=self.user_id,
            status=self.status,
            active=sold and self.active(at, grace),
            entitled=sold and self.entitled(at, grace),
            will_renew=self.will_renew,
            start_date=self.starts_at,
            end_date=self.ends_at,
            cancel_at=self.cancel_at,
            cancel_type=self.cancel_type,
            cancelled_at=self.cancelled_at,
            overdue_since=self.overdue_since,
            grace_ends_at=None if self.overdue_since is None else self.overdue_since + grace,
            collection_paused=self.collection_paused,
            trial_id=self.trial_id,
            duplicate_of=self.duplicate_of,
            other_subscription_ids=tuple(other.id for other in others),
            stp_subscription_id=self.stp_subscription_id,
            stp_customer_id=self.stp_customer_id,
            stp_product_id=self.stp_product_id,
            stp_created_at=self.stp_created_at,
            read_at=self.read_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )


ANNOUNCED_FIELDS: Final = {
    "user_id": "userId",
    "stp_product_id": "stpProductId",
    "stp_customer_id": "stpCustomerId",
    "status": "status",
    "starts_at": "startsAt",
    "ends_at": "endsAt",
    "cancel_at": "cancelAt",
    "cancel_type": "cancelType",
    "cancelled_at": "cancelledAt",
    "overdue_since": "overdueSince",
    "collection_paused": "collectionPaused",
}
"""Fields whose changes are announced, with their stored names, which the events contain."""


def _fields_of(stripe_subscription: StripeSubscription) -> dict[str, Any]:
    return {
        "stp_product_id": stripe_subscription.product_id,
        "stp_subscription_id": stripe_subscription.id,
        "stp_customer_id": stripe_subscription.customer.id,
        "status": stripe_subscription.status,
        "starts_at": stripe_subscription.period_start,
        "ends_at": stripe_subscription.ended_at or stripe_subscription.period_end,
        "cancel_at": stripe_subscription.cancellation_takes_effect_at,
        "cancel_type": stripe_subscription.cancel_type,
        "cancelled_at": stripe_subscription.canceled_at,
        "stp_created_at": stripe_subscription.created,
        "trial_id": stripe_subscription.trial_id,
        "overdue_since": stripe_subscription.overdue_since,
        "collection_paused": stripe_subscription.collection_paused,
    }


def grace_expired(overdue_since: datetime | None, *, at: datetime, grace: timedelta) -> bool:
    """Whether a subscription is unpaid for longer than the grace period.

    Stripe may be configured to leave a subscription ``past_due`` for ever, and each renewal begins a new period.
    """
    return overdue_since is not None and at >= overdue_since + grace


def _age(subscription: Subscription) -> tuple[datetime, str]:
    # Stripe's times are whole seconds. Of two subscriptions created in one second the ID decides, always the same way.
    return subscription.stp_created_at, subscription.stp_subscription_id


def live_duplicates(
    subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta
) -> list[tuple[Subscription, Subscription]]:
    """The live subscriptions of a user except the oldest one, each with the oldest one."""
    oldest_first = sorted((each for each in subscriptions if each.live(at, grace)), key=_age)
    return [(duplicate, oldest_first[0]) for duplicate in oldest_first[1:]]


def duplicates_to_cancel(
    subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta
) -> list[tuple[Subscription, Subscription]]:
    """The live duplicates that must be cancelled, each with the subscription to keep.

    Duplicates that were taken over with an imported account are only announced, and a person decides about them.
    """
    return [pair for pair in live_duplicates(subscriptions, at=at, grace=grace) if not pair[0].taken_over]


def current(subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta) -> Subscription | None:
    """The subscription of a user that clients see; None if none is active.

    A live one is preferred to a checkout in progress, and of several live ones the oldest, which is the one to keep.
    """
    active = [subscription for subscription in subscriptions if subscription.active(at, grace)]
    return min(active, key=lambda each: (not each.live(at, grace), _age(each)), default=None)


def latest(subscriptions: Iterable[Subscription]) -> Subscription | None:
    """The subscription of a user that was created last."""
    return max(subscriptions, key=_age, default=None)
