"""Rules of payments: which changes are announced, when the person gets a mail, and how amounts are written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.billing.stripe_api.payment_models import StripePayment
from shared.documents import stored_as
from shared.messages.billing.payments import (
    PaymentActionRequired,
    PaymentCancelled,
    PaymentEvent,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
    PaymentView,
)

STATUSES: Final = frozenset(
    {
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "requires_capture",
        "processing",
        "succeeded",
        "canceled",
    }
)
"""Known statuses (https://docs.stripe.com/api/payment_intents/object)."""
MAIL_WINDOW: Final = timedelta(days=30)
"""Stripe keeps events this long. An older attempt that is first seen now comes from an import or a comparison with
Stripe, and causes no mail."""
MAIL_PAUSE: Final = timedelta(days=1)
"""Minimum time between two mails about a subscription's failed payments: banks decline repeatedly, and each attempt is
an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPaymentMail:
    """The last mail about a failed payment of a subscription; ``id`` is Stripe's ID of the subscription."""

    id: str
    ordered_at: datetime
    version: int = 1

    def recent(self, at: datetime) -> bool:
        """Whether another mail must not be sent yet."""
        return at - self.ordered_at < MAIL_PAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Our record of a Stripe payment intent; amounts are in the currency's minor unit, as Stripe counts them.

    Attributes:
        user_id: None while the user is unknown.
        waits_for_person: the attempt that requires an action of the person (``StripePayment.waits_for_person``).
        considered_attempt: the last such attempt for which a mail was considered.
        stp_created_at: when it was created in Stripe.
        read_at: when the reading began from which this record was made.
    """

    id: str
    user_id: str | None
    stp_payment_intent_id: str
    stp_customer_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_charge_id: str | None
    status: str
    amount: int
    amount_received: int
    amount_refunded: int
    currency: str
    failure_code: str | None
    decline_code: str | None
    disputed: bool
    waits_for_person: str | None
    stp_created_at: datetime
    cancelled_at: datetime | None
    considered_attempt: str | None = stored_as("toldOf", default=None)
    read_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def first_seen(cls, id: str, user_id: str | None, stripe_payment: StripePayment, *, at: datetime) -> Self:  # noqa: A002
        """The first record of a payment that was read at ``at``."""
        return cls(id=id, user_id=user_id, **_fields_of(stripe_payment), read_at=at, created_at=at, updated_at=at)

    def follow(self, user_id: str | None, stripe_payment: StripePayment, *, read_at: datetime, at: datetime) -> Self:
        """The record updated to a reading; one that began (``read_at``) before the recorded one changes nothing."""
        if read_at < self.read_at:
            return self
        updated = replace(self, user_id=user_id or self.user_id, **_fields_of(stripe_payment))
        return replace(updated, read_at=read_at, updated_at=self.updated_at if updated == self else at)

    def mail_considered(self) -> Self:
        """The record after it was decided whether the person gets a mail about the attempt that waits for them."""
        return replace(self, considered_attempt=self.waits_for_person)

    @property
    def awaits_user(self) -> bool:
        """Whether it pays for a subscription whose user is unknown."""
        return self.user_id is None and self.stp_subscription_id is not None

    def mail_due(self, stripe_payment: StripePayment, *, at: datetime) -> bool:
        """Whether an attempt for a subscription waits for the person, is recent, and no mail was considered for it."""
        recent = stripe_payment.attempted_at > at - MAIL_WINDOW
        new = self.waits_for_person not in (None, self.considered_attempt)
        return recent and new and self.stp_subscription_id is not None

    def events_since(self, stored: Payment | None, *, attempted_at: datetime) -> list[PaymentEvent]:
        """The events to publish for the changes of this payment, each once, whatever caused the reading.

        ``attempted_at`` is the time of its latest attempt in Stripe.

        While the user of a subscription's payment is unknown nothing is published; then the whole state counts as new.
        """
        if self.awaits_user:
            return []
        before = None if stored is None or stored.awaits_user else stored
        fields: dict[str, Any] = {
            "key": self.user_id or self.stp_payment_intent_id,
            "user_id": self.user_id,
            "payment_id": self.id,
            "stp_subscription_id": self.stp_subscription_id,
            "amount": self.amount,
            "currency": self.currency,
        }
        attempt = {**fields, "happened_at": attempted_at}
        events: list[PaymentEvent] = []
        if self.status == "succeeded" and (before is None or before.status != "succeeded"):
            events.append(PaymentSucceeded(**attempt, amount_received=self.amount_received))
        if self.status == "canceled" and (before is None or before.status != "canceled"):
            events.append(PaymentCancelled(**fields, happened_at=self.cancelled_at))
        if self.waits_for_person is not None and (before is None or before.waits_for_person != self.waits_for_person):
            if self.status == "requires_action":
                events.append(PaymentActionRequired(**attempt))
            else:
                events.append(PaymentFailed(**attempt, failure=self.failure_code, decline=self.decline_code))
        # A refund may fail, which lowers the amount, and be created anew.
        if self.amount_refunded > (0 if before is None else before.amount_refunded):
            events.append(PaymentRefunded(**fields, amount_refunded=self.amount_refunded))
        return events

    def view(self, user_id: str | None) -> PaymentView:
        """The view for operators, with the user as known now."""
        return PaymentView.model_validate({**asdict(self), "user_id": user_id, "created_at": self.stp_created_at})


def _fields_of(stripe_payment: StripePayment) -> dict[str, Any]:
    return {
        "stp_payment_intent_id": stripe_payment.id,
        "stp_customer_id": None if stripe_payment.customer is None else stripe_payment.customer.id,
        "stp_invoice_id": None if stripe_payment.invoice is None else stripe_payment.invoice.id,
        "stp_subscription_id": stripe_payment.subscription_id,
        "stp_charge_id": stripe_payment.charge_id,
        "status": stripe_payment.status,
        "amount": stripe_payment.amount,
        "amount_received": stripe_payment.amount_received,
        "amount_refunded": stripe_payment.amount_refunded,
        "currency": stripe_payment.currency,
        "failure_code": stripe_payment.failure_code,
        "decline_code": stripe_payment.decline_code,
        "disputed": stripe_payment.disputed,
        "waits_for_person": stripe_payment.waits_for_person,
        "stp_created_at": stripe_payment.created,
        "cancelled_at": stripe_payment.canceled_at,
    }
