"""Findings of `nest doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
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


def warning(says: str, do: str, *, area: str = "") -> Finding:
    """Return a finding that works but needs attention."""
    return Finding(Level.WARNING, area, says, do)


def problem(says: str, do: str, *, area: str = "") -> Finding:
    """Return a finding that does not work."""
    return Finding(Level.PROBLEM, area, says, do)
