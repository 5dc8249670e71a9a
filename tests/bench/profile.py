"""Profile of one operation: where the time of a request alone goes, and the CPU time at many connections.

It measures twice, in environments of their own. With traces and the broker's request log: a waterfall of one request
alone, and the Kafka requests that a call causes. Without them: CPU time by process, package and function, messages in
a commit, MongoDB commands, and bytes on Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean
from typing import Any, Final

import uvloop
from rich.console import Console

from tests.bench import counters, stacks, waterfall
from tests.bench.environment import environment
from tests.bench.goals import CONNECTIONS
from tests.bench.measure import closed_loops, cpu_of, cpu_seconds
from tests.bench.profile_data import Load, Profile, write
from tests.bench.profile_report import show
from tests.bench.rows import EVENTS_IN_FLIGHT, JOBS, SETTINGS, STRIPE_SECONDS, Row, nest_rows
from tests.traces import ReceivedSpan, Traces

PROXY: Final = "b7ad6b7169203331"
"""Span ID of the caller in its traces."""
TRACED_CALLS: Final = 20
COUNTED_CALLS: Final = 100
COUNTED_SECONDS: Final = 0.6
SAMPLED: Final = ("gateway", "auth", "billing", "mailer", "news")
EXPORT_SECONDS: Final = 3.0
"""Within it every process has exported its spans."""
EXAMPLES: Final = f"""\
examples:
  python -m tests.bench.profile refresh
  python -m tests.bench.profile link code refresh get_user --json docs/profile.json
  python -m tests.bench.profile                     lists the jobs

