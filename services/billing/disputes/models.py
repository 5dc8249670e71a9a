"""Rules of disputes: when they are closed, which changes are announced, and when operators get a mail."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from services.billing.payments.models import Payment
from services.billing.stripe_api.payment_models import StripeDispute
from shared.messages.billing.disputes import (
    DisputeClosed,
    DisputeEvent,
    DisputeFundsReinstated,
    DisputeFundsWithdrawn,
    DisputeOpened,
    DisputeView,
)

CLOSED: Final = frozenset({"won", "lost", "prevented", "warning_closed"})
"""Statuses of a decided dispute. A bank may decide again: ``won`` may become ``lost``."""
STATUSES: Final = CLOSED | {
    "needs_response",
    "under_review",
    "warning_needs_response",
    "warning_under_review",
}
"""Known statuses (https://docs.stripe.com/api/disputes/object); any other one counts as open."""
MAIL_WINDOW: Final = timedelta(days=30)
"""Stripe keeps events this long. An older dispute that is first seen now causes no mail to operators."""

_FUNDS: Final = ("funds_withdrawn", "funds_reinstated", "funds_currency", "withdrawn_at", "reinstated_at")

MailOccasion = Literal["opened", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """Our record of a Stripe dispute; the amount is in the currency's minor unit, as Stripe counts it.

    Attributes:
        user_id: the user whose payment is disputed; None while unknown.
        payment_id: our ID of the payment; None for a charge without a payment intent.
        respond_by: deadline for evidence.
        funds_withdrawn: sum that Stripe has taken for it; None in a record of an earlier release.
        funds_reinstated: sum that Stripe has returned.
        funds_currency: currency of both sums, that of the account's balance; None while nothing was moved.
        withdrawn_at: when Stripe last took funds.
        reinstated_at: when Stripe last returned funds.
        stp_created_at: when it was opened in Stripe.
        read_at: when the reading began from which this record was made.
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
    funds_withdrawn: int | None = None
    funds_reinstated: int | None = None
    funds_currency: str | None = None
    withdrawn_at: datetime | None = None
    reinstated_at: datetime | None = None
    version: int = 1

    @classmethod
    def first_seen(
        cls,
        id: str,  # noqa: A002
        user_id: str | None,
        stripe_dispute: StripeDispute,
        payment: Payment | None,
        *,
        at: datetime,
    ) -> Self:
        """The first record of a dispute that was read at ``at``."""
        return cls(
            id=id,
            user_id=user_id,
            **_fields_of(stripe_dispute, payment),
            read_at=at,
            created_at=at,
            updated_at=at,
        )

    def follow(
        self,
        user_id: str | None,
        stripe_dispute: StripeDispute,
        payment: Payment | None,
        *,
        read_at: datetime,
        at: datetime,
    ) -> Self:
        """The record updated to a reading; one that began (``read_at``) before the recorded one changes nothing."""
        if read_at < self.read_at:
            return self
        updated = replace(self, user_id=user_id or self.user_id, **_fields_of(stripe_dispute, payment))
        return replace(updated, read_at=read_at, updated_at=self.updated_at if updated == self else at)

    def attributed(self, user_id: str, *, at: datetime) -> Self:
        """The record once the user of the payment is known."""
        return replace(self, user_id=user_id, updated_at=at)

    @property
    def closed(self) -> bool:
        """Whether the bank has decided or the person withdrew the dispute."""
        return self.status in CLOSED

    def mails_due(self, stored: Dispute | None, *, at: datetime) -> list[MailOccasion]:
        """The occasions of the mails to operators since the stored record: opened and closed, each once.

        A dispute that is closed when it is first seen causes as many mails as one that was seen from its first day.
        """
        if stored is None and self.stp_created_at <= at - MAIL_WINDOW:
            return []
        occasions: list[MailOccasion] = []
        if stored is None:
            occasions.append("opened")
        if self._closed_since(stored):
            occasions.append("closed")
        return occasions

    def events_since(self, stored: Dispute | None) -> list[DisputeEvent]:
        """The events to publish since the stored record, each once, whatever caused the reading."""
        fields: dict[str, Any] = {
            "key": self.user_id or self.stp_dispute_id,
            "user_id": self.user_id,
            "dispute_id": self.id,
            "payment_id": self.payment_id,
            "status": self.status,
            "reason": self.reason,
            "amount": self.amount,
            "currency": self.currency,
        }
        events: list[DisputeEvent] = []
        if stored is None:
            events.append(DisputeOpened(**fields, happened_at=self.stp_created_at))
        moved = {**fields, "funds_currency": self.funds_currency}
        # What was moved before the record had the sums is no news.
        if self.funds_withdrawn is not None and self.funds_withdrawn > _known(stored, "funds_withdrawn", self):
            events.append(DisputeFundsWithdrawn(**moved, funds=self.funds_withdrawn, happened_at=self.withdrawn_at))
        if self.funds_reinstated is not None and self.funds_reinstated > _known(stored, "funds_reinstated", self):
            events.append(DisputeFundsReinstated(**moved, funds=self.funds_reinstated, happened_at=self.reinstated_at))
        if self._closed_since(stored):
            events.append(DisputeClosed(**fields))
        return events

    def completed_from(self, other: Self) -> Self:
        """The record with the sums of another one, if it is of an earlier release and has none."""
        if self.funds_withdrawn is not None:
            return self
        return replace(self, **{name: getattr(other, name) for name in _FUNDS})

    def view(self, user_id: str | None) -> DisputeView:
        """The view for operators, with the user as known now."""
        return DisputeView.model_validate({**asdict(self), "user_id": user_id, "created_at": self.stp_created_at})

    def _closed_since(self, stored: Dispute | None) -> bool:
        return self.closed and (stored is None or stored.status != self.status)


def _known(stored: Dispute | None, name: str, updated: Dispute) -> int:
    known: int | None = 0 if stored is None else getattr(stored, name)
    return getattr(updated, name) or 0 if known is None else known


def _fields_of(stripe_dispute: StripeDispute, payment: Payment | None) -> dict[str, Any]:
    return {
        "payment_id": None if payment is None else payment.id,
        "stp_dispute_id": stripe_dispute.id,
        "stp_charge_id": stripe_dispute.charge_id,
        "stp_payment_intent_id": stripe_dispute.payment_intent_id,
        "stp_invoice_id": None if payment is None else payment.stp_invoice_id,
        "stp_subscription_id": None if payment is None else payment.stp_subscription_id,
        "stp_customer_id": stripe_dispute.customer_id,
        "status": stripe_dispute.status,
        "reason": stripe_dispute.reason,
        "amount": stripe_dispute.amount,
        "currency": stripe_dispute.currency,
        "respond_by": stripe_dispute.respond_by,
        "stp_created_at": stripe_dispute.created,
        **{name: getattr(stripe_dispute, name) for name in _FUNDS},
    }
