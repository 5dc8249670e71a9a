"""What billing is ordered and asked by operators about comparing with Stripe, and what it orders of itself for that."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.messages.billing.errors import StripeRunNotFound, StripeRunUnderWay
from shared.messages.billing.stripe_events import StripeCommand, StripeEvent
from shared.messages.message import Command, Moment, NonEmpty, Part, Query, Reply

SCHEDULE: Final = "stripe-schedule"
"""The ``key`` of every look at the schedule: they are handled one after the other."""
Kind = Literal["verify", "verify_lately", "reconcile", "sweep", "replay", "import"]
"""What a run does. ``verify_lately`` compares what Stripe has told of within some hours, ``verify`` everything."""
Scheduled = Literal["sweep", "verify_lately", "verify"]
SCHEDULED: Final[tuple[Scheduled, ...]] = ("sweep", "verify_lately", "verify")
"""The kinds of runs that the clock begins."""
Subject = Literal["customer", "subscription", "trial", "payment", "dispute"]
DifferenceKind = Literal["missing_here", "missing_there", "differs", "nobody", "duplicate"]
"""How a record is not what Stripe says.

- ``missing_here``: Stripe has it, and we have no record.
- ``missing_there``: we have a record of what this Stripe account, in this mode, does not have.
- ``differs``: both have it, and fields differ.
- ``nobody``: no user can be found for it: the customer has neither an address nor a ``user_id`` in its metadata.
- ``duplicate``: a second live subscription of one user that was taken over; both are as Stripe has them.
"""
MONTH_DAYS: Final = 30
"""Stripe tells of events for so long (https://docs.stripe.com/api/events)."""


class StripeRunView(Reply):
    """How far a run is."""

    id: str
    kind: Kind
    repair: bool
    """Whether it repairs what it finds."""
    status: Literal["running", "waiting", "stopped", "done", "given_up"]
    """``waiting``: Stripe can't be asked now; it goes on by itself. ``given_up``: another one took its place."""
    stage: str
    """What it is at."""
    counts: dict[str, int]
    """What was looked at, ordered and found so far, by name."""
    differences: int
    """How many objects are not as Stripe says, after all looks and repairs."""
    scheduled: bool
    started_at: Moment
    updated_at: Moment
    finished_at: Moment | None


class ReconcileSubscriptions(
    Command, wire="billing.reconcile-subscriptions", audited=True, reply=StripeRunView, refuses=(StripeRunUnderWay,)
):
    """Compare our records with Stripe, and repair them."""

    repair: bool = Field(default=True, strict=True)
    """False: only say what differs."""
    changed_within_hours: Annotated[int, Field(ge=1, le=MONTH_DAYS * 24)] | None = None
    """Only what Stripe's events have told of lately; everything by default."""


class SweepStripeEvents(
    Command, wire="billing.sweep-stripe-events", audited=True, reply=StripeRunView, refuses=(StripeRunUnderWay,)
):
    """Fetch the events that Stripe could not deliver."""

    days: Annotated[int, Field(ge=1, le=MONTH_DAYS)] = MONTH_DAYS


class ReplayStripeEvents(
    Command, wire="billing.replay-stripe-events", audited=True, reply=StripeRunView, refuses=(StripeRunUnderWay,)
):
    """Look at events again, also at those that were handled before."""

    event_ids: Annotated[tuple[NonEmpty, ...], Field(max_length=100)] = ()
    """``evt_…``; then nothing else chooses."""
    types: Annotated[tuple[NonEmpty, ...], Field(max_length=20)] = ()
    """As Stripe writes them; all by default."""
    since: Moment | None = None
    until: Moment | None = None
    kept: bool = Field(default=False, strict=True)
    """Of the events that billing keeps, which go back further than Stripe's own list of 30 days."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.event_ids or self.types or self.since):
            raise ValueError("event_ids, types or since is needed")
        return self


class ImportStripeAccount(
    Command, wire="billing.import-stripe-account", audited=True, reply=StripeRunView, refuses=(StripeRunUnderWay,)
):
    """Take over what a Stripe account has by now, writing to nobody."""


class StopStripeRun(
    Command, wire="billing.stop-stripe-run", audited=True, reply=StripeRunView, refuses=(StripeRunNotFound,)
):
    """Let a run stop where it is."""

    run_id: NonEmpty


class ResumeStripeRun(
    Command,
    wire="billing.resume-stripe-run",
    audited=True,
    reply=StripeRunView,
    refuses=(
        StripeRunNotFound,
        StripeRunUnderWay,
    ),
):
    """Let a run that was stopped go on."""

    run_id: NonEmpty


class GetStripeRun(Query, wire="billing.get-stripe-run", reply=StripeRunView, refuses=(StripeRunNotFound,)):
    """How far a run over Stripe is."""

    run_id: NonEmpty


class StripeRunSummary(Part):
    """A run in a list: as StripeRunView, without its counts."""

    id: str
    kind: Kind
    status: str
    differences: int
    scheduled: bool
    started_at: Moment
    finished_at: Moment | None


class StripeRunsView(Reply):
    """The latest runs."""

    runs: tuple[StripeRunSummary, ...]


class ListStripeRuns(Query, wire="billing.list-stripe-runs", reply=StripeRunsView):
    """Runs over Stripe."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20


class FieldDifference(Part):
    """One field of a record that is not what Stripe says."""

    field: str
    ours: str | None
    theirs: str | None


class StripeDifferenceView(Part):
    """A record that is not what Stripe says."""

    object: Subject
    stripe_id: str
    id: str | None
    """Ours; None where there is no record."""
    kind: DifferenceKind
    state: Literal["suspected", "found", "ordered", "repaired"]
    """``suspected`` until it was read again, ``ordered`` while its repair is under way."""
    fields: tuple[FieldDifference, ...]


class StripeDifferencesView(Reply):
    """A page of what a run has found."""

    differences: tuple[StripeDifferenceView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListStripeDifferences(
    Query,
    wire="billing.list-stripe-differences",
    audited=True,
    reply=StripeDifferencesView,
    refuses=(StripeRunNotFound,),
):
    """What a run has found."""

    run_id: NonEmpty
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: NonEmpty | None = None
    """``next_cursor`` of the page before."""


class ContinueStripeRun(StripeCommand, wire="billing.continue-stripe-run"):
    """Do the next step of a run."""

    run_id: str
    step: int
    """Which, counted from 0: a step that was done is not done again."""


class ReplayStripeEvent(Command, wire="billing.replay-stripe-event"):
    """Look at one event again, whatever came of it before."""

    event: StripeEvent


class KeepStripeSchedule(Command, wire="billing.keep-stripe-schedule"):
    """Begin a scheduled run if it is due, and come back when the next one is.

    Any number may be under way: all who order the same look order one.
    """

    kind: Scheduled
    due: Moment | None = None
    """For what time it was ordered: it is that late at least, whatever the clock of who handles it says."""
