"""Findings of `nest doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
    """A line of the report: an area such as ``kafka`` (empty for that of the check), its state, and the remedy."""

    level: Level
    area: str
    says: str
    do: str = ""
    embedded: str = ""
    """For a warning about what is as it should be on a developer's machine: the sentence that replaces it there."""

    def on_a_developers_machine(self) -> Finding:
        """Return the finding of the embedded mode."""
        return Finding(Level.OK, self.area, self.embedded) if self.embedded else self

    def output(self) -> dict[str, str]:
        """Return the fields of the JSON output."""
        return {name: value for name, value in asdict(self).items() if name != "embedded"}


def ok(says: str, *, area: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(Level.OK, area, says)


def skipped(says: str, do: str, *, area: str = "") -> Finding:
    """Return the finding that something was not checked: what, and why; and how to have it checked."""
    return Finding(Level.SKIPPED, area, says, do)


def warning(says: str, do: str, *, area: str = "", embedded: str = "") -> Finding:
    """Return a finding that works but needs attention, except that the embedded mode is meant to be so."""
    return Finding(Level.WARNING, area, says, do, embedded)


def problem(says: str, do: str, *, area: str = "") -> Finding:
    """Return a finding that does not work."""
    return Finding(Level.PROBLEM, area, says, do)
