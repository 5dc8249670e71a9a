"""Stripe runs: long jobs that compare billing's records with Stripe, fetch or replay events, or import an account."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.messages.billing.errors import StripeRunNotFound, StripeRunUnderWay
from shared.messages.billing.stripe_events import StripeCommand, StripeEvent
from shared.messages.message import Command, OperatorList, Part, Query, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, NextCursor, NonEmpty, StripeId

SCHEDULE: Final = "stripe-schedule"
"""Ordering key of all KeepStripeSchedule commands: they are handled one at a time."""
Kind = Literal["verify", "verify_lately", "reconcile", "sweep", "replay", "import"]
Scheduled = Literal["sweep", "verify_lately", "verify"]
RunId = Annotated[NonEmpty, Field(description="ID of the run.")]
SCHEDULED: Final[tuple[Scheduled, ...]] = ("sweep", "verify_lately", "verify")
"""Kinds of runs that start on a schedule."""
Subject = Literal["customer", "subscription", "trial", "payment", "dispute", "product", "price"]
DifferenceKind = Literal["missing_here", "missing_there", "differs", "nobody", "duplicate"]
MONTH_DAYS: Final = 30
"""How long Stripe lists events, in days (https://docs.stripe.com/api/events)."""


class StripeRunSummary(Reply):
    """A Stripe run in a list."""

    id: str
    """ID of the run."""
    kind: Kind
    """Kind of run, as in ``get_stripe_run``."""
    status: str
    """Status, as in ``get_stripe_run``."""
    differences: int
    """Number of objects that differ from Stripe after rechecks and repairs."""
    scheduled: bool
    """Whether the run was started by the schedule."""
    started_at: Moment
    """When the run started."""
    finished_at: Moment | None
    """When the run finished; null before."""


class StripeRunView(StripeRunSummary):
    """A Stripe run."""

    kind: Kind
    """``verify`` (compare all records), ``verify_lately`` (compare recently changed objects), ``reconcile`` (compare
    and repair all), ``sweep`` (fetch undelivered events), ``replay`` (process events again) or ``import`` (import an
    account without sending mails)."""
    status: Literal["running", "waiting", "stopped", "done", "given_up"]
    """``waiting`` while Stripe is unavailable; it continues by itself. ``given_up`` if it stalled and another run
    replaced it."""
    repair: bool
    """Whether the run repairs differences."""
    stage: str
    """Current stage, or the last one."""
    counts: Annotated[dict[str, int], Field(max_length=1_000)]
    """Number of objects compared, re-read, found to differ and so on, by name."""
    updated_at: Moment
    """When the run last made progress."""


class StripeRunProgressView(StripeRunView):
    """A Stripe run with its progress."""

    objects_read: int
    """Number of Stripe objects read so far."""
    objects_total: int | None
    """Number of Stripe objects to read in all; null while they are counted, and for runs that count none."""
    seconds_left: int | None
    """Estimated seconds until the run is done, at its pace so far; null if it is not known or the run is over."""


class StripeRunsView(Reply):
    """The latest Stripe runs."""

    runs: Many[StripeRunSummary]
    """The runs, newest first."""


class StripeRunCommand(Command, audited=True, reply=StripeRunView, refuses=(StripeRunUnderWay,)):
    """Base of the commands that start, stop or resume a Stripe run."""


class ReconcileSubscriptions(StripeRunCommand, wire="billing.reconcile-subscriptions"):
    """Compare billing's records with Stripe, and repair differences."""

    repair: bool = Field(default=True, strict=True)
    """Whether to repair differences. False only lists them."""
    changed_within_hours: Annotated[int, Field(ge=1, le=MONTH_DAYS * 24)] | None = None
    """Compare only objects that had a Stripe event in this many hours. All objects by default."""


class SweepStripeEvents(StripeRunCommand, wire="billing.sweep-stripe-events"):
    """Fetch the events that Stripe could not deliver."""

    days: Annotated[int, Field(ge=1, le=MONTH_DAYS)] = MONTH_DAYS
    """Age of the oldest events to fetch, in days."""


class ReplayStripeEvents(StripeRunCommand, wire="billing.replay-stripe-events"):
    """Process Stripe events again.

    Includes events that were processed before. Needs ``event_ids``, ``types`` or ``since``.
    """

    event_ids: Annotated[tuple[StripeId, ...], Field(max_length=100)] = ()
    """IDs of the events (``evt_…``). The other filters are ignored then."""
    types: Annotated[tuple[NonEmpty, ...], Field(max_length=20)] = ()
    """Only events of these Stripe types. All types by default."""
    since: Moment | None = None
    """Only events of this time or later."""
    until: Moment | None = None
    """Only events before this time."""
    kept: bool = Field(default=False, strict=True)
    """Whether to read billing's stored events, which go back further, instead of Stripe's list of the last 30 days."""

    @model_validator(mode="after")
    def _has_filter(self) -> Self:
        if not (self.event_ids or self.types or self.since):
            raise ValueError("event_ids, types or since is needed")
        return self


class ImportStripeAccount(StripeRunCommand, wire="billing.import-stripe-account"):
    """Import the objects of a Stripe account. Sends no mails for them."""


class StopStripeRun(StripeRunCommand, wire="billing.stop-stripe-run", refuses=(StripeRunNotFound,)):
    """Stop a Stripe run. It can be resumed."""

    run_id: RunId


class ResumeStripeRun(
    StripeRunCommand, wire="billing.resume-stripe-run", refuses=(StripeRunNotFound, StripeRunUnderWay)
):
    """Resume a stopped Stripe run."""

    run_id: RunId


class GetStripeRun(Query, wire="billing.get-stripe-run", reply=StripeRunView, refuses=(StripeRunNotFound,)):
    """Get the state of a Stripe run."""

    run_id: RunId


class GetStripeRunProgress(
    Query, wire="billing.get-stripe-run-progress", reply=StripeRunProgressView, refuses=(StripeRunNotFound,)
):
    """Get the state and the progress of a Stripe run."""

    run_id: RunId


class ListStripeRuns(OperatorList, wire="billing.list-stripe-runs", reply=StripeRunsView):
    """List the latest Stripe runs."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """Maximum number of runs."""


class FieldDifference(Part):
    """A field of a record that differs from Stripe."""

    field: str
    """Name of the field."""
    ours: str | None
    """Value in billing's record."""
    theirs: str | None
    """Value in Stripe."""


class StripeDifferenceView(Part):
    """A record that differs from Stripe."""

    object: Subject
    """Kind of object."""
    stripe_id: str
    """ID of the object in Stripe."""
    id: str | None
    """ID of billing's record; null if there is none."""
    kind: DifferenceKind
    """``missing_here``: the object has no record. ``missing_there``: the record's object does not exist in this account
    and mode. ``differs``: fields differ. ``nobody``: the object has no user, because its customer has neither an
    address nor a ``user_id`` in its metadata. ``duplicate``: an imported second live subscription of one user."""
    state: Literal["suspected", "found", "ordered", "repaired"]
    """``suspected`` before the object was read again, ``found`` after it, ``ordered`` while the repair is in progress,
    ``repaired`` after it."""
    fields: Many[FieldDifference]
    """Fields that differ."""


class StripeDifferencesView(Reply):
    """A page of differences."""

    differences: Many[StripeDifferenceView]
    """The differences."""
    next_cursor: NextCursor


class ListStripeDifferences(
    OperatorList,
    wire="billing.list-stripe-differences",
    audited=True,
    reply=StripeDifferencesView,
    refuses=(StripeRunNotFound,),
):
    """List the differences that a Stripe run found."""

    run_id: RunId
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class ContinueStripeRun(StripeCommand, wire="billing.continue-stripe-run"):
    """Execute the next step of a Stripe run."""

    run_id: str
    step: int
    """Index of the step, from 0. A step that was executed before is skipped."""


class ReplayStripeEvent(Command, wire="billing.replay-stripe-event"):
    """Process one Stripe event again, regardless of its earlier result."""

    event: StripeEvent


class KeepStripeSchedule(Command, wire="billing.keep-stripe-schedule"):
    """Start a scheduled Stripe run if it is due, and schedule the next check.

    Idempotent; several may be in progress: their timers for the same time have the same ID.
    """

    kind: Scheduled
    due: Moment | None = None
    """Time that it was scheduled for. The handler takes it as the current time if its own clock is behind."""
