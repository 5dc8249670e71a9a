"""Rules of Stripe runs: stages, progress, and the differences between our records and Stripe that they find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self, cast, get_args

from shared.documents import stored_as
from shared.ids import derived_message_id
from shared.messages.billing.runs import (
    DifferenceKind,
    FieldDifference,
    Kind,
    StripeDifferenceView,
    StripeRunSummary,
    StripeRunView,
    Subject,
)

Stage = Literal[
    "totals",
    "known",
    "changed",
    "customers",
    "subscriptions",
    "trials",
    "payments",
    "disputes",
    "invoice_payments",
    "mappings",
    "products",
    "prices",
    "looks",
    "failed_deliveries",
    "chosen_events",
    "take_products",
    "take_prices",
    "take_customers",
    "take_subscriptions",
    "take_payments",
    "take_invoice_payments",
    "take_disputes",
    "duplicates",
]
Status = Literal["running", "waiting", "stopped", "done", "given_up"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_COMPARISONS: Final[tuple[Stage, ...]] = (
    "customers",
    "mappings",
    "subscriptions",
    "trials",
    "invoice_payments",
    "payments",
    "disputes",
    "products",
    "prices",
)
STAGES: Final[dict[Kind, tuple[Stage, ...]]] = {
    "verify": ("totals", "known", *_COMPARISONS, "looks"),
    "verify_lately": ("known", "changed", "looks"),
    "reconcile": ("totals", "known", *_COMPARISONS, "looks"),
    "sweep": ("failed_deliveries",),
    "replay": ("chosen_events",),
    # At the end of an import all records are compared with Stripe.
    "import": (
        "totals",
        "take_products",
        "take_prices",
        "take_customers",
        "take_subscriptions",
        "take_invoice_payments",
        "take_payments",
        "take_disputes",
        "duplicates",
        "known",
        *_COMPARISONS,
        "looks",
    ),
}
"""The stages of each kind of run, in order."""
UNDER_WAY: Final = frozenset({"running", "waiting"})
STALLED: Final = timedelta(hours=1)
"""During an outage of Stripe a step is retried every 15 minutes. If a run made no progress for longer than this, its
message was lost."""
KEPT: Final = timedelta(days=90)
"""Retention of a run and its differences once it is over."""
DIFFERENCES: Final = "differences"
"""Name of the count of objects that differ from Stripe."""
UNREPAIRABLE: Final = frozenset({"missing_there", "nobody", "duplicate"})
"""Kinds of differences that synchronization can't repair. A record is never deleted because Stripe lacks the object:
with the key of a wrong account that would delete everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run over the Stripe account, which advances in small steps.

    Attributes:
        repair: whether differing records are synchronized.
        step: number of the next step; it makes each step happen once.
        cursor: position in the stage; None at its start.
        check_round: how often the page at the cursor was checked before.
        counts: objects checked, ordered and found, by name.
        parameters: the scope of the run, as its stages need it.
        stages: its stages, in order; empty for a run of an earlier release.
        totals: how many objects a stage will probably read, by stage.
        read: how many objects a stage has read, by stage.
        counted_at: when the totals were known.
        times_resumed: how often it was stopped and resumed.
        expires_at: when MongoDB deletes it; None until it is over.
    """

    id: str
    kind: Kind
    repair: bool
    status: Status = "running"
    stage_index: int = stored_as("place", default=0)
    step: int = 0
    cursor: str | None = None
    check_round: int = stored_as("look", default=0)
    counts: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, Any] = stored_as("asked")
    stages: tuple[str, ...] = ()
    totals: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    counted_at: datetime | None = None
    scheduled: bool = False
    times_resumed: int = stored_as("resumed", default=0)
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 1

    @classmethod
    def begin(
        cls,
        id: str,  # noqa: A002
        kind: Kind,
        *,
        at: datetime,
        repair: bool = False,
        scheduled: bool = False,
        **parameters: Any,
    ) -> Self:
        """A run before its first step; ``repair`` synchronizes differing records, and ``parameters`` are its scope."""
        return cls(
            id=id,
            kind=kind,
            repair=repair,
            parameters=parameters,
            stages=STAGES[kind],
            scheduled=scheduled,
            started_at=at,
            updated_at=at,
        )

    @property
    def stage(self) -> Stage:
        """The current stage; the last one of a run that is done."""
        stages = self.stages or STAGES[self.kind]
        return cast("Stage", stages[min(self.stage_index, len(stages) - 1)])

    @property
    def under_way(self) -> bool:
        """Whether it continues by itself."""
        return self.status in UNDER_WAY

    def stalled(self, at: datetime) -> bool:
        """Whether it has lost its message, so that another run may replace it."""
        return self.under_way and at - self.updated_at > STALLED

    def expects(self, step: int) -> bool:
        """Whether this is the next step."""
        return self.under_way and self.step == step

    def counted(self, **numbers: int) -> Self:
        """The run with these numbers added to its counts; zeros create a count too."""
        counts = dict(self.counts)
        for name, number in numbers.items():
            counts[name] = counts.get(name, 0) + number
        return replace(self, counts=counts)

    def having_read(self, number: int) -> Self:
        """The run after its stage has read so many more objects."""
        return replace(self, read={**self.read, self.stage: self.read.get(self.stage, 0) + number})

    def having_counted(self, totals: Mapping[str, int], *, at: datetime | None) -> Self:
        """The run after the objects of its stages were counted; ``at`` is None while they are counted."""
        return replace(self, totals=dict(totals), counted_at=at)

    def begun_again(self) -> Self:
        """A run of an earlier release, whose stages had other places, at its first stage; otherwise the same run."""
        if self.stages:
            return self
        return replace(self, stages=STAGES[self.kind], stage_index=0, cursor=None, check_round=0)

    def continued(self, cursor: str | None, *, at: datetime, check_round: int = 0) -> Self:
        """The run after a step within a stage; ``check_round`` counts earlier checks of the page at ``cursor``."""
        return self._advanced(at, cursor=cursor, check_round=check_round)

    def stage_completed(self, *, at: datetime) -> Self:
        """The run after the last step of a stage: at the next stage, or done."""
        advanced = self._advanced(at, stage_index=self.stage_index + 1, cursor=None, check_round=0)
        if advanced.stage_index < len(self.stages):
            return advanced
        return replace(advanced, status="done", finished_at=at, expires_at=at + KEPT)

    def waiting(self, *, at: datetime) -> Self:
        """The run while Stripe is unavailable; its step is retried."""
        return replace(self, status="waiting", updated_at=at)

    def stopped(self, *, at: datetime) -> Self:
        """The run, stopped; unchanged if it is over."""
        return replace(self, status="stopped", updated_at=at, expires_at=at + KEPT) if self.under_way else self

    def given_up(self, *, at: datetime) -> Self:
        """The stalled run after another one has replaced it."""
        return replace(self, status="given_up", updated_at=at, finished_at=at, expires_at=at + KEPT)

    def resumed(self, *, at: datetime) -> Self:
        """The run, continuing where it stopped; unchanged if it is over."""
        if self.finished_at is not None:
            return self
        return replace(self, status="running", times_resumed=self.times_resumed + 1, updated_at=at, expires_at=None)

    def view(self) -> StripeRunView:
        """The view for operators."""
        return StripeRunView(
            id=self.id,
            kind=self.kind,
            repair=self.repair,
            status=self.status,
            stage=self.stage,
            counts=self.counts,
            differences=self.counts.get(DIFFERENCES, 0),
            scheduled=self.scheduled,
            started_at=self.started_at,
            updated_at=self.updated_at,
            finished_at=self.finished_at,
        )

    def summary(self) -> StripeRunSummary:
        """The entry in a list of runs."""
        return StripeRunSummary(
            id=self.id,
            kind=self.kind,
            status=self.status,
            differences=self.counts.get(DIFFERENCES, 0),
            scheduled=self.scheduled,
            started_at=self.started_at,
            finished_at=self.finished_at,
        )

    def _advanced(self, at: datetime, **changes: Any) -> Self:
        return replace(self, status="running", step=self.step + 1, updated_at=at, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A difference between our record of an object and Stripe.

    Attributes:
        stripe_id: Stripe's ID of the object; for a trial, of its subscription.
        our_id: ID of our record; None if there is none.
        field_differences: the differing fields with our value and Stripe's, as text for people.
    """

    subject: Subject
    stripe_id: str
    our_id: str | None
    kind: DifferenceKind
    field_differences: list[dict[str, str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the object."""
        return f"{self.subject}:{self.stripe_id}"

    @property
    def repairable(self) -> bool:
        """Whether synchronization repairs it."""
        return self.kind not in UNREPAIRABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A drift that a run found, and the progress of its repair.

    Attributes:
        state: ``suspected`` until it was checked again, then ``found``, or ``ordered`` while it is being repaired and
            ``repaired`` after that.
        expires_at: when MongoDB deletes it.
    """

    id: str
    run_id: str
    subject: Subject
    stripe_id: str
    our_id: str | None
    kind: DifferenceKind
    field_differences: list[dict[str, str | None]] = stored_as("different")
    state: str
    expires_at: datetime
    version: int = 1

    @classmethod
    def of(cls, run: Run, drift: Drift, *, state: str) -> Self:
        """The difference for a drift that a run found; a run has one for each object."""
        return cls(
            id=derived_message_id("difference", run.id, drift.name),
            run_id=run.id,
            subject=drift.subject,
            stripe_id=drift.stripe_id,
            our_id=drift.our_id,
            kind=drift.kind,
            field_differences=drift.field_differences,
            state=state,
            expires_at=run.started_at + KEPT,
        )

    @property
    def name(self) -> str:
        """The name of the object, as ``Drift.name``."""
        return f"{self.subject}:{self.stripe_id}"

    def checked(self, drift: Drift, *, state: str) -> Self:
        """The difference after another comparison found it again."""
        return replace(
            self, our_id=drift.our_id, kind=drift.kind, field_differences=drift.field_differences, state=state
        )

    def repaired(self) -> Self:
        """The difference after a comparison no longer found it."""
        return replace(self, state="repaired")

    def view(self) -> StripeDifferenceView:
        """The view for operators."""
        return StripeDifferenceView.model_validate(
            {
                "object": self.subject,
                "stripe_id": self.stripe_id,
                "id": self.our_id,
                "kind": self.kind,
                "state": self.state,
                "fields": [FieldDifference.model_validate(each) for each in self.field_differences],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDrift:
    """A drift not repaired yet; ``id`` is its name, and runs found it first at ``found_at`` and last at ``seen_at``."""

    id: str
    subject: Subject
    stripe_id: str
    kind: DifferenceKind
    found_at: datetime
    seen_at: datetime
    version: int = 1

    @classmethod
    def of(cls, drift: Drift, *, at: datetime) -> Self:
        """A drift that is found for the first time."""
        return cls(
            id=drift.name, subject=drift.subject, stripe_id=drift.stripe_id, kind=drift.kind, found_at=at, seen_at=at
        )

    def seen(self, drift: Drift, *, at: datetime) -> Self:
        """The drift, found again."""
        return replace(self, kind=drift.kind, seen_at=at)


def count_by_kind(known: Iterable[KnownDrift]) -> dict[tuple[Subject, DifferenceKind], int]:
    """The number of known drifts for each kind of object and of difference."""
    counts: dict[tuple[Subject, DifferenceKind], int] = {}
    for drift in known:
        counts[drift.subject, drift.kind] = counts.get((drift.subject, drift.kind), 0) + 1
    return counts
