"""How far is a long run over a Stripe account, and what is next? Moved on step by step, and kept in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self, get_args

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
    "known",
    "changed",
    "customers",
    "subscriptions",
    "trials",
    "payments",
    "disputes",
    "looks",
    "failed_deliveries",
    "chosen_events",
    "take_customers",
    "take_subscriptions",
    "take_payments",
    "take_disputes",
    "duplicates",
]
Status = Literal["running", "waiting", "stopped", "done", "given_up"]
_ALL: Final[tuple[Stage, ...]] = ("customers", "subscriptions", "trials", "payments", "disputes")
STAGES: Final[dict[Kind, tuple[Stage, ...]]] = {
    "verify": ("known", *_ALL, "looks"),
    "verify_lately": ("known", "changed", "looks"),
    "reconcile": ("known", *_ALL, "looks"),
    "sweep": ("failed_deliveries",),
    "replay": ("chosen_events",),
    # What was taken over is compared in the end like everything else.
    "import": (
        "take_customers",
        "take_subscriptions",
        "take_payments",
        "take_disputes",
        "duplicates",
        "known",
        *_ALL,
        "looks",
    ),
}
"""What each kind of run does, one after the other."""
UNDER_WAY: Final = frozenset({"running", "waiting"})
STALLED: Final = timedelta(hours=1)
"""Stripe is asked again every quarter of an hour: a run that was not moved for longer has lost its message."""
KEPT: Final = timedelta(days=90)
"""How long a run and what it found are kept once it is over."""
DIFFERENCES: Final = "differences"
"""The count of objects that are not as Stripe says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run over the account.

    Attributes:
        repair: whether what differs is followed.
        stage: what it is at, by its place among the stages of its kind.
        step: counts every step, so that each is done once.
        cursor: how far the stage is; None at its begin.
        look: how often the page at the cursor was looked at before.
        counts: what was looked at, ordered and found, by name.
        asked: what it was told to go over, as its stages need it.
        scheduled: whether it began by the clock.
        resumed: how often it was stopped and went on.
        expires_at: when it is forgotten; None until it is over.
    """

    id: str
    kind: Kind
    repair: bool
    status: Status = "running"
    place: int = 0
    step: int = 0
    cursor: str | None = None
    look: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    scheduled: bool = False
    resumed: int = 0
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
        **asked: Any,
    ) -> Self:
        """A run at its first step.

        Args:
            id: its id.
            kind: what it does.
            at: now.
            repair: whether what differs is followed.
            scheduled: whether it begins by the clock.
            asked: what it is told to go over.
        """
        return cls(id=id, kind=kind, repair=repair, asked=asked, scheduled=scheduled, started_at=at, updated_at=at)

    @property
    def stage(self) -> Stage:
        """What it is at; the last one when it is over."""
        stages = STAGES[self.kind]
        return stages[min(self.place, len(stages) - 1)]

    @property
    def under_way(self) -> bool:
        """Whether it goes on by itself."""
        return self.status in UNDER_WAY

    def stalled(self, at: datetime) -> bool:
        """Whether nothing moves it any more, and another may take its place."""
        return self.under_way and at - self.updated_at > STALLED

    def expects(self, step: int) -> bool:
        """Whether this step is to be done now."""
        return self.under_way and self.step == step

    def counted(self, **more: int) -> Self:
        """The run with more counted; names with nothing to add appear too."""
        counts = dict(self.counts)
        for name, number in more.items():
            counts[name] = counts.get(name, 0) + number
        return replace(self, counts=counts)

    def on(self, cursor: str | None, *, at: datetime, look: int = 0) -> Self:
        """The run after a page, with more of the stage to come: from a cursor on, looked at so often before."""
        return self._moved(at, cursor=cursor, look=look)

    def past_stage(self, *, at: datetime) -> Self:
        """The run after the last page of a stage: at the next one, or over."""
        after = self._moved(at, place=self.place + 1, cursor=None, look=0)
        if after.place < len(STAGES[self.kind]):
            return after
        return replace(after, status="done", finished_at=at, expires_at=at + KEPT)

    def put_off(self, *, at: datetime) -> Self:
        """The run while Stripe can't be asked; its step is done later."""
        return replace(self, status="waiting", updated_at=at)

    def stopped(self, *, at: datetime) -> Self:
        """The run, going on no more by itself; one that is over stays over."""
        return replace(self, status="stopped", updated_at=at, expires_at=at + KEPT) if self.under_way else self

    def given_up(self, *, at: datetime) -> Self:
        """The run after another took its place."""
        return replace(self, status="given_up", updated_at=at, finished_at=at, expires_at=at + KEPT)

    def gone_on(self, *, at: datetime) -> Self:
        """The run going on where it stopped; one that is over stays over."""
        if self.finished_at is not None:
            return self
        return replace(self, status="running", resumed=self.resumed + 1, updated_at=at, expires_at=None)

    def view(self) -> StripeRunView:
        """As operators read it."""
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

    def part(self) -> StripeRunSummary:
        """As it stands in a list."""
        return StripeRunSummary(
            id=self.id,
            kind=self.kind,
            status=self.status,
            differences=self.counts.get(DIFFERENCES, 0),
            scheduled=self.scheduled,
            started_at=self.started_at,
            finished_at=self.finished_at,
        )

    def _moved(self, at: datetime, **changes: Any) -> Self:
        return replace(self, status="running", step=self.step + 1, updated_at=at, **changes)


KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


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


def by_kind(drifts: Iterable[Standing]) -> dict[tuple[str, str], int]:
    """How many there are of each subject and kind."""
    counted: dict[tuple[str, str], int] = {}
    for drift in drifts:
        name = (drift.subject, drift.kind)
        counted[name] = counted.get(name, 0) + 1
    return counted