jobs: {", ".join(JOBS)}
"""


async def traced(profiles: Sequence[Profile], console: Console) -> None:
    """Fill in the waterfalls and the Kafka requests."""
    traces = Traces()
    async with traces.listening():
        settings = {
            **SETTINGS,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            # Only what this program asks for as a trusted proxy is traced.
            "OTEL_TRACES_SAMPLER_ARG": "0",
            "NEST_TRUSTED_PROXIES": "127.0.0.1/32",
        }
        async with _rows(settings, variables=counters.REQUEST_LOG) as (running, rows):
            folder = Path(running["mails"]).parent
            log = counters.KafkaLog(folder)
            for profile in profiles:
                console.print(f"[dim]{profile.row}: traces and Kafka requests[/dim]")
                row = rows[profile.job]
                await _prepare(row, 1, 2 * COUNTED_CALLS)
                await _calls(row, COUNTED_CALLS)
                begin = log.position()
                await _calls(row, COUNTED_CALLS)
                profile.requests = _by_kind(log.requests(begin, log.position()), COUNTED_CALLS)
                await _prepare(row, CONNECTIONS, _most(row))
                begin = log.position()
                measured = await closed_loops(row.call, _connections(row), COUNTED_SECONDS)
                profile.requests_together = {
                    name: count
                    for name, (count, _) in _by_kind(log.requests(begin, log.position()), measured.count).items()
                }
                await _prepare(row, 1, TRACED_CALLS)
                profile.steps = await _waterfall(row, traces)


async def loaded(profiles: Sequence[Profile], seconds: float, console: Console) -> None:
    """Fill in what a call costs alone and together, and the samples of the stacks."""
    async with _rows(SETTINGS) as (running, rows):
        for profile in profiles:
            console.print(f"[dim]{profile.row}: CPU time and counters[/dim]")
            row = rows[profile.job]
            many = _connections(row)
            for connections in (1, many):
                await _prepare(row, connections, row.most_calls(connections, seconds))
                load = await _load(running, row, connections, seconds)
                profile.alone, profile.together = (load, None) if connections == 1 else (profile.alone, load)
            await _prepare(row, many, row.most_calls(many, seconds + 2))
            profile.stacks = await _sampled(running, row, many, seconds, console)


@asynccontextmanager
async def _rows(
    settings: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[dict[str, Any], dict[str, Row]]]:
    """A running environment and its rows, by job."""
    async with (
        environment(settings, stripe_seconds=STRIPE_SECONDS, variables=variables) as running,
        nest_rows(running, CONNECTIONS) as (rows, _),
    ):
        yield running, {job: next(row for row in rows if row.name == name) for job, name in JOBS.items()}


def _connections(row: Row) -> int:
    return EVENTS_IN_FLIGHT if row.name == JOBS["applied"] else CONNECTIONS


def _most(row: Row) -> int:
    return row.most_calls(CONNECTIONS, COUNTED_SECONDS)


async def _prepare(row: Row, connections: int, calls: int) -> None:
    if row.prepare is not None:
        await row.prepare(calls + connections)


async def _calls(row: Row, count: int) -> None:
    for _ in range(count):
        await row.call(0)


async def _waterfall(row: Row, traces: Traces) -> list[waterfall.Step]:
    """The steps of the traced request that took the median time."""
    assert row.trace is not None
    wanted = []
    for _ in range(TRACED_CALLS):
        wanted.append(secrets.token_hex(16))
        row.trace(0, f"00-{wanted[-1]}-{PROXY}-01")
        await row.call(0)
    row.trace(0, f"00-{secrets.token_hex(16)}-{PROXY}-00")
    await asyncio.sleep(EXPORT_SECONDS)
    spans: dict[str, list[ReceivedSpan]] = {trace: [] for trace in wanted}
    for span in traces.spans:
        if span.trace in spans:
            spans[span.trace].append(span)
    traces.bodies.clear()
    found = sorted((waterfall.steps(each, PROXY) for each in spans.values() if each), key=waterfall.total)
    return found[len(found) // 2]


def _by_kind(requests: Sequence[counters.KafkaRequest], calls: int) -> dict[str, tuple[float, float]]:
    """Requests for each call, and the mean milliseconds of one, by client and kind."""
    kinds: dict[str, list[float]] = {}
    for each in requests:
        kind = f"{each.kind} with records" if each.records else each.kind
        kinds.setdefault(f"{each.client}: {kind}", []).append(each.milliseconds)
    counted = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return {name: (len(times) / calls, mean(times)) for name, times in counted}


async def _load(running: Mapping[str, Any], row: Row, connections: int, seconds: float) -> Load:
    folder, pids = Path(running["mails"]).parent, running["all_pids"]
    if row.later is not None:
        row.later.begin()
    sizes, commits = counters.topic_bytes(folder), await counters.commits(running["health"])
    mongo, cpu = await counters.mongo_commands(running["mongo"]), cpu_seconds(pids)
    measured = await closed_loops(row.call, connections, seconds)
    if row.later is not None:
        await row.later.end()
    count = measured.count
    used = cpu_of(cpu, cpu_seconds(pids), count)
    commands = counters.per_call(mongo, await counters.mongo_commands(running["mongo"]), count)
    after = await counters.commits(running["health"])
    return Load(
        connections=connections,
        round=measured,
        cpu=used,
        mongo=commands,
        kafka=counters.per_call(sizes, counters.topic_bytes(folder), count, least=1.0),
        commits=counters.commit_sizes(commits, after),
    )


async def _sampled(
    running: Mapping[str, Any], row: Row, connections: int, seconds: float, console: Console
) -> dict[str, stacks.Shares]:
    """Shares of the CPU time of each service; empty, with a line that says why, if py-spy may not sample them."""
    with tempfile.TemporaryDirectory(prefix="nest-profile-") as name:
        files = {process: Path(name) / process for process in SAMPLED}
        load = asyncio.create_task(closed_loops(row.call, connections, seconds + 1))
        sampling = (stacks.sample(running["all_pids"][process], seconds, file) for process, file in files.items())
        failures = [str(failure) for failure in await asyncio.gather(*sampling) if failure]
        await load
        if failures:
            console.print(f"[bold]no CPU time by package and function:[/bold] {failures[0]}")
            return {}
        return {process: stacks.shares(file.read_text()) for process, file in files.items()}


def main(arguments: Sequence[str] | None = None) -> list[Profile]:
    """Measure the jobs and print their profiles."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.profile",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option: Any = parser.add_argument
    option("jobs", nargs="*", metavar="JOB", help="operations, by their short names; without any, lists them")
    option("--seconds", type=float, default=5.0, help="duration of each measurement (default 5)")
    option("--json", type=Path, metavar="FILE", help="write the profiles to this file too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(unknown))}; the jobs are {', '.join(JOBS)}")
    if not options.jobs:
        for job, row in JOBS.items():
            console.print(f"{job:15} {row}")
        return []
    profiles = [Profile(job, JOBS[job]) for job in options.jobs]
    uvloop.run(measure(profiles, options.seconds, console))
    for profile in profiles:
        show(profile, console)
    if options.json is not None:
        write(options.json, profiles)
    return profiles


async def measure(profiles: Sequence[Profile], seconds: float, console: Console) -> None:
    """Fill in everything."""
    await traced(profiles, console)
    await loaded(profiles, seconds, console)


if __name__ == "__main__":
    main()
