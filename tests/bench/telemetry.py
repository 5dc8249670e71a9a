"""Cost of logs and traces, on and off in one run: CPU time of their own, and requests per second of all services.

``python -m tests.bench.telemetry``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, Final
from unittest.mock import patch

import uvloop
from rich.console import Console
from rich.table import Table

from shared.bus.envelope import Envelope
from shared.otel_settings import TraceExport
from shared.telemetry import OutcomeLog, Thresholds
from shared.tracing import Tracing
from tests.bench.app import App
from tests.bench.environment import environment
from tests.bench.measure import closed_loops
from tests.traces import Traces

OFF: Final = {"NEST_LOG_LEVEL": "info", "NEST_LOG_SAMPLE_RATIO": "0"}
CALLS: Final = ("get_user", "send_magic_link")
CONNECTIONS: Final = 16
SAMPLED: Final = f"00-{'1' * 32}-{'2' * 16}-01"


def variants(endpoint: str) -> Mapping[str, dict[str, str]]:
    """Settings that are compared with the first ones."""
    traces = {**OFF, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}
    return {
        "neither": OFF,
        "lines": {**OFF, "NEST_LOG_SAMPLE_RATIO": "1"},
        "1 % of traces": {**traces, "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        "all traces": traces,
    }


class Position:
    """Position of a record."""

    partition, offset, key, value = 1, 2, None, None
    headers: tuple[tuple[str, bytes], ...] = ()


def microseconds() -> dict[str, float]:
    """CPU time per call and message: of a line, and of the spans of a call, its sending and its processing."""
    message = Envelope(
        id="1" * 32, wire="auth.get-user", topic="auth.commands", key="k", body=b"{}", time=1, trace=SAMPLED
    )
    lines = OutcomeLog("message", module=__name__, service="auth")

    def spans(tracing: Tracing) -> None:
        with tracing.server(
            "POST", version="1.1", scheme="https", server="api.test", remote=None, trusted=False
        ) as call:
            with tracing.sending([message], prefix="", client="gateway", server="kafka:9092") as sending:
                message.trace = sending.trace(0, message)
                sending.acknowledged(0, 1, 2)
            call.routed("POST", "/1/2021-10-06/get_user")
            call.responded(200)
        with tracing.process(message, Position(), topic="auth.commands", group="auth", client="auth-1") as handled:
            handled.handled("done")

    found = {}
    for name, sample in {"no line": 0.0, "line": 1.0}.items():
        with patch.multiple(
            OutcomeLog, _thresholds=Thresholds("info", {}), _stream=StringIO(), _sampled=sample * 2**32
        ):
            found[name] = _best(lambda: lines.write(message, outcome="done", seconds=0.01, type="auth.get-user"))
    for name, export in {
        "no traces": TraceExport(),
        "1 % of traces": TraceExport(exporter="otlp", ratio=0.01),
        "all traces": TraceExport(exporter="otlp"),
    }.items():
        with patch("opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter.export"):
            tracing = Tracing("auth", export)
            found[name] = _best(lambda: spans(tracing))  # noqa: B023 -- called at once
            tracing.stop()
    return found


def _best(act: Callable[[], object], *, count: int = 200, rounds: int = 5) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(count):
            act()
        best = min(best, time.thread_time() - began)
    return 1_000_000 * best / count


async def run(seconds: float) -> dict[str, dict[str, float]]:
    """Measure every variant; return requests per second, by variant and call."""
    results: dict[str, dict[str, float]] = {}
    traces = Traces()
    async with traces.listening():
        for name, settings in variants(traces.url).items():
            async with environment(settings) as running:
                app: Any = App(running, CONNECTIONS)
                await app.connect()
                await app.prepare_logins(CONNECTIONS)
                results[name] = {}
                for call in CALLS:
                    await closed_loops(getattr(app, call), CONNECTIONS, 1.0)
                    results[name][call] = (await closed_loops(getattr(app, call), CONNECTIONS, seconds)).per_second
                app.close()
            traces.bodies.clear()
    return results


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of each measurement (default 6)")
    options = parser.parse_args()
    console = Console(width=120)
    costs = Table("per call and message", "µs of CPU")
    for name, cost in microseconds().items():
        costs.add_row(name, f"{cost:.1f}")
    console.print(costs)
    results = uvloop.run(run(options.seconds))
    table = Table("requests per second (ratio)", *CALLS)
    for name, rates in results.items():
        ratios = {call: rate / results["neither"][call] for call, rate in rates.items()}
        table.add_row(name, *(f"{rates[call]:.0f} ({ratios[call]:.2f})" for call in CALLS))
    console.print(table)


if __name__ == "__main__":
    main()
