"""How do the operators' verbs find the Nest of a data folder? By a note that it leaves there when it starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

_NOTE = "operator.json"


@dataclass(frozen=True)
class WayIn:
    """Where a Nest's API is, and what opens it."""

    url: str
    internal_key: str
    environment: dict[str, str] = field(default_factory=dict)
    """What its services are told, secrets too: for whoever looks at what it runs on."""


def leave_way_in(folder: Path, found: WayIn) -> None:
    """Leaves the note, readable by its owner alone."""
    half = folder / f"{_NOTE}.new"
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(asdict(found), out)
    half.replace(folder / _NOTE)


def way_in(folder: Path) -> WayIn | None:
    """What the note of this folder says; None where there is none."""
    note = folder / _NOTE
    return WayIn(**json.loads(note.read_text())) if note.exists() else None
