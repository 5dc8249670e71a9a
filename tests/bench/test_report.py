from __future__ import annotations

import asyncio
import json
import re
from xml.etree import ElementTree as ET

import pytest

from tests.bench import plot, report, stacks, waterfall
from tests.bench.goals import ARGON2, GOALS, TRANSACTION
from tests.bench.measure import Result, open_loop
from tests.bench.runner import Bench
from tests.traces import ReceivedSpan

BENCH = Bench(
    machine={"cpu": "a processor"},
    results=[
        Result(TRANSACTION, 32, 1000, 1, 2, 3),
        Result(ARGON2, 32, 20, 50, 60, 70),
        Result("authenticate_user, refresh", 1, 140, 6, 20, 30, cpu={"auth": 5.0, "driver": 1.0}),
        Result("authenticate_user, refresh", 32, 1300, 20, 30, 40),
        Result("authenticate_user, refresh", None, 400, 4, 9, 10, rate=400),
        Result("Stripe webhook, applied", 128, 400, 90, 200, 300),
        Result("Stripe webhook, applied: lag after acceptance", None, 300, 90, 1200, 1300, rate=300),
        Result("signwithemail", 32, 15, 50, 60, 70),
    ],
    statuses={"200": 80},
    idle={"services": 1.0, "kafka": 1.5},
)


def test_results_survive_their_file() -> None:
    assert Bench.of_json(json.loads(json.dumps(BENCH.as_json()))) == BENCH


def test_each_goal_is_compared_with_the_load_that_counts_for_it() -> None:
    found = {(each.row, each.figure): (each.measured, each.reached) for each in report.comparisons(BENCH)}
    assert found == {
        ("authenticate_user, refresh", "rate"): (1300, True),
        ("authenticate_user, refresh", "p50 alone"): (6, True),
        ("authenticate_user, refresh", "p99 alone"): (20, False),
        ("Stripe webhook, applied", "rate"): (400, False),
        ("Stripe webhook, applied", "p99 of the lag at 300/s"): (1200, False),
        ("signwithemail", "part of its floor"): (0.75, False),
        ("signwithemail", "504 at up to 40 parallel calls"): (0, True),
        ("nest up, idle", "CPU"): (2.5, False),
    }


def test_ratios_compare_rows_with_floor_and_best_other_system_at_the_same_load() -> None:
    rows = {(row.name, row.connections, row.rate): row for row in BENCH.results}
    goal = GOALS["authenticate_user, refresh"]
    many = rows["authenticate_user, refresh", 32, None]
    assert (report.of_floor(BENCH, many, goal), report.of_peer(many, goal)) == ("1.30", f"{1300 / 854:.2f}")
    for other in (rows["authenticate_user, refresh", 1, None], rows["authenticate_user, refresh", None, 400]):
        assert (report.of_floor(BENCH, other, goal), report.of_peer(other, goal)) == ("", "")


def test_cpu_of_nest_leaves_out_the_tools_of_the_measurement() -> None:
    assert report.nest_cpu(BENCH.results[2]) == 5


def test_plot_has_a_bar_for_each_row_and_a_mark_for_each_goal() -> None:
    picture = ET.fromstring(plot.svg(BENCH))  # noqa: S314 -- our own text
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert names.count("authenticate_user, refresh") == 2
    assert names.count("signwithemail") == 1
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}line"))) == 4
    fills = re.findall('height="14" fill="([^"]+)"', plot.svg(BENCH))
    assert fills == [plot.REACHED, plot.MISSED, plot.MISSED, plot.RANGE, plot.REACHED]


def test_plot_of_a_run_without_rows_is_empty() -> None:
    assert "<g" not in plot.svg(Bench())


async def test_open_loop_counts_from_when_a_request_was_due() -> None:
    async def slow(_number: int) -> None:
        await asyncio.sleep(0.02)

    measured = await open_loop(slow, 1, rate=200, seconds=0.1)
    assert measured.count == 20
    # One connection performs 50 calls a second, so the last one waits for 19 others.
    assert measured.longest > 250


def span(kind: str, name: str, ids: tuple[str, str], start: float, end: float, *, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        resource={"service.name": f"nest-{service}"},
        schema="",
        name=name,
        kind=kind,
        trace="t",
        id=ids[0],
        parent=ids[1],
        links=[],
        attributes={},
        failed=False,
        start=int(start * 1e6),
        end=int(end * 1e6),
    )


def test_waterfall_shows_how_long_a_message_was_under_way() -> None:
    spans = [
        span("CLIENT", "insert inbox", ("5", "3"), 13, 14, service="auth"),
        span("CONSUMER", "process auth.commands", ("3", "2"), 12.5, 16, service="auth"),
        span("SERVER", "POST /call", ("1", "proxy"), 10, 20, service="gateway"),
        span("PRODUCER", "send auth.commands", ("2", "1"), 11, 12, service="gateway"),
        span("PRODUCER", "send gateway.replies", ("6", "3"), 15, 15.5, service="auth"),
    ]
    steps = waterfall.steps(spans, "proxy")
    assert [(step.process, step.name, step.depth, step.start, step.milliseconds) for step in steps] == [
        ("gateway", "POST /call", 0, 0, 10),
        ("gateway", "send auth.commands", 1, 1, 1),
        ("auth", "record to auth", 2, 1, 1.5),
        ("auth", "process auth.commands", 2, 2.5, 3.5),
        ("auth", "insert inbox", 3, 3, 1),
        ("auth", "send gateway.replies", 3, 5, 0.5),
        ("gateway", "reply and response", 3, 5, 5),
    ]
    assert [step.command for step in steps] == ["", *("Kafka produce", "", "", "MongoDB insert", "Kafka produce", "")]
    assert waterfall.total(steps) == 10


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("services/auth/tokens/store.py", "services.auth"),
        ("shared/bus/inbox.py", "shared.bus"),
        ("shared/mongo.py", "shared.mongo"),
        ("pymongo/asynchronous/pool.py", "pymongo"),
        ("/x/lib/python3.11/site-packages/aiokafka/conn.py", "aiokafka"),
        ("asyncio/events.py", "Python: asyncio"),
    ],
)
def test_samples_belong_to_the_package_of_their_file(file: str, package: str) -> None:
    assert stacks.package(file) == package


def test_samples_are_shared_out_by_package_and_function() -> None:
    shares = stacks.shares(
        "main (cli.py:1);run (asyncio/runners.py:5);commit (shared/bus/inbox.py:8);send (pymongo/pool.py:3) 3\n"
        "main (cli.py:1);run (asyncio/runners.py:5);commit (shared/bus/inbox.py:9) 1\n"
        "main (cli.py:1);run (asyncio/runners.py:5) 4\n"
        "work (threading.py:5);select (selectors.py:4) 50\n"
    )
    assert shares.packages == {"pymongo": 0.375, "uvloop": 0.5, "shared.bus": 0.125}
    assert shares.functions == {
        "shared.bus.inbox: commit": 0.5,
        "pymongo.pool: send": 0.375,
        "uvloop: event loop": 0.5,
    }
