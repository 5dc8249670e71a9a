"""Plot of a run as SVG: rates beside their goals, and latencies alone beside theirs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from tests.bench.goals import CONNECTIONS, GOALS
from tests.bench.report import number, rate_result
from tests.bench.runner import Bench

WIDTH: Final = 960
LABELS: Final = 280
"""Width of the names of rows."""
BAR: Final = 14
ROW: Final = 26
HEAD: Final = 54
REACHED, MISSED, RANGE = "#2f7d4f", "#b5532a", "#8fb8a0"
_TEXT: Final = 'font-family="system-ui, sans-serif" font-size="12" fill="#333"'
_ROOM: Final = 1.25
"""The axes end at this multiple of the largest figure, which leaves room for its text."""


@dataclass(frozen=True)
class Bar:
    """One row of a chart.

    Attributes:
        value: end of the bar.
        goal: where the mark is; None without one.
        further: end of a lighter bar behind it; None without one.
        reached: whether the bar has the colour of a reached goal.
    """

    name: str
    value: float
    goal: float | None
    text: str
    further: float | None = None
    reached: bool = True


def svg(bench: Bench) -> str:
    """The plot, as the text of an SVG file."""
    charts = (
        (f"Calls a second at {CONNECTIONS} connections, root scale; the mark is the goal", list(_rates(bench))),
        (
            "Latency of one call alone, ms, root scale: p50 dark, p99 light; the mark is the goal of p50",
            list(_latencies(bench)),
        ),
    )
    height, parts = 10, []
    for title, bars in charts:
        if bars:
            parts.append(f'<g transform="translate(0 {height})">{"".join(_chart(title, bars))}</g>')
            height += HEAD + ROW * len(bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img"><title>Rates and latencies of Nest</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _rates(bench: Bench) -> Iterator[Bar]:
    for name, goal in GOALS.items():
        found = rate_result(bench, name)
        floor = bench.find(goal.floor, CONNECTIONS)
        if found is not None:
            wanted = goal.per_second
            if wanted is None and goal.of_floor is not None and floor is not None:
                wanted = goal.of_floor * floor.per_second
            reached = wanted is None or found.per_second >= wanted
            load = "" if found.connections == CONNECTIONS else f" at {found.connections} connections"
            yield Bar(name, found.per_second, wanted, f"{number(found.per_second)}/s{load}", reached=reached)


def _latencies(bench: Bench) -> Iterator[Bar]:
    for name, goal in GOALS.items():
        found = bench.find(name, 1)
        if found is not None and goal.p50 is not None:
            text = f"{number(found.p50)}, {number(found.p99)}"
            yield Bar(name, found.p50, goal.p50, text, further=found.p99, reached=found.p50 <= goal.p50)


def _chart(title: str, bars: Sequence[Bar]) -> Iterator[str]:
    yield f'<text x="12" y="24" {_TEXT} font-weight="600">{escape(title)}</text>'
    most = max(max(bar.value, bar.goal or 0.0, bar.further or 0.0) for bar in bars) * _ROOM

    def at(value: float) -> float:
        # The root lets rows of 30 and of 5,000 calls a second share one axis.
        return LABELS + (WIDTH - LABELS - 20) * math.sqrt(value / most)

    for line, bar in enumerate(bars):
        top = HEAD - 14 + ROW * line
        middle = top + BAR - 3
        yield f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end" {_TEXT}>{escape(bar.name)}</text>'
        end = bar.value if bar.further is None else max(bar.value, bar.further)
        if bar.further is not None:
            yield _rect(at(0), at(bar.further), top, RANGE)
        yield _rect(at(0), at(bar.value), top, REACHED if bar.reached else MISSED)
        if bar.goal is not None:
            yield _mark(at(bar.goal), top)
        yield f'<text x="{at(max(end, bar.goal or 0.0)) + 6:.1f}" y="{middle}" {_TEXT}>{escape(bar.text)}</text>'


def _rect(begin: float, end: float, top: float, colour: str) -> str:
    return f'<rect x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{BAR}" fill="{colour}"/>'


def _mark(x: float, top: float) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 3}" y2="{top + BAR + 3}" stroke="#222" stroke-width="2"/>'
