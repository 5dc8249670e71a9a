"""Rules of subscriptions: which are active, which are duplicates, and which changes are announced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from services.billing.stripe_api.models import ItemTerms, StripeCustomer, StripeSubscription, SubscriptionItem
from shared.documents import stored_as
from shared.messages.billing.subscriptions import CancelType

LIVE: Final = frozenset({"trialing", "active", "past_due"})
"""Statuses of which a user may have one subscription. ``incomplete`` is a checkout in progress, and ``unpaid`` and
``paused`` entitle to nothing."""
ACTIVE: Final = LIVE | {"incomplete"}
"""Statuses that clients see as active until the period ends."""
ENDED: Final = frozenset({"canceled", "incomplete_expired"})
"""Final statuses."""
RESUMABLE: Final = frozenset({"past_due", "unpaid", "paused"})
"""Statuses in which a payment, or a payment method, gives access again."""
STATUSES: Final = ACTIVE | ENDED | {"unpaid", "paused"}
"""Known statuses (https://docs.stripe.com/api/subscriptions/object); any other one entitles to nothing."""
ON_HOLD: Final = "void"
"""Value of ``collection_paused`` that suspends the service. With the other two ways to pause collection the service
goes on, free of charge or for later payment (https://docs.stripe.com/billing/subscriptions/pause-payment)."""
WELCOME_WINDOW: Final = timedelta(days=30)
"""Stripe keeps events this long. An older subscription that is first seen now comes from an earlier system, and its
user gets no welcome mail."""


Standing = Literal["paid", "promised", "unpaid"]
"""How a subscription is paid for.

- ``paid``: money was received for it, and none is overdue.
- ``promised``: Stripe can collect at the end of a trial, or tries to collect; or it was paid earlier.
- ``unpaid``: it is free of charge, or a trial or overdue without a payment method and without any payment so far.
"""

_STANDINGS: Final[tuple[Standing, ...]] = ("paid", "promised", "unpaid")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """How long a subscription counts after the times that Stripe names.

    Attributes:
        grace: grace period of an unpaid subscription.
        unpaid_grace: the same for one for which nothing was ever paid, such as a trial that ended without a card, or a
            first bank debit that is returned. A trial that ended with a payment method has the grace period.
        leeway: how long a subscription that renews stays active past its period: Stripe's event about the renewal
            may be late.
    """

    grace: timedelta
    unpaid_grace: timedelta = timedelta(0)
    leeway: timedelta = timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalPolicy:
    """Which renewals are announced to the person, and when.

    Attributes:
        days: days before the renewal by country (ISO 3166-1) or part of one (ISO 3166-2); ``*`` for all others.
        months: shortest period whose renewal is announced.
    """

    days: Mapping[str, int]
    months: int

    def notice(self, customer: StripeCustomer) -> timedelta | None:
        """How long before a renewal a customer gets the mail; None for no mail."""
        places = (f"{customer.country}-{customer.region}", str(customer.country), "*")
        days = next((self.days[each] for each in places if each in self.days), None)
        return None if days is None else timedelta(days=days)

    def announces(self, terms: Iterable[ItemTerms]) -> bool:
        """Whether the period of these items is long enough."""
        months = {"month": 1, "year": 12}
        return any(months.get(each.interval, 0) * each.interval_count >= self.months for each in terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Our record of a Stripe subscription.

    Attributes:
        starts_at: start of the current period.
        ends_at: end of the current period, or of the subscription if it has ended.
        stp_created_at: when it was created in Stripe; of two live subscriptions that are paid alike the older one is
            kept.
        trial_id: our ID of the trial for which it was created.
        duplicate_of: our ID of the subscription that was kept when this one was cancelled.
        welcomed_at: when the welcome mail was ordered.
        read_at: when the reading began from which this record was made.
        overdue_since: since when it is unpaid, while it is past due or unpaid.
        collection_paused: treatment of its invoices while payment collection is paused; None while it is not.
        trial_end_notified: the end of the trial about which the user last got a mail.
        taken_over: whether it came with an imported account. The state it had then is left alone, even a duplicate.
        items: prices, products and quantities that it consists of. Empty in a record of an earlier release that was not
            read since; then ``stp_product_id`` is the only product known.
        schedule_ends_at: when its schedule in Stripe cancels it.
        paid: whether money was ever received for it; None in a record of an earlier release.
        standing: how it was paid for at the last reading; None in a record of an earlier release.
        moved_at: when it was last moved from another user, by metadata in Stripe. A person decided so: it is neither
            cancelled as a duplicate nor a reason to cancel one.
        access_checked_at: the time for which the last check of its access was ordered.
        renewal_checked_at: the time for which the last check before a renewal was ordered.
        lapsed_at: when it was announced that its access ended by time alone; None while it entitles.
        currency: ISO code in lower case; None in a record of an earlier release, as ``amount_varies``.
        amount_varies: whether a coupon or a schedule may change the amount of its next invoice.
        had_trial: whether it ever was on trial; None in a record of an earlier release, as ``paused_by_trial``.
        paused_by_trial: whether it is paused because its trial ended without a payment method, which one resumes.
        pending_until: when Stripe drops the change that waits for the payment of its invoice; None if none waits.
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
    items: tuple[SubscriptionItem, ...] = ()
    schedule_ends_at: datetime | None = None
    paid: bool | None = None
    standing: Standing | None = None
    moved_at: datetime | None = None
    access_checked_at: datetime | None = None
    renewal_checked_at: datetime | None = None
    lapsed_at: datetime | None = None
    currency: str | None = None
    amount_varies: bool | None = None
    had_trial: bool | None = None
    paused_by_trial: bool | None = None
    pending_until: datetime | None = None
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
            paid=stripe_subscription.paid,
            standing=_standing(stripe_subscription, paid=stripe_subscription.paid),
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
        # An invoice that was paid stays so, whatever the latest one is.
        paid = stripe_subscription.paid or bool(self.paid)
        updated = replace(
            self,
            user_id=user_id,
            **_fields_of(stripe_subscription),
            paid=paid,
            standing=_standing(stripe_subscription, paid=paid),
            duplicate_of=self.duplicate_of or stripe_subscription.duplicate_of,
            moved_at=self.moved_at if user_id == self.user_id else at,
            read_at=read_at,
        )
        return replace(updated, updated_at=at) if self.changes(updated) else updated

    def changes(self, updated: Subscription) -> tuple[str, ...]:
        """The stored names of the announced fields in which another record of this subscription differs."""
        older = self.completed_from(updated)
        return tuple(
            stored for name, stored in ANNOUNCED_FIELDS.items() if getattr(older, name) != getattr(updated, name)
        )

    def completed_from(self, updated: Subscription) -> Self:
        """The record with the fields that an earlier release did not store; unchanged if it has them."""
        if self.items:
            return self
        overdue_since = updated.overdue_since if updated.status == "unpaid" else self.overdue_since
        return replace(
            self, items=updated.items, schedule_ends_at=updated.schedule_ends_at, overdue_since=overdue_since
        )

    def welcomed(self, at: datetime) -> Self:
        """The record after the welcome mail was ordered."""
        return replace(self, welcomed_at=at)

    def notified_of_trial_end(self, trial_end: datetime) -> Self:
        """The record after the mail about the end of its trial was ordered."""
        return replace(self, trial_end_notified=trial_end)

    @property
    def products(self) -> frozenset[str]:
        """Stripe's IDs of its products."""
        return frozenset(item.stp_product_id for item in self.items) or frozenset({self.stp_product_id})

    def live(self, at: datetime, policy: AccessPolicy) -> bool:
        """Whether it counts as the live subscription of its user; an unpaid one until its grace period ends."""
        return self.status in LIVE and not self._grace_expired(at, policy)

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self.status in ENDED

    def change_pending(self, at: datetime) -> bool:
        """Whether a change of it waits for the payment of its invoice."""
        return not self.ended and self.pending_until is not None and at < self.pending_until

    @property
    def planned_end(self) -> datetime | None:
        """When a cancellation or its schedule ends it; None if nothing does."""
        return min(filter(None, (self.cancel_at, self.schedule_ends_at)), default=None)

    @property
    def will_renew(self) -> bool:
        """Whether it continues after its current period."""
        return not self.ended and not self._ends_with_period

    @property
    def _ends_with_period(self) -> bool:
        return self.planned_end is not None and self.planned_end <= self.ends_at

    def grace_ends_at(self, policy: AccessPolicy) -> datetime | None:
        """End of the grace period; None while nothing is overdue.

        Stripe may be configured to leave a subscription ``past_due`` for ever, and each renewal begins a new period.
        """
        if self.overdue_since is None:
            return None
        # Until a first bank debit is settled, or returned, Stripe reports the subscription as active.
        never_paid = self.standing == "unpaid" or (self.paid is False and self.had_trial is False)
        return self.overdue_since + (policy.unpaid_grace if never_paid else policy.grace)

    def overdue_without_grace(self, policy: AccessPolicy) -> bool:
        """Whether its access ended, or ends, with the failed payment itself."""
        return self.overdue_since is not None and self.grace_ends_at(policy) == self.overdue_since

    def access_ends_at(self, policy: AccessPolicy) -> datetime:
        """When it ceases to be active by time alone: at the end of its period, or of its grace period.

        One that renews gets the leeway, because Stripe renews it at the end of the period and the event comes later. A
        checkout in progress does not renew.
        """
        ends_at = self.ends_at
        if self._ends_with_period and self.planned_end is not None:
            ends_at = self.planned_end
        elif self.status in LIVE:
            ends_at += policy.leeway
        grace_ends_at = self.grace_ends_at(policy)
        return ends_at if grace_ends_at is None else min(ends_at, grace_ends_at)

    def _grace_expired(self, at: datetime, policy: AccessPolicy) -> bool:
        grace_ends_at = self.grace_ends_at(policy)
        return grace_ends_at is not None and at >= grace_ends_at

    def active(self, at: datetime, policy: AccessPolicy) -> bool:
        """Whether clients see it as active: until its period ends and, if unpaid, at most for the grace period."""
        return self.status in ACTIVE and at < self.access_ends_at(policy)

    def lapsed(self, at: datetime, policy: AccessPolicy) -> bool:
        """Whether its access has ended by time alone, which Stripe announces with no event."""
        return self.status in LIVE and not self.active(at, policy)

    def entitled(self, at: datetime, policy: AccessPolicy) -> bool:
        """Whether it entitles its user to the service.

        An active subscription may not: ``incomplete`` is a checkout in progress of a person who has never paid, and
        while invoices are voided the service is on hold. ``paused`` is not even active: a trial ended without a card.
        """
        return self.active(at, policy) and self.status in LIVE and self.collection_paused != ON_HOLD

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
        # The next payment of a paid subscription is moved by a trial too; that is no free trial.
        return ends_soon and not self.paid and stripe_subscription.trial_end != self.trial_end_notified


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
    "items": "items",
    "schedule_ends_at": "scheduleEndsAt",
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
        "items": stripe_subscription.items,
        "schedule_ends_at": stripe_subscription.schedule_ends_at,
        "currency": stripe_subscription.currency,
        "amount_varies": bool(stripe_subscription.coupons) or stripe_subscription.schedule_id is not None,
        "had_trial": stripe_subscription.trial_start is not None,
        "paused_by_trial": stripe_subscription.paused_by_trial,
        "pending_until": stripe_subscription.pending_until,
    }


def _standing(stripe_subscription: StripeSubscription, *, paid: bool) -> Standing:
    if stripe_subscription.free:
        return "unpaid"
    if paid and stripe_subscription.status in ("active", "trialing"):
        return "paid"
    return "promised" if paid or stripe_subscription.payable else "unpaid"


def by_preference(subscription: Subscription) -> tuple[int, datetime, str]:
    """Sort key: what is paid comes before what is not, and of subscriptions that are paid alike the oldest first."""
    # The standing of a record of an earlier release is unknown; it is read again before anything is cancelled.
    return _STANDINGS.index(subscription.standing or "promised"), *by_age(subscription)


def current(subscriptions: Iterable[Subscription], *, at: datetime, policy: AccessPolicy) -> Subscription | None:
    """The subscription of a user that clients see; None if none is active.

    A live one is preferred to a checkout in progress, and of several live ones the one to keep.
    """
    active = [subscription for subscription in subscriptions if subscription.active(at, policy)]
    return min(active, key=lambda each: (not each.live(at, policy), by_preference(each)), default=None)


def resumable(subscriptions: Iterable[Subscription]) -> Subscription | None:
    """The subscription of a user without an active one that a payment or a payment method resumes; the newest."""
    return max((each for each in subscriptions if each.status in RESUMABLE), key=by_age, default=None)


def latest(subscriptions: Iterable[Subscription]) -> Subscription | None:
    """The subscription of a user that was created last."""
    return max(subscriptions, key=by_age, default=None)


def by_age(subscription: Subscription) -> tuple[datetime, str]:
    """Sort key: the oldest first.

    Stripe's times are whole seconds. Of two subscriptions created in one second the ID decides, always the same way.
    """
    return subscription.stp_created_at, subscription.stp_subscription_id
