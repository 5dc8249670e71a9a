"""What does a look at one thing find? Lines for a person: how it is, and what to do. No look hides another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

CHECK_SECONDS: Final = 20.0
"""How long one look may take."""


class Level(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        level: how it is.
        area: what was looked at: ``kafka``, ``mail records``, …
        says: what was found.
        do: what to do about it; empty where all is well.
    """

    level: Level
    area: str
    says: str
    do: str = ""

    def fields(self) -> dict[str, Any]:
        """It, for JSON."""
        return asdict(self)


def ok(area: str, says: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, area, says)


def warning(area: str, says: str, do: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(Level.WARNING, area, says, do)


def problem(area: str, says: str, do: str) -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, area, says, do)


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one thing.

    Attributes:
        area: names it, should it fail itself.
        look: finds.
    """

    area: str
    look: Callable[[], AsyncIterator[Finding]]


async def found(
    checks: Sequence[Check], *, within: float = CHECK_SECONDS, tell: Callable[[Sequence[str]], None] | None = None
) -> list[Finding]:
    """What all looks find, side by side, in the order of the checks.

    Args:
        checks: the looks.
        within: seconds for each at most.
        tell: is told at the beginning, and after each, which looks are not over.
    """
    under_way = [check.area for check in checks]

    async def watched(check: Check) -> list[Finding]:
        findings = await _found_by(check, within)
        under_way.remove(check.area)
        if tell:
            tell(under_way)
        return findings

    if tell:
        tell(under_way)
    by_check = await asyncio.gather(*map(watched, checks))
    return [finding for findings in by_check for finding in findings]


async def _found_by(check: Check, within: float) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(within):
            async for finding in check.look():
                findings.append(finding)  # noqa: PERF401 -- what was found before a failure stays
    except TimeoutError:
        findings.append(problem(check.area, f"no answer within {within:g} s", "see that it runs and can be reached"))
    except Exception as failure:  # noqa: BLE001 -- whatever it is, the other looks go on, and the person is told
        said = f"{type(failure).__name__}: {failure}".splitlines()[0]
        findings.append(problem(check.area, f"could not be looked at: {said[:300]}", "see that it runs, and why not"))
    return findings
