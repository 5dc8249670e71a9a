"""When does a subscription count, whom does it displace, and what of it is news?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.billing.stripe_api.models import StripeSubscription
from shared.messages.billing.subscriptions import CancelType, SubscriptionStatusView, SubscriptionView

LIVE: Final = frozenset({"trialing", "active", "past_due"})
"""A payer may have one of these. ``incomplete`` is a checkout in progress, ``unpaid`` and ``paused`` bring nothing."""
ACTIVE: Final = LIVE | {"incomplete"}
"""What clients are told is active, while its period is not over."""
ENDED: Final = frozenset({"canceled", "incomplete_expired"})
"""Nothing leaves these."""
STATUSES: Final = ACTIVE | ENDED | {"unpaid", "paused"}
"""What Stripe is known to say (https://docs.stripe.com/api/subscriptions/object); anything else brings nothing."""
ON_HOLD: Final = "void"
"""The one of the three ways to pause payments by which nothing is sold meanwhile: the other two give the service away,
or for later payment (https://docs.stripe.com/billing/subscriptions/pause-payment)."""
NEWS: Final = timedelta(days=30)
"""Stripe keeps events this long; a subscription older than that, seen for the first time, was taken over from an
earlier system, and its payer is not welcomed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Our record of a subscription.

    Attributes:
        starts_at: begin of the current period.
        ends_at: end of the current period, or of the whole.
        stp_created_at: when it was made in Stripe; tells who came first.
        trial_id: the trial it was made for.
        duplicate_of: the subscription that was kept when this one was cancelled.
        welcomed_at: when the welcome mail was ordered.
        read_at: when the reading began that this record holds.
        overdue_since: since when it has not been paid, while it is past due.
        collection_paused: what becomes of its invoices while its payments are paused; None while they aren't.
        trial_end_told: the end of its trial that its payer was last written to about.
        taken_over: it came with an account that was taken over: what it was by then is left as it was, a duplicate too.
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
    trial_end_told: datetime | None = None
    taken_over: bool = False
    version: int = 1

    @classmethod
    def first_seen(
        cls,
        id: str,  # noqa: A002
        user_id: str,
        truth: StripeSubscription,
        *,
        at: datetime,
        taken_over: bool = False,
    ) -> Self:
        """The first record of a subscription, read at ``at``; of one taken over nobody is welcomed any more."""
        return cls(
            id=id,
            user_id=user_id,
            **_facts(truth),
            duplicate_of=truth.duplicate_of,
            welcomed_at=at if taken_over else None,
            read_at=at,
            created_at=at,
            updated_at=at,
            taken_over=taken_over,
        )

    def follow(self, user_id: str, truth: StripeSubscription, *, read_at: datetime, at: datetime) -> Self:
        """The record brought to what Stripe said to a reading begun at ``read_at``.

        A reading that began earlier than the one it holds changes nothing.
        """
        if read_at < self.read_at:
            return self
        after = replace(
            self,
            user_id=user_id,
            **_facts(truth),
            duplicate_of=self.duplicate_of or truth.duplicate_of,
            read_at=read_at,
        )
        return replace(after, updated_at=at) if self.changes(after) else after

    def changes(self, after: Subscription) -> tuple[str, ...]:
        """The names, as at rest, of the facts in which another record of the same subscription differs."""
        return tuple(rest for name, rest in AT_REST.items() if getattr(self, name) != getattr(after, name))

    def welcomed(self, at: datetime) -> Self:
        """The record after the welcome mail was ordered."""
        return replace(self, welcomed_at=at)

    def told_of_trial_end(self, trial_end: datetime) -> Self:
        """The record after the mail about the end of its trial was ordered."""
        return replace(self, trial_end_told=trial_end)

    def live(self, at: datetime, grace: timedelta) -> bool:
        """Whether it takes its payer's one place: one that was not paid for too long leaves it to another."""
        return self.status in LIVE and not lapsed(self.overdue_since, at=at, grace=grace)

    @property
    def ended(self) -> bool:
        """Whether it is over for good."""
        return self.status in ENDED

    @property
    def will_renew(self) -> bool:
        """Whether it goes on after its period: neither over nor planned to be."""
        return not self.ended and self.cancel_at is None

    def active(self, at: datetime, grace: timedelta) -> bool:
        """Whether clients are told that it is active: its period is not over, nor its grace if it was not paid."""
        return self.status in ACTIVE and self.ends_at > at and not lapsed(self.overdue_since, at=at, grace=grace)

    def entitled(self, at: datetime, grace: timedelta) -> bool:
        """Whether it brings its payer what is sold.

        Not all that is active does: ``incomplete`` is a checkout in progress of somebody who has never paid, and while
        invoices are voided the service is on hold. ``paused`` is not even active: a trial ended without a card.
        """
        return self.active(at, grace) and self.status in LIVE and self.collection_paused != ON_HOLD

    def welcome_due(self, truth: StripeSubscription, *, at: datetime) -> bool:
        """Whether its payer is to be welcomed: once, if it was ever alive, isn't a duplicate and isn't old.

        What matters is what Stripe says of its life, not which of its events came first: so as many mails leave for a
        subscription that is over when we first see it as for one that we saw from its first day.
        """
        fresh = truth.created > at - NEWS
        return self.welcomed_at is None and truth.lived and self.duplicate_of is None and fresh

    def trial_end_due(self, truth: StripeSubscription, notices: Iterable[datetime], *, at: datetime) -> bool:
        """Whether its payer is to be told that the trial ends, after notices made at these times: once for each end."""
        heralded = any(truth.heralds_end(told, at=at) for told in notices)
        return heralded and truth.trial_end != self.trial_end_told

    def view(self, billing_portal_url: str | None) -> SubscriptionStatusView:
        """As clients read it."""
        return SubscriptionStatusView(
            status=self.status,
            billing_portal_url=billing_portal_url,
            start_date=self.starts_at,
            end_date=self.ends_at,
            cancel_at=self.cancel_at,
            cancel_type=self.cancel_type,
            cancelled_at=self.cancelled_at,
        )

    def whole_view(self, siblings: Iterable[Subscription], *, at: datetime, grace: timedelta) -> SubscriptionView:
        """As operators read it, beside its user's other subscriptions."""
        others = sorted((each for each in siblings if each.id != self.id), key=_age)
        return SubscriptionView(
            id=self.id,
            user_id=self.user_id,
            status=self.status,
            active=self.active(at, grace),
            entitled=self.entitled(at, grace),
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


AT_REST: Final = {
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
"""The facts that are announced when they change, and their names at rest."""


def _facts(truth: StripeSubscription) -> dict[str, Any]:
    return {
        "stp_product_id": truth.product_id,
        "stp_subscription_id": truth.id,
        "stp_customer_id": truth.customer.id,
        "status": truth.status,
        "starts_at": truth.period_start,
        "ends_at": truth.ended_at or truth.period_end,
        "cancel_at": truth.ends_for_good_at,
        "cancel_type": truth.cancel_type,
        "cancelled_at": truth.canceled_at,
        "stp_created_at": truth.created,
        "trial_id": truth.trial_id,
        "overdue_since": truth.overdue_since,
        "collection_paused": truth.collection_paused,
    }


def lapsed(overdue_since: datetime | None, *, at: datetime, grace: timedelta) -> bool:
    """Whether something was not paid for so long that it counts no more, whatever Stripe goes on to try.

    An account may be set to leave a subscription ``past_due`` for ever, and each renewal begins a new period.
    """
    return overdue_since is not None and at >= overdue_since + grace


def _age(subscription: Subscription) -> tuple[datetime, str]:
    # Stripe's times are whole seconds; the id decides between two of one second, the same way for everybody.
    return subscription.stp_created_at, subscription.stp_subscription_id


def duplicates(
    subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta
) -> list[tuple[Subscription, Subscription]]:
    """The live subscriptions of one user that must go, each with the oldest one, which stays.

    One that was taken over with its account stays too: that is told of, for somebody to decide.
    """
    return [pair for pair in rivals(subscriptions, at=at, grace=grace) if not pair[0].taken_over]


def rivals(
    subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta
) -> list[tuple[Subscription, Subscription]]:
    """The live subscriptions of one user besides the oldest one, each with that one."""
    live = sorted((each for each in subscriptions if each.live(at, grace)), key=_age)
    return [(newcomer, live[0]) for newcomer in live[1:]]


def current(subscriptions: Iterable[Subscription], *, at: datetime, grace: timedelta) -> Subscription | None:
    """The one of a user's subscriptions that clients are told about, None if none is active.

    A live one comes before a checkout in progress, and of several live ones the oldest, the one that stays.
    """
    active = [subscription for subscription in subscriptions if subscription.active(at, grace)]
    return min(active, key=lambda each: (not each.live(at, grace), _age(each)), default=None)


def latest(subscriptions: Iterable[Subscription]) -> Subscription | None:
    """The one of a user's subscriptions that was made last."""
    return max(subscriptions, key=_age, default=None)
