"""What do we know of a dispute, when is it over, and what of it is news?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from services.billing.payments.models import Payment
from services.billing.stripe_api.models import StripeDispute
from shared.messages.billing.disputes import DisputeClosed, DisputeEvent, DisputeOpened, DisputeView

CLOSED: Final = frozenset({"won", "lost", "prevented", "warning_closed"})
"""Over; yet a bank may decide anew, and ``won`` become ``lost``."""
STATUSES: Final = CLOSED | {
    "needs_response",
    "under_review",
    "warning_needs_response",
    "warning_under_review",
}
"""What Stripe is known to say (https://docs.stripe.com/api/disputes/object); anything else counts as open."""
STALE: Final = timedelta(days=30)
"""Stripe keeps events this long: operators are not written to about an older dispute that is first seen now."""

Occasion = Literal["opened", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """Our record of a dispute; the amount in minor units, as Stripe counts.

    Attributes:
        user_id: whose payment is disputed; None while that is not known.
        payment_id: ours; None for a charge without a payment intent.
        respond_by: until when evidence is taken.
        stp_created_at: when it was opened in Stripe.
        read_at: when the reading began that this record holds.
    """

    id: str
    user_id: str | None
    payment_id: str | None
    stp_dispute_id: str
    stp_charge_id: str
    stp_payment_intent_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_customer_id: str | None
    status: str
    reason: str
    amount: int
    currency: str
    respond_by: datetime | None
    stp_created_at: datetime
    read_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def first_seen(
        cls,
        id: str,  # noqa: A002
        user_id: str | None,
        truth: StripeDispute,
        payment: Payment | None,
        *,
        at: datetime,
    ) -> Self:
        """The first record of a dispute, read at ``at``."""
        return cls(id=id, user_id=user_id, **_facts(truth, payment), read_at=at, created_at=at, updated_at=at)

    def follow(
        self, user_id: str | None, truth: StripeDispute, payment: Payment | None, *, read_at: datetime, at: datetime
    ) -> Self:
        """The record brought to what Stripe said to a reading begun at ``read_at``.

        A reading that began earlier than the one it holds changes nothing.
        """
        if read_at < self.read_at:
            return self
        after = replace(self, user_id=user_id or self.user_id, **_facts(truth, payment))
        return replace(after, read_at=read_at, updated_at=self.updated_at if after == self else at)

    def attributed(self, user_id: str, *, at: datetime) -> Self:
        """The record once it is known whose payment is disputed."""
        return replace(self, user_id=user_id, updated_at=at)

    @property
    def closed(self) -> bool:
        """Whether the bank has decided, or the person gave up."""
        return self.status in CLOSED

    def occasions(self, held: Dispute | None, *, at: datetime) -> list[Occasion]:
        """What operators must hear of: that it was opened, that it was decided; each once.

        As much is said of one that is over when we first see it as of one that was followed from its first day.
        """
        if held is None and self.stp_created_at <= at - STALE:
            return []
        found: list[Occasion] = []
        if held is None:
            found.append("opened")
        if self._decided_since(held):
            found.append("closed")
        return found

    def news(self, held: Dispute | None) -> list[DisputeEvent]:
        """What is to be announced of it, whatever it was that made us look: each fact once."""
        facts: dict[str, Any] = {
            "key": self.user_id or self.stp_dispute_id,
            "user_id": self.user_id,
            "dispute_id": self.id,
            "payment_id": self.payment_id,
            "status": self.status,
            "reason": self.reason,
            "amount": self.amount,
            "currency": self.currency,
        }
        found: list[DisputeEvent] = []
        if held is None:
            found.append(DisputeOpened(**facts))
        if self._decided_since(held):
            found.append(DisputeClosed(**facts))
        return found

    def view(self, user_id: str | None) -> DisputeView:
        """As operators read it.

        Args:
            user_id: whose it is by what is known now.
        """
        return DisputeView.model_validate({**asdict(self), "user_id": user_id, "created_at": self.stp_created_at})

    def _decided_since(self, held: Dispute | None) -> bool:
        return self.closed and (held is None or held.status != self.status)


def _facts(truth: StripeDispute, payment: Payment | None) -> dict[str, Any]:
    return {
        "payment_id": None if payment is None else payment.id,
        "stp_dispute_id": truth.id,
        "stp_charge_id": truth.charge_id,
        "stp_payment_intent_id": truth.payment_intent_id,
        "stp_invoice_id": None if payment is None else payment.stp_invoice_id,
        "stp_subscription_id": None if payment is None else payment.stp_subscription_id,
        "stp_customer_id": truth.customer_id,
        "status": truth.status,
        "reason": truth.reason,
        "amount": truth.amount,
        "currency": truth.currency,
        "respond_by": truth.respond_by,
        "stp_created_at": truth.created,
    }
