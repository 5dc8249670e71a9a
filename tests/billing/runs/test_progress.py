"""Progress of a run, and the estimate of its remaining time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.billing.runs.models import Run
from services.billing.runs.progress import objects, progress_view, remaining

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
TOTALS = {"customers": 100, "subscriptions": 100, "payments": 800}


def a_run(read: int, *, stage: str = "payments", seconds: int = 10) -> Run:
    """A run that has read so many objects of a stage, so many seconds after they were counted."""
    run = Run.begin("run_1", "verify", at=NOW).having_counted(TOTALS, at=NOW)
    while run.stage != stage:
        run = run.stage_completed(at=NOW)
    return run.having_read(read).continued("cursor", at=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("run", "done", "left"),
    [
        (a_run(0, stage="customers"), 0, None),
        (a_run(50, stage="customers"), 50, 190),
        (a_run(300), 500, 10),
        # Objects that were added since they were counted.
        (a_run(900), 1000, 0),
        (a_run(0).stopped(at=NOW), 200, None),
    ],
)
def test_the_rest_is_estimated_by_the_pace_so_far(run: Run, done: int, left: int | None) -> None:
    assert objects(run) == (done, 1000)
    assert remaining(run) == (None if left is None else timedelta(seconds=left))
    assert progress_view(run).seconds_left == left


def test_while_objects_are_counted_the_total_is_unknown() -> None:
    run = Run.begin("run_1", "import", at=NOW).having_counted({"customers": 100}, at=None)
    assert (objects(run), remaining(run)) == ((0, None), None)
