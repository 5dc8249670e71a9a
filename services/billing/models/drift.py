"""In what is a record not what Stripe says? Compared field by field, as the record keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final, Self

from services.billing.models.disputes import Dispute
from services.billing.models.mappings import ProviderMapping
from services.billing.models.payments import Payment
from services.billing.models.stripe_objects import StripeCustomer, StripeSubscription
from services.billing.models.stripe_payments import StripeDispute, StripePayment
from services.billing.models.subscriptions import Subscription
from services.billing.models.trials import Trial
from shared.ids import derived_message_id
from shared.messages import iso_milliseconds
from shared.messages.billing.runs import DifferenceKind, FieldDifference, StripeDifferenceView, Subject

OURS_ALONE: Final = frozenset({"read_at", "updated_at", "version"})
"""What moves with every reading and says nothing of Stripe."""
BEYOND_REPAIR: Final = frozenset({"missing_there", "nobody", "duplicate"})
"""What following Stripe can't mend. Nothing is ever removed for not being in Stripe: with the key of a wrong account
that would be everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What is not as Stripe says; the values as texts, since they are for people.

    Attributes:
        subject: what it is.
        stripe_id: Stripe's id; of a trial that of its subscription.
        our_id: our record's; None where there is none.
        different: the fields, each with our value and theirs.
    """

    subject: Subject
    stripe_id: str
    our_id: str | None
    kind: DifferenceKind
    different: list[dict[str, str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.subject}:{self.stripe_id}"

    @property
    def repairable(self) -> bool:
        """Whether following Stripe mends it."""
        return self.kind not in BEYOND_REPAIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a run found, and how far it is with it.

    Attributes:
        state: ``suspected`` until it was read again, ``found`` then, ``ordered`` while its repair is under way,
            ``repaired`` after it.
        expires_at: when it is forgotten.
    """

    id: str
    run_id: str
    subject: Subject
    stripe_id: str
    our_id: str | None
    kind: DifferenceKind
    different: list[dict[str, str | None]]
    state: str
    expires_at: datetime
    version: int = 1

    @classmethod
    def of(cls, run_id: str, drift: Drift, *, state: str, expires_at: datetime) -> Self:
        """The difference that a drift is for a run; one for each object."""
        return cls(
            id=derived_message_id("difference", run_id, drift.name),
            run_id=run_id,
            subject=drift.subject,
            stripe_id=drift.stripe_id,
            our_id=drift.our_id,
            kind=drift.kind,
            different=drift.different,
            state=state,
            expires_at=expires_at,
        )

    def seen(self, drift: Drift, *, state: str) -> Self:
        """The difference after another look."""
        return replace(self, our_id=drift.our_id, kind=drift.kind, different=drift.different, state=state)

    def view(self) -> StripeDifferenceView:
        """As operators read it."""
        return StripeDifferenceView.model_validate(
            {
                "object": self.subject,
                "stripe_id": self.stripe_id,
                "id": self.our_id,
                "kind": self.kind,
                "state": self.state,
                "fields": [FieldDifference.model_validate(each) for each in self.different],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A drift that is known and has not been mended yet, whichever run found it.

    Attributes:
        id: the drift's name.
        found_at: when it was found first.
        seen_at: when it was there last.
    """

    id: str
    subject: Subject
    stripe_id: str
    kind: DifferenceKind
    found_at: datetime
    seen_at: datetime
    version: int = 1

    @classmethod
    def of(cls, drift: Drift, *, at: datetime) -> Self:
        """A drift found now."""
        return cls(
            id=drift.name, subject=drift.subject, stripe_id=drift.stripe_id, kind=drift.kind, found_at=at, seen_at=at
        )

    def seen(self, drift: Drift, *, at: datetime) -> Self:
        """The drift, still there."""
        return replace(self, kind=drift.kind, seen_at=at)


def of_customer(customer_id: str, mapping: ProviderMapping | None, truth: StripeCustomer | None) -> Drift | None:
    """A customer against its mapping. Who pays for nothing needs none; a deleted one keeps whose it was."""
    if mapping is None:
        return None
    if truth is None:
        return Drift(subject="customer", stripe_id=customer_id, our_id=mapping.id, kind="missing_there")
    wanted = mapping if truth.user_id is None else replace(mapping, user_id=truth.user_id)
    return _differing("customer", customer_id, mapping, wanted)


def of_subscription(
    subscription_id: str, held: Subscription | None, truth: StripeSubscription | None, user_id: str | None
) -> Drift | None:
    """A subscription against its record.

    Args:
        subscription_id: Stripe's id.
        held: our record.
        truth: what Stripe says.
        user_id: whose it is by all that is known.
    """
    if truth is None:
        return None if held is None else _gone("subscription", subscription_id, held.id)
    if held is None:
        if user_id is not None or truth.customer.email is not None:
            return Drift(subject="subscription", stripe_id=subscription_id, our_id=None, kind="missing_here")
        if truth.customer.deleted:
            # It is over with its customer, of whom nothing is left that would say whose it was.
            return None
        return Drift(subject="subscription", stripe_id=subscription_id, our_id=None, kind="nobody")
    wanted = held.follow(user_id or held.user_id, truth, read_at=held.read_at, at=held.updated_at)
    return _differing("subscription", subscription_id, held, wanted)


def of_trial(trial: Trial, truth: StripeSubscription | None) -> Drift | None:
    """A trial that was made against its subscription; one that is only reserved is nothing in Stripe yet."""
    if trial.stp_subscription_id is None:
        return None
    if truth is None:
        return _gone("trial", trial.stp_subscription_id, trial.id)
    return _differing("trial", trial.stp_subscription_id, trial, trial.finish(truth, at=trial.updated_at))


def of_payment(intent_id: str, held: Payment | None, truth: StripePayment | None, user_id: str | None) -> Drift | None:
    """A payment against its record; as ``of_subscription``, but that a payment may be nobody's."""
    if truth is None:
        return None if held is None else _gone("payment", intent_id, held.id)
    if held is None:
        return Drift(subject="payment", stripe_id=intent_id, our_id=None, kind="missing_here")
    return _differing("payment", intent_id, held, held.follow(user_id, truth, read_at=held.read_at, at=held.updated_at))


def of_dispute(
    dispute_id: str,
    held: Dispute | None,
    truth: StripeDispute | None,
    payment: Payment | None,
    user_id: str | None,
) -> Drift | None:
    """A dispute, and what it has of its payment, against its record."""
    if truth is None:
        return None if held is None else _gone("dispute", dispute_id, held.id)
    if held is None:
        return Drift(subject="dispute", stripe_id=dispute_id, our_id=None, kind="missing_here")
    wanted = held.follow(user_id, truth, payment, read_at=held.read_at, at=held.updated_at)
    return _differing("dispute", dispute_id, held, wanted)


def by_kind(drifts: Iterable[Standing]) -> dict[tuple[str, str], int]:
    """How many there are of each subject and kind."""
    counted: dict[tuple[str, str], int] = {}
    for drift in drifts:
        name = (drift.subject, drift.kind)
        counted[name] = counted.get(name, 0) + 1
    return counted


def _gone(subject: Subject, stripe_id: str, our_id: str) -> Drift:
    return Drift(subject=subject, stripe_id=stripe_id, our_id=our_id, kind="missing_there")


def _differing(subject: Subject, stripe_id: str, ours: Any, theirs: Any) -> Drift | None:
    different: list[dict[str, str | None]] = [
        {"field": each.name, "ours": _text(getattr(ours, each.name)), "theirs": _text(getattr(theirs, each.name))}
        for each in fields(ours)
        if each.name not in OURS_ALONE and getattr(ours, each.name) != getattr(theirs, each.name)
    ]
    if not different:
        return None
    return Drift(subject=subject, stripe_id=stripe_id, our_id=ours.id, kind="differs", different=different)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return iso_milliseconds(value) if isinstance(value, datetime) else str(value)
