"""Stripe's invoices, payments, checkouts, disputes and credit notes as billing reads them.

Amounts are in the currency's minor unit, as Stripe counts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from services.billing.stripe_api.models import StripeCustomer


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeInvoice:
    """The invoice that a payment is for, as Stripe has it now.

    Attributes:
        id: ``in_…``.
        subscription_id: ``sub_…``; None for an invoice without a subscription.
        user_id: from the subscription's metadata.
        products: of its lines; empty unless Nest sells only some of the account's products.
        failed_attempts: attempts to collect it, while it is open.
        retried: whether Stripe will try to collect it again.
        renewal: whether it bills a subscription that had begun before, so that the person is not at the checkout.
        payment_link: where the person can pay it, while it is open. Anyone with the link sees the invoice: it is only
            sent to that person, and neither stored nor logged.
        page: where the person sees it, paid or not; as secret.
        product_id: of its last line with a product: prorations come first.
    """

    id: str
    subscription_id: str | None
    user_id: str | None
    renewal: bool
    payment_link: str | None
    products: frozenset[str] = frozenset()
    failed_attempts: int = 0
    retried: bool = False
    page: str | None = None
    product_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePages:
    """The pages of an invoice; the URLs are None while it is a draft. As ``payment_link`` they are never stored.

    ``pdf_url`` is the PDF file.
    """

    customer_id: str
    hosted_url: str | None
    pdf_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInvoice:
    """An invoice in a list.

    Attributes:
        status: ``draft``, ``open``, ``paid``, ``void`` or ``uncollectible``.
        number: None while it is a draft.
        total: with taxes and discounts, before the customer's balance.
        products: Stripe's IDs of the products of its first lines.
    """

    id: str
    customer_id: str
    subscription_id: str | None
    number: str | None
    status: str
    currency: str
    total: int
    amount_due: int
    amount_paid: int
    due_at: datetime | None
    created: datetime
    products: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePayment:
    """A payment intent as Stripe has it now, with its latest charge and its invoice.

    Attributes:
        id: ``pi_…``.
        customer: None if Stripe knows none.
        currency: ISO code in lower case.
        charge_id: charge of the latest attempt.
        failure_code: Stripe's code of the latest attempt's failure; None if it did not fail.
        decline_code: the bank's reason.
        attempted_at: time of the latest attempt, or of the payment intent's creation if there was none.
        disputed: whether the latest charge is disputed.
        user_id: from its own metadata.
        invoice: None for a payment without an invoice.
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
    def metadata_user_id(self) -> str | None:
        """The user in Stripe's metadata: of the subscription, else of the payment itself, else of the customer."""
        invoice, customer = self.invoice, self.customer
        return (
            (None if invoice is None else invoice.user_id)
            or self.user_id
            or (None if customer is None else customer.user_id)
        )

    @property
    def without_method(self) -> bool:
        """Whether the attempt on a renewal failed because there was nothing to charge, which causes no error."""
        return (
            self.status == "requires_payment_method"
            and self.failure_code is None
            and self.invoice is not None
            and self.invoice.renewal
            and self.invoice.failed_attempts > 0
        )

    @property
    def waits_for_person(self) -> str | None:
        """A name of the attempt that requires an action of the person; None if no action is required.

        A failed attempt requires one, also on a renewal for which no payment method is stored. So does an attempt on a
        renewal that the bank wants confirmed; on a first payment the checkout asks the person.
        """
        if self.status == "requires_payment_method" and self.failure_code is not None:
            return f"failed:{self.charge_id or self.failure_code}"
        if self.without_method and self.invoice is not None:
            return f"no-method:{self.invoice.id}:{self.invoice.failed_attempts}"
        if self.status == "requires_action" and self.invoice is not None and self.invoice.renewal:
            return f"action:{self.charge_id or self.id}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCheckout:
    """A Checkout Session (``cs_…``) as Stripe has it now.

    Attributes:
        url: its page, a bearer link; None once it is not open.
        payment_status: ``paid``, ``unpaid`` or ``no_payment_required``.
        checkout_id: our ID of the checkout, from its metadata; None if Nest did not make it.
        trialing: whether its subscription is in a trial.
        card_fingerprint: Stripe's fingerprint of the subscription's card or bank account, the same for all customers.
    """

    id: str
    status: Literal["open", "complete", "expired"]
    url: str | None = field(repr=False)
    payment_status: str
    expires_at: datetime
    checkout_id: str | None
    customer_id: str | None
    subscription_id: str | None
    trialing: bool
    card_fingerprint: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeDispute:
    """A dispute (``dp_…`` or ``du_…``) as Stripe has it now; ``currency`` is an ISO code in lower case.

    ``customer_id`` and ``payment_intent_id`` are those of the disputed charge, which may have no payment intent.
    ``respond_by`` is the deadline for evidence. ``funds_withdrawn`` and ``funds_reinstated`` are the sums of the
    movements of the account's balance, in its currency ``funds_currency``, both positive; ``withdrawn_at`` and
    ``reinstated_at`` are the times of the latest movements.
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
    funds_withdrawn: int = 0
    funds_reinstated: int = 0
    funds_currency: str | None = None
    withdrawn_at: datetime | None = None
    reinstated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCreditNote:
    """A credit note (``cn_…``) as Stripe has it now; ``currency`` is an ISO code in lower case.

    ``status`` is ``issued`` or ``void``; ``voided_at`` is None until it is voided.
    """

    id: str
    customer_id: str
    invoice_id: str
    status: str
    reason: str | None
    amount: int
    currency: str
    created: datetime
    voided_at: datetime | None
    livemode: bool
