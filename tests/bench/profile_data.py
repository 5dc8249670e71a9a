"""Results of profiles, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import Round
from tests.bench.stacks import Shares
from tests.bench.waterfall import Step

DIGITS: Final = 5
"""Digits after the point in the file."""


@dataclass(frozen=True)
class Load:
    """What a call causes at some number of connections; all figures are for each call.

    Attributes:
        cpu: milliseconds of CPU time, by process.
        mongo: commands of MongoDB by name, and bytes.
        kafka: bytes in the segments, by topic.
        commits: messages in a commit, by service.
    """

    connections: int
    round: Round
    cpu: dict[str, float]
    mongo: dict[str, float]
    kafka: dict[str, float]
    commits: dict[str, float]


@dataclass
class Profile:
    """The profile of one job.

    Attributes:
        row: its row in the benchmark.
        steps: the waterfall of the median of some traced requests.
        requests: Kafka requests of one call alone, by client and kind: their number, and the milliseconds that one
            takes in the broker, where a fetch waits for records.
        requests_together: their number at many connections.
        alone: one connection.
        together: many connections.
        stacks: CPU time by package and function, by process, at many connections.
    """

    job: str
    row: str
    steps: list[Step] = field(default_factory=list)
    requests: dict[str, tuple[float, float]] = field(default_factory=dict)
    requests_together: dict[str, float] = field(default_factory=dict)
    alone: Load | None = None
    together: Load | None = None
    stacks: dict[str, Shares] = field(default_factory=dict)


def write(file: Path, profiles: Sequence[Profile]) -> None:
    """Write profiles to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rounded([asdict(profile) for profile in profiles]), indent=1) + "\n")


def read(file: Path) -> list[Profile]:
    """Read profiles from a file."""
    return [_profile(content) for content in json.loads(file.read_text())]


def rounded(value: Any) -> Any:
    """A JSON value with all of its numbers rounded."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def _profile(content: dict[str, Any]) -> Profile:
    loads = {name: _load(content.pop(name)) for name in ("alone", "together")}
    steps = [Step(**step) for step in content.pop("steps")]
    found = {process: Shares(**shares) for process, shares in content.pop("stacks").items()}
    requests = {name: (count, milliseconds) for name, (count, milliseconds) in content.pop("requests").items()}
    return Profile(**content, **loads, steps=steps, stacks=found, requests=requests)


def _load(content: dict[str, Any] | None) -> Load | None:
    return None if content is None else Load(**{**content, "round": Round(**content["round"])})
