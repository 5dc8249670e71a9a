"""What does Stripe say of a payment or a dispute, in our words? Amounts are in minor units, as Stripe counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.billing.models.stripe_objects import StripeCustomer


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
