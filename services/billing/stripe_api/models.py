"""Stripe's customers and subscriptions as billing reads them.

Amounts are in the currency's minor unit, as Stripe counts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from shared.messages.billing.subscriptions import CancelType

NEVER_STARTED: Final = frozenset({"incomplete", "incomplete_expired"})
"""Statuses of a subscription that was neither paid nor on trial; Stripe uses ``canceled`` only for one that was."""
EARLIEST_NOTICE: Final = timedelta(days=3, hours=12)
LATEST_NOTICE: Final = timedelta(days=2, hours=12)
"""How long before the end of a trial Stripe's notice is worth a mail: three days, with tolerance for Stripe's delay."""
MIN_TRIAL_AGE: Final = timedelta(hours=12)
"""Minimum age of a trial for a mail about its end: the welcome mail of a shorter trial has just named the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCustomer:
    """A customer (``cus_…``) as Stripe has it now.

    ``email`` is None for a deleted customer and for one without an address. ``user_id`` is read from the metadata.
    ``country`` (ISO 3166-1, upper case) and ``region`` (of ISO 3166-2, such as ``CA``) are those of its address.
    """

    id: str
    email: str | None
    user_id: str | None
    deleted: bool
    country: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCard:
    """A stored card; ``last4`` are its last digits, and it is valid until the end of ``exp_month`` (1 to 12)."""

    id: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionItem:
    """One price of a subscription.

    Attributes:
        stp_item_id: ``si_…``.
        stp_product_id: ``prod_…``.
        stp_price_id: ``price_…``.
        quantity: number of units, such as seats; None for a metered price.
    """

    stp_item_id: str
    stp_product_id: str
    stp_price_id: str
    quantity: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTerms:
    """What an item costs: the part of its price that decides whether a change is a downgrade.

    Attributes:
        interval: ``day``, ``week``, ``month`` or ``year``; ``interval_count`` of them are paid at once.
        unit_amount: None for a tiered price or a fraction of the minor unit.
        metered: whether usage is paid instead of a quantity.
    """

    interval: str
    interval_count: int
    unit_amount: int | None
    metered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPhase:
    """The next phase of a subscription's schedule: the prices from ``starts_at`` on, with their quantities."""

    starts_at: datetime
    items: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeSubscription:
    """A subscription as Stripe has it now.

    Attributes:
        id: ``sub_…``.
        product_id: of its first item, or of the first that Nest sells.
        items: its items, or those that Nest sells.
        user_id: from its metadata.
        trial_id: our trial's ID, from its metadata.
        period_start: earliest start of the current periods of its items, or of those that Nest sells.
        period_end: latest end of the same periods.
        canceled_at: when its cancellation was requested.
        trial_start: start of its trial, if it ever had one.
        trial_end: end of its trial, past or future.
        duplicate_of: our ID of the subscription that was kept, if Nest cancelled this one as its duplicate.
        overdue_since: since when it is unpaid, while it is ``past_due`` or ``unpaid``.
        collection_paused: treatment of its invoices while payment collection is paused: ``void``, ``keep_as_draft`` or
            ``mark_uncollectible``; None while it is not paused. The status does not show this
            (https://docs.stripe.com/billing/subscriptions/pause-payment).
        sold_by_nest: whether one of its items is a product that Nest sells.
        sold_by_others: whether one of its items is another product.
        end_reason: ``duplicate``, ``trial_converted``, ``trial_undone`` or ``coupon_missing`` if Nest cancelled it,
            otherwise Stripe's reason.
        carried_over_days: days of a trial that were added to another subscription when Nest ended it for that one.
        extended_by: our ID of the trial's subscription whose remaining days were added to this one.
        schedule_ends_at: when its schedule cancels it; None without a schedule, and if the schedule only releases it
            (https://docs.stripe.com/billing/subscriptions/subscription-schedules#completing-a-schedule).
        schedule_id: of the schedule that manages it.
        nests_schedule: whether Nest made the schedule, for a downgrade that a person ordered.
        planned: the next phase of its schedule.
        currency: ISO code in lower case.
        terms: of each of ``items``.
        pending: prices and quantities of a change that takes effect when its invoice is paid, by item ID; empty for
            none (https://docs.stripe.com/billing/subscriptions/pending-updates).
        pending_until: when Stripe drops the pending change; None for none.
        latest_invoice_id: that of the change, while one is pending.
        invoiced: whether the customer pays invoices by hand.
        free: whether its prices are zero, or its latest invoice outside of a trial was.
        paid: whether its latest invoice shows that money was received, or, if an invoice is overdue, an earlier one.
        payable: whether Stripe can collect: a payment method is stored, or the customer pays invoices by hand.
        extendable: whether days can be added: all prices are licensed and have the same period.
        pause_requested: whether it is paused by a request, and not because its trial ended without a payment method.
        payment_link: where the person can pay the latest open invoice, if it is ``past_due`` or ``unpaid``. As
            ``StripeInvoice.payment_link`` it is neither stored nor logged.
        price: amount of a period before taxes, in the currency's minor unit; None if a part of it is metered, tiered or
            discounted.
        interval: unit of the period; None for a period of several units.
        payment_method_id: what the renewal charges: ``pm_…``, or the ID of a card of Stripe's older interface.
    """

    id: str
    customer: StripeCustomer
    status: str
    product_id: str
    user_id: str | None
    trial_id: str | None
    created: datetime
    period_start: datetime
    period_end: datetime
    cancel_at: datetime | None
    cancel_at_period_end: bool
    canceled_at: datetime | None
    ended_at: datetime | None
    trial_start: datetime | None
    trial_end: datetime | None
    coupons: frozenset[str]
    duplicate_of: str | None
    livemode: bool
    overdue_since: datetime | None = None
    collection_paused: str | None = None
    end_reason: str | None = None
    sold_by_nest: bool = True
    sold_by_others: bool = False
    items: tuple[SubscriptionItem, ...] = ()
    carried_over_days: int = 0
    extended_by: str | None = None
    schedule_ends_at: datetime | None = None
    schedule_id: str | None = None
    free: bool = False
    paid: bool = False
    payable: bool = True
    extendable: bool = True
    payment_link: str | None = None
    pause_requested: bool = False
    nests_schedule: bool = False
    planned: PlannedPhase | None = None
    currency: str = ""
    terms: tuple[ItemTerms, ...] = ()
    pending: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    pending_until: datetime | None = None
    latest_invoice_id: str | None = None
    invoiced: bool = False
    price: int | None = None
    interval: Literal["day", "week", "month", "year"] | None = None
    payment_method_id: str | None = None

    @property
    def ends_with_period(self) -> bool:
        """Whether a cancellation or its schedule ends it at the end of its period, or before."""
        by_date = [each for each in (self.cancel_at, self.schedule_ends_at) if each is not None]
        return self.cancel_at_period_end or any(each <= self.period_end for each in by_date)

    @property
    def started(self) -> bool:
        """Whether it was ever paid or on trial."""
        return self.status not in NEVER_STARTED

    @property
    def paused_by_trial(self) -> bool:
        """Whether it is paused because its trial ended without a payment method, and not by request."""
        return self.status == "paused" and self.trial_end is not None and not self.pause_requested

    @property
    def cancel_type(self) -> CancelType | None:
        """How it ends or ended; the customer portal plans an end either by the flag or by a date."""
        if self.cancel_at_period_end or self.cancel_at is not None:
            return "period_end"
        return "immediate" if self.canceled_at is not None else None

    @property
    def cancellation_takes_effect_at(self) -> datetime | None:
        """When a cancellation ends it, or has ended it."""
        if self.cancel_at is not None:
            return self.cancel_at
        if self.cancel_at_period_end:
            return self.period_end
        return self.ended_at if self.canceled_at is not None else None

    def trial_ends_soon(self, notice_at: datetime, *, at: datetime) -> bool:
        """Whether a ``trial_will_end`` event, created at ``notice_at``, is about the end that lies ahead.

        Stripe sends the event three days before the end. It also sends it at once when a trial is created, shortened or
        extended to less than three days, which is not worth a mail; and it may arrive after the trial has been extended
        or has ended (https://docs.stripe.com/billing/subscriptions/trials).
        """
        if self.status != "trialing" or self.trial_end is None or self.trial_start is None:
            return False
        in_time = EARLIEST_NOTICE >= self.trial_end - notice_at >= LATEST_NOTICE
        return self.trial_end > at and in_time and notice_at - self.trial_start >= MIN_TRIAL_AGE

    def lacks(self, coupon: str | None) -> bool:
        """Whether it lacks the required coupon; trials need none, and None means that no coupon is required."""
        return coupon is not None and self.trial_start is None and coupon not in self.coupons
