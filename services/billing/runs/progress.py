"""Progress of a Stripe run: its objects, counted in advance, and the estimate of its remaining time."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing.runs.models import Run
from services.billing.runs.steps import Step, StepResult
from services.billing.stripe_api.lists import StripeList
from shared.messages.billing.runs import StripeRunProgressView

LISTS: Final[tuple[StripeList, ...]] = ("customers", "subscriptions", "invoice_payments", "payments", "disputes")
"""The lists that an import takes over, and that its last stages compare."""


async def count_objects(step: Step) -> StepResult:
    """Count our records; for an import, which begins without records, count Stripe's lists, 100 objects a call."""
    run, at = step.run, step.work.now
    if run.kind != "import":
        records = step.billing.records
        payments = await records.payments.count()
        totals = {
            "customers": await records.customers.count(),
            "subscriptions": await records.subscriptions.count(),
            "invoice_payments": payments,
            "payments": payments,
            "disputes": await records.disputes.count(),
        }
        return StepResult(run.having_counted(totals, at=at).stage_completed(at=at))
    index, _, after = (run.cursor or "0.").partition(".")
    name = LISTS[int(index)]
    page = await step.stripe.list_page(name, after=after or None, expanded=False)
    counted = {**run.totals, name: run.totals.get(name, 0) + len(page.entries)}
    run = run.having_counted(counted, at=None)
    if page.more:
        return StepResult(run.continued(f"{index}.{page.entries[-1]['id']}", at=at))
    if int(index) + 1 < len(LISTS):
        return StepResult(run.continued(f"{int(index) + 1}.", at=at))
    # Each object is taken over, and compared at the end.
    totals = counted | {f"take_{each}": number for each, number in counted.items()}
    return StepResult(run.having_counted(totals, at=at).stage_completed(at=at))


def objects(run: Run) -> tuple[int, int | None]:
    """How many objects a run has read, and how many it reads in all; None while they are counted."""
    if run.counted_at is None:
        return sum(run.read.values()), None
    passed = run.stages[: run.stage_index]
    read = sum(total if stage in passed else min(run.read.get(stage, 0), total) for stage, total in run.totals.items())
    return read, sum(run.totals.values())


def remaining(run: Run) -> timedelta | None:
    """The estimated time until a run is done, at its pace since the objects were counted; None if it is not known."""
    read, total = objects(run)
    if not run.under_way or not read or total is None or run.counted_at is None:
        return None
    return (run.updated_at - run.counted_at) * (total - read) / read


def progress_view(run: Run) -> StripeRunProgressView:
    """The view of a run with its progress."""
    read, total = objects(run)
    left = remaining(run)
    return StripeRunProgressView(
        **dict(run.view()),
        objects_read=read,
        objects_total=total,
        seconds_left=None if left is None else round(left.total_seconds()),
    )
