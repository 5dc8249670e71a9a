"""What do we know of a payment, what of it is news, and when must the person hear of it?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.billing.stripe_api.models import StripePayment
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
"""What Stripe is known to say (https://docs.stripe.com/api/payment_intents/object)."""
STALE: Final = timedelta(days=30)
"""Stripe keeps events this long. An attempt older than that, seen for the first time, comes of an import or of a
comparison with Stripe, and nobody is written to."""
BETWEEN_MAILS: Final = timedelta(days=1)
"""Banks decline again and again, and each attempt is an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPaymentMail:
    """When the last mail about a failed payment of a subscription was ordered.

    Attributes:
        id: Stripe's id of the subscription.
    """

    id: str
    ordered_at: datetime
    version: int = 1

    def recent(self, at: datetime) -> bool:
        """Whether another mail must not be sent yet."""
        return at - self.ordered_at < BETWEEN_MAILS


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Our record of a payment intent; amounts in minor units, as Stripe counts.

    Attributes:
        user_id: whose it is; None while that is not known.
        waits_for_person: the attempt that left it to the person to do something (``StripePayment.waiting_for_person``).
        told_of: the last such attempt of which it was decided whether the person is written to.
        stp_created_at: when it was made in Stripe.
        read_at: when the reading began that this record holds.
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
    told_of: str | None = None
    read_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def first_seen(cls, id: str, user_id: str | None, truth: StripePayment, *, at: datetime) -> Self:  # noqa: A002
        """The first record of a payment, read at ``at``."""
        return cls(id=id, user_id=user_id, **_facts(truth), read_at=at, created_at=at, updated_at=at)

    def follow(self, user_id: str | None, truth: StripePayment, *, read_at: datetime, at: datetime) -> Self:
        """The record brought to what Stripe said to a reading begun at ``read_at``.

        A reading that began earlier than the one it holds changes nothing.
        """
        if read_at < self.read_at:
            return self
        after = replace(self, user_id=user_id or self.user_id, **_facts(truth))
        return replace(after, read_at=read_at, updated_at=self.updated_at if after == self else at)

    def told(self) -> Self:
        """The record after it was decided whether the person hears of the attempt it waits for."""
        return replace(self, told_of=self.waits_for_person)

    @property
    def awaits_user(self) -> bool:
        """Whether it pays for a subscription of somebody who is not known yet."""
        return self.user_id is None and self.stp_subscription_id is not None

    def mail_due(self, truth: StripePayment, *, at: datetime) -> bool:
        """Whether there is an attempt that its person has not been thought of for: of a subscription, and not old."""
        fresh = truth.attempted_at > at - STALE
        new = self.waits_for_person not in (None, self.told_of)
        return fresh and new and self.stp_subscription_id is not None

    def news(self, held: Payment | None) -> list[PaymentEvent]:
        """What is to be announced of it, whatever it was that made us look: each fact once.

        Args:
            held: what was known before. While a subscription's payer was not known nothing was announced, so then all
                of it is news.
        """
        if self.awaits_user:
            return []
        before = None if held is None or held.awaits_user else held
        facts: dict[str, Any] = {
            "key": self.user_id or self.stp_payment_intent_id,
            "user_id": self.user_id,
            "payment_id": self.id,
            "stp_subscription_id": self.stp_subscription_id,
            "amount": self.amount,
            "currency": self.currency,
        }
        found: list[PaymentEvent] = []
        if self.status == "succeeded" and (before is None or before.status != "succeeded"):
            found.append(PaymentSucceeded(**facts, amount_received=self.amount_received))
        if self.status == "canceled" and (before is None or before.status != "canceled"):
            found.append(PaymentCancelled(**facts))
        if self.waits_for_person is not None and (before is None or before.waits_for_person != self.waits_for_person):
            if self.status == "requires_action":
                found.append(PaymentActionRequired(**facts))
            else:
                found.append(PaymentFailed(**facts, failure=self.failure_code, decline=self.decline_code))
        # What is given back may fail and come again: then it is less than before, and nobody got it twice.
        if self.amount_refunded > (0 if before is None else before.amount_refunded):
            found.append(PaymentRefunded(**facts, amount_refunded=self.amount_refunded))
        return found

    def view(self, user_id: str | None) -> PaymentView:
        """As operators read it.

        Args:
            user_id: whose it is by what is known now.
        """
        return PaymentView.model_validate({**asdict(self), "user_id": user_id, "created_at": self.stp_created_at})


def _facts(truth: StripePayment) -> dict[str, Any]:
    return {
        "stp_payment_intent_id": truth.id,
        "stp_customer_id": None if truth.customer is None else truth.customer.id,
        "stp_invoice_id": None if truth.invoice is None else truth.invoice.id,
        "stp_subscription_id": truth.subscription_id,
        "stp_charge_id": truth.charge_id,
        "status": truth.status,
        "amount": truth.amount,
        "amount_received": truth.amount_received,
        "amount_refunded": truth.amount_refunded,
        "currency": truth.currency,
        "failure_code": truth.failure_code,
        "decline_code": truth.decline_code,
        "disputed": truth.disputed,
        "waits_for_person": truth.waiting_for_person,
        "stp_created_at": truth.created,
        "cancelled_at": truth.canceled_at,
    }


NO_DECIMALS: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split()  # noqa: SIM905 -- readable as a list
)
"""An amount of 500 is 500 of these (https://docs.stripe.com/currencies#zero-decimal)."""


THREE_DECIMALS: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""An amount of 5120 is 5.120 of these (https://docs.stripe.com/currencies#three-decimal)."""


HUNDREDS_WITHOUT_DECIMALS: Final = frozenset({"isk", "ugx"})
"""They have no decimals, and Stripe counts them in hundredths all the same: 500 is 5
(https://docs.stripe.com/currencies#special-cases)."""


def written(amount: int, currency: str) -> str:
    """An amount with its currency: ``12.00 EUR``, ``500 JPY``.

    Args:
        amount: in minor units as Stripe counts them, negative ones too.
        currency: three letters.
    """
    code = currency.lower()
    decimals = 0 if code in NO_DECIMALS else 3 if code in THREE_DECIMALS else 2
    whole, rest = divmod(abs(amount), 10**decimals)
    if decimals and not (code in HUNDREDS_WITHOUT_DECIMALS and rest == 0):
        number = f"{whole}.{rest:0{decimals}}"
    else:
        number = str(whole)
    return f"{'-' if amount < 0 else ''}{number} {currency.upper()}"
