"""Findings of `nest doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    SKIPPED = "skipped"
    """Not checked, because this environment does not allow it."""
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report: an area such as ``kafka`` (empty for that of the check), its state, and the remedy.

    The field names are those of the JSON output.
    """

    level: Level
    area: str
    says: str
    do: str = ""


def ok(says: str, *, area: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(Level.OK, area, says)


def skipped(says: str, do: str, *, area: str = "") -> Finding:
    """Return the finding that something was not checked: what, and why; and how to have it checked."""
    return Finding(Level.SKIPPED, area, says, do)


def warning(says: str, do: str, *, area: str = "") -> Finding:
    """Return a finding that works but needs attention."""
    return Finding(Level.WARNING, area, says, do)


def problem(says: str, do: str, *, area: str = "") -> Finding:
    """Return a finding that does not work."""
    return Finding(Level.PROBLEM, area, says, do)
