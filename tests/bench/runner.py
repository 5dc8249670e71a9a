"""Measurement of rows: rounds, their medians, and the CPU time and memory of every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console

from tests.bench.measure import (
    Result,
    Round,
    closed_loops,
    cpu_of,
    cpu_seconds,
    open_loop,
    resident_megabytes,
)
from tests.bench.rows import OPEN_LOOP_CONNECTIONS, Row


@dataclass(frozen=True)
class Rounds:
    """How rows are measured.

    Attributes:
        seconds: duration of a round.
        runs: measured rounds, of which the median counts.
        warm_up: rounds before them that are not measured.
        connections: numbers of closed loops.
        only: parts of the names of the rows to measure; all of them without any.
    """

    seconds: float = 4.0
    runs: int = 3
    warm_up: int = 1
    connections: tuple[int, ...] = (1, 32)
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a row of this name is measured."""
        return not self.only or any(word in name for word in self.only)


@dataclass
class Bench:
    """Everything that one run has measured.

    Attributes:
        machine: facts about it.
        results: one for each row and load.
        statuses: responses to logins with a password, by status.
        idle: percent of a core that ``nest up`` uses without calls, by process.
        idle_memory: its resident memory in MB, by process.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    idle_memory: dict[str, float] = field(default_factory=dict)

    def find(self, name: str, connections: int | None, *, rate: bool = False) -> Result | None:
        """The result of a row at this load."""
        for each in self.results:
            if each.name == name and each.connections == connections and (each.rate is not None) == rate:
                return each
        return None

    def as_json(self) -> dict[str, Any]:
        """The content of the file of results."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Bench:
        """A run from the file of its results."""
        return cls(**{**content, "results": [Result(**each) for each in content["results"]]})


class Runner:
    """Measures rows, one after the other.

    Args:
        rounds: how.
        pids: the processes whose CPU time is measured, by name.
        console: where progress is printed.
    """

    def __init__(self, rounds: Rounds, pids: Mapping[str, int], console: Console) -> None:
        self._rounds = rounds
        self._pids = pids
        self._console = console

    async def measure(self, row: Row) -> list[Result]:
        """Run the rounds of a row, for each number of connections."""
        if not self._rounds.wants(row.name):
            return []
        found = []
        for connections in self._loads(row):
            rounds, effects, cpu = [], [], []
            for number in range(self._rounds.warm_up + self._rounds.runs):
                measured, effect, used = await self._round(row, connections)
                if number >= self._rounds.warm_up:
                    rounds.append(measured)
                    cpu.append(used)
                    effects += [effect] if effect is not None else []
            found.append(self._result(row.name, row, connections, rounds, cpu))
            if row.later is not None:
                found.append(self._result(f"{row.name}: {row.later.name}", row, connections, effects, []))
        return found

    def _loads(self, row: Row) -> Sequence[int]:
        if row.rate is not None:
            return row.connections or (OPEN_LOOP_CONNECTIONS,)
        return row.connections or self._rounds.connections

    def _result(
        self, name: str, row: Row, connections: int, rounds: Sequence[Round], cpu: Sequence[Mapping[str, float]]
    ) -> Result:
        medians = Result.of(name, connections if row.rate is None else None, rounds)
        return Result(
            name=name,
            connections=medians.connections,
            per_second=medians.per_second,
            p50=medians.p50,
            p99=medians.p99,
            longest=medians.longest,
            rate=row.rate,
            cpu={process: median(used[process] for used in cpu) for process in self._pids} if cpu else {},
            memory=resident_megabytes(self._pids) if cpu else {},
        )

    async def _round(self, row: Row, connections: int) -> tuple[Round, Round | None, dict[str, float]]:
        if row.prepare is not None:
            await row.prepare(row.most_calls(connections, self._rounds.seconds))
        if row.later is not None:
            row.later.begin()
        before = cpu_seconds(self._pids)
        if row.rate is None:
            measured = await closed_loops(row.call, connections, self._rounds.seconds)
        else:
            measured = await open_loop(row.call, connections, rate=row.rate, seconds=self._rounds.seconds)
        effect = Round.of(*await row.later.end()) if row.later is not None else None
        used = cpu_of(before, cpu_seconds(self._pids), measured.count)
        load = f"{row.rate}/s" if row.rate is not None else f"{connections} connections"
        self._console.print(f"[dim]{row.name}, {load}: {measured.per_second:,.0f}/s[/dim]")
        return measured, effect, used
