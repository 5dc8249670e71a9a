"""Which version of an app comes before which? As Semantic Versioning says (https://semver.org, section 11)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

PARTS: Final = 4
"""Some apps count one more than semver does."""
Order = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]


@lru_cache(maxsize=4096)
def order(version: str) -> Order:
    """What versions are compared by: ``2.9`` < ``2.10-beta.2`` < ``2.10-beta.11`` < ``2.10``, which equals ``2.10.0``.

    What follows a ``+`` names a build, and says nothing of the order.
    """
    release, _, before = version.partition("+")[0].partition("-")
    numbers = tuple(map(int, release.split(".")))
    # Whatever leads to a release comes before it; numbers in it come before words.
    steps = tuple((0, int(step), "") if step.isdecimal() else (1, 0, step) for step in before.split("."))
    return numbers + (0,) * (PARTS - len(numbers)), 0 if before else 1, steps
