import pytest

from services.operator import stripe_runs
from tests.operator.conftest import NestStub
from tests.operator.responses import RUN

DIFFERENCE = {
    "object": "subscription",
    "stripe_id": "sub_stripe",
    "id": "sub_1",
    "kind": "differs",
    "state": "found",
    "fields": [{"field": "status", "ours": "active", "theirs": "canceled"}],
}


def test_differences_are_printed_and_exit_with_code_1(nest: NestStub) -> None:
    nest.responses["reconcile_subscriptions"] = {**RUN, "differences": 1}
    nest.responses["list_stripe_differences"] = {"differences": [DIFFERENCE], "next_cursor": None}
    done = nest.run("stripe", "verify")
    assert done.exit_code == 1
    assert "sub_stripe\tsub_1" in done.stdout
    assert "status: active -> canceled" in done.stdout


def test_import_without_a_terminal_says_that_it_needs_yes(nest: NestStub) -> None:
    done = nest.run("stripe", "import")
    assert (done.exit_code, nest.calls) == (2, [])
    assert "add --yes" in done.stderr
    assert "Take it over?" not in done.output


RUNNING = {**RUN, "status": "running", "stage": "payments", "counts": {"payments": 1_200}}


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({"objects_read": 0, "objects_total": None, "seconds_left": None}, "payments  1200 payments"),
        (
            {"objects_read": 1_200, "objects_total": 5_000, "seconds_left": 95},
            "payments  1,200 of 5,000 objects, 95 s left  1200 payments",
        ),
        (
            {"objects_read": 1_200, "objects_total": 500_000, "seconds_left": 3_000},
            "payments  1,200 of 500,000 objects, 50 min left  1200 payments",
        ),
        (
            {"objects_read": 1, "objects_total": 500_000, "seconds_left": 30_000},
            "payments  1 of 500,000 objects, 8 h 20 min left  1200 payments",
        ),
    ],
)
def test_progress_has_counts_and_an_estimate(
    progress: dict[str, int | None], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stripe_runs._printed_lines(lambda: 0.0)({**RUNNING, **progress})
    assert capsys.readouterr().err == f"striperun_1 running: {line}\n"


def test_without_a_terminal_a_line_is_printed_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = stripe_runs._printed_lines(lambda: now)
    for second in range(25):
        now = float(second)
        report({**RUNNING, "counts": {"payments": second}})
    assert [line.split()[-2] for line in capsys.readouterr().err.splitlines()] == ["0", "10", "20"]
