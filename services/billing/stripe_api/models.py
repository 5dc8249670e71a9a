"""What does Stripe say of a customer or a subscription, in our words?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.messages.billing.subscriptions import CancelType

NEVER_LIVED: Final = frozenset({"incomplete", "incomplete_expired"})
"""Not paid even once; Stripe gives ``canceled`` only to what was paid for or tried."""

EARLIEST_NOTICE: Final = timedelta(days=3, hours=12)
LATEST_NOTICE: Final = timedelta(days=2, hours=12)
"""How long before the end of a trial the notice is made that is worth a mail: three days, and what its making lags."""
SETTLED_IN: Final = timedelta(hours=12)
"""Whose trial is shorter than three days has just read in the welcome mail when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCustomer:
    """A customer as Stripe has it now.

    Attributes:
        id: ``cus_…``.
        email: None where there is none, and for a deleted one.
        user_id: of its metadata.
        deleted: it counts as absent.
    """

    id: str
    email: str | None
    user_id: str | None
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeSubscription:
    """A subscription as Stripe has it now.

    Attributes:
        id: ``sub_…``.
        customer: who pays.
        status: Stripe's word.
        product_id: of its first item.
        user_id: of its metadata.
        trial_id: our trial's id, of its metadata.
        created: when it was made.
        period_start: the earliest of its items.
        period_end: the latest of its items.
        cancel_at: when it will end, if that was decided.
        cancel_at_period_end: that it will end with its period.
        canceled_at: when the end was asked for.
        ended_at: when it ended.
        trial_start: when its trial began, if it ever had one.
        trial_end: when its trial ends or ended.
        coupons: the coupons on it.
        duplicate_of: our id of the subscription that was kept, if we cancelled this one as its duplicate.
        livemode: whether it is about real money.
        overdue_since: since when it has not been paid, while it is ``past_due``.
        collection_paused: what becomes of its invoices while its payments are paused: ``void``, ``keep_as_draft``,
            ``mark_uncollectible``; None while they aren't. Its status says nothing of it
            (https://docs.stripe.com/billing/subscriptions/pause-payment).
        end_reason: why it was ended: ``duplicate`` and ``coupon_missing`` by us, else Stripe's word.
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

    @property
    def lived(self) -> bool:
        """Whether it was ever paid for or tried."""
        return self.status not in NEVER_LIVED

    @property
    def cancel_type(self) -> CancelType | None:
        """How it ends, or ended; the customer portal plans an end either by the flag or by a date."""
        if self.cancel_at_period_end or self.cancel_at is not None:
            return "period_end"
        return "immediate" if self.canceled_at is not None else None

    @property
    def ends_for_good_at(self) -> datetime | None:
        """When a cancellation ends it, or has ended it."""
        if self.cancel_at is not None:
            return self.cancel_at
        if self.cancel_at_period_end:
            return self.period_end
        return self.ended_at if self.canceled_at is not None else None

    def heralds_end(self, told: datetime, *, at: datetime) -> bool:
        """Whether a notice that its trial will end, made at ``told``, was made for the end that lies ahead.

        Stripe gives notice three days before; but also at once when a trial is made, cut or extended to less than
        that, when nobody is to read that it ends "soon": and one may arrive after the trial has been extended or is
        over (https://docs.stripe.com/billing/subscriptions/trials).
        """
        if self.status != "trialing" or self.trial_end is None or self.trial_start is None:
            return False
        in_time = EARLIEST_NOTICE >= self.trial_end - told >= LATEST_NOTICE
        return self.trial_end > at and in_time and told - self.trial_start >= SETTLED_IN

    def lacks(self, coupon: str | None) -> bool:
        """Whether it should not be there, where every subscription needs a coupon; trials need none."""
        return coupon is not None and self.trial_start is None and coupon not in self.coupons


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeInvoice:
    """The invoice that a payment is for, as Stripe has it now.

    Attributes:
        id: ``in_…``.
        subscription_id: ``sub_…``; None for an invoice of something else.
        user_id: of the subscription's metadata.
        renewal: it bills a subscription that had begun before, so the person is not sitting in front of a checkout.
        payment_link: where the person can pay it, while it is open. Whoever has the link sees the invoice: it goes to
            that person alone, and is neither stored nor logged.
    """

    id: str
    subscription_id: str | None
    user_id: str | None
    renewal: bool
    payment_link: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePayment:
    """A payment intent as Stripe has it now, with its latest charge and the invoice it is for.

    Attributes:
        id: ``pi_…``.
        customer: who pays; None where nobody is named.
        status: Stripe's word.
        amount: what is to be paid.
        amount_received: what was.
        amount_refunded: what was given back of it.
        currency: three letters, lower case.
        charge_id: the latest attempt's charge.
        failure_code: why the latest attempt failed, Stripe's word; None unless it did.
        decline_code: the bank's reason.
        attempted_at: when the latest attempt was made; without one, when the payment was.
        disputed: whether the person asked the bank for it.
        user_id: of its own metadata.
        invoice: None outside of invoices.
        created: when it was made.
        canceled_at: when it was given up.
        livemode: whether it is about real money.
    """

    id: str
    customer: StripeCustomer | None
    status: str
    amount: int
    amount_received: int
    amount_refunded: int
    currency: str
    charge_id: str | None
    failure_code: str | None
    decline_code: str | None
    attempted_at: datetime
    disputed: bool
    user_id: str | None
    invoice: StripeInvoice | None
    created: datetime
    canceled_at: datetime | None
    livemode: bool

    @property
    def subscription_id(self) -> str | None:
        """The subscription that it pays for."""
        return None if self.invoice is None else self.invoice.subscription_id

    @property
    def claimed_user_id(self) -> str | None:
        """Whose it is, if Stripe was told: by the subscription, the payment itself or the customer."""
        invoice, customer = self.invoice, self.customer
        return (
            (None if invoice is None else invoice.user_id)
            or self.user_id
            or (None if customer is None else customer.user_id)
        )

    @property
    def waiting_for_person(self) -> str | None:
        """Which attempt left it to the person to do something, by a name that tells it from other attempts.

        A failed one does; one that the bank wants confirmed does for a renewal, since otherwise the person is asked at
        the checkout. None when nothing is to be done.
        """
        if self.status == "requires_payment_method" and self.failure_code is not None:
            return f"failed:{self.charge_id or self.failure_code}"
        if self.status == "requires_action" and self.invoice is not None and self.invoice.renewal:
            return f"action:{self.charge_id or self.id}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeDispute:
    """A dispute as Stripe has it now.

    Attributes:
        id: ``dp_…`` or ``du_…``.
        status: Stripe's word.
        reason: Stripe's word.
        amount: what is disputed.
        currency: three letters, lower case.
        charge_id: what is disputed.
        customer_id: the charge's.
        payment_intent_id: what the charge was an attempt of; None for charges made without one.
        respond_by: until when evidence is taken.
        created: when it was opened.
        livemode: whether it is about real money.
    """

    id: str
    status: str
    reason: str
    amount: int
    currency: str
    charge_id: str
    customer_id: str | None
    payment_intent_id: str | None
    respond_by: datetime | None
    created: datetime
    livemode: bool
