"""Rate-limit rules over sliding windows, and the stored use logs and known devices of a subject."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import ClassVar, Final, Literal, Self, TypeAlias, get_args

from shared.documents import stored_as

PersonLimitName: TypeAlias = Literal[
    "magic-links-per-address",
    "trials-per-address",
    "guesses-per-identifier",
    "typed-codes-per-address",
    "texts-per-number",
    "passwords-per-user",
]
"""Limits of one person. They are exact, whatever the number of instances."""
SharedLimitName: TypeAlias = Literal[
    "magic-links-per-prefix",
    "magic-links-per-client",
    "trials-per-prefix",
    "trials-per-deployment",
    "wrong-keys-per-prefix",
    "texts-per-prefix",
    "texts-per-country",
    "texts-per-deployment",
    "passwords-per-prefix",
    "refusals-per-prefix",
]
"""Limits whose count many people share. Each instance counts by itself; the counts are merged within a second."""
LimitName: TypeAlias = PersonLimitName | SharedLimitName
LIMIT_NAMES: Final[tuple[LimitName, ...]] = (*get_args(PersonLimitName), *get_args(SharedLimitName))
SHARED_LIMITS: Final[frozenset[str]] = frozenset(get_args(SharedLimitName))
PREFIX_LIMITS: Final = frozenset(name for name in SHARED_LIMITS if name.endswith("-per-prefix"))
"""Limits whose subject is a client's IP address; they count by its prefix."""

SLOTS_PER_WINDOW: Final = 12
"""A shared window is divided into this many slots; a slot stores only the number of its uses."""
MAX_LOGGED_USES: Final = 1_000
"""Upper bound for the count of a person's limit: its uses are all stored in one document."""
MAX_WINDOW: Final = timedelta(days=31)
ZERO: Final = timedelta(0)
_UNITS: Final = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_RULE: Final = re.compile(r"\s*([1-9]\d{0,8})\s*/\s*([1-9]\d{0,6})\s*([smhd])\s*")


@dataclass(frozen=True, slots=True)
class Rule:
    """At most ``count`` uses within any period of the length ``window``."""

    count: int
    window: timedelta

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``5/1h``: a count, a slash, and a whole number of ``s``, ``m``, ``h`` or ``d``.

        Raises:
            ValueError: another format, or a window of more than 31 days.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError("write rules such as 1/1m, 5/1h, 10/1d: a count, a slash, and a window in s, m, h or d")
        count, number, unit = match.groups()
        window = int(number) * _UNITS[unit]
        if window > MAX_WINDOW:
            raise ValueError(f"a window can't be longer than {MAX_WINDOW.days}d")
        return cls(int(count), window)

    def __str__(self) -> str:
        unit, length = next((unit, length) for unit, length in reversed(_UNITS.items()) if not self.window % length)
        return f"{self.count}/{self.window // length}{unit}"

    def wait(self, uses: Sequence[datetime], *, at: datetime) -> timedelta:
        """Time until the rule allows one more use; zero if it allows one now.

        ``uses`` are the times of the latest uses, oldest first; at least ``count`` of them if there were that many.
        """
        if len(uses) < self.count:
            return ZERO
        return max(ZERO, uses[-self.count] + self.window - at)

    def slot(self, at: datetime) -> int:
        """Number of the slot that contains this time."""
        return int(at.timestamp() / self._slot_seconds)

    def slot_expires_at(self, slot: int) -> float:
        """Time in Unix seconds from which the uses of a slot no longer count.

        Uses at the beginning of a slot count for up to a twelfth of the window longer than the window.
        """
        return (slot + 1) * self._slot_seconds + self.window.total_seconds()

    def wait_by_slots(self, counts: Mapping[int, int], *, at: datetime) -> timedelta:
        """Like ``wait``, computed from the number of uses in each slot."""
        if not counts:
            return ZERO
        now = at.timestamp()
        live = {slot: count for slot, count in counts.items() if self.slot_expires_at(slot) > now}
        remaining = sum(live.values())
        if remaining < self.count:
            return ZERO
        for slot in sorted(live):
            remaining -= live[slot]
            if remaining < self.count:
                break
        return timedelta(seconds=self.slot_expires_at(slot) - now)

    @property
    def _slot_seconds(self) -> float:
        return self.window.total_seconds() / SLOTS_PER_WINDOW


@dataclass(frozen=True, slots=True)
class Limit:
    """Rules that apply together; without rules there is no limit."""

    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``1/1m, 5/1h, 10/1d``, or ``none``.

        Raises:
            ValueError: a rule has another format, or two rules have the same window.
        """
        if text.strip().lower() == "none":
            return cls(())
        rules = tuple(map(Rule.parse, text.split(",")))
        if len({rule.window for rule in rules}) < len(rules):
            raise ValueError("give each window only one count")
        return cls(rules)

    def __str__(self) -> str:
        return ", ".join(map(str, self.rules)) or "none"

    @property
    def max_count(self) -> int:
        """Number of latest uses that the rules need; 0 without rules."""
        return max((rule.count for rule in self.rules), default=0)

    @property
    def longest_window(self) -> timedelta:
        """How long a use counts; zero without rules."""
        return max((rule.window for rule in self.rules), default=ZERO)

    def wait(self, uses: Sequence[datetime], *, at: datetime) -> timedelta:
        """Time until every rule allows one more use after the ``max_count`` latest ones; zero if all allow one now."""
        return max((rule.wait(uses, at=at) for rule in self.rules), default=ZERO)


@dataclass(frozen=True, slots=True)
class UseLog:
    """Times at which a subject used a limited operation.

    Attributes:
        id: keyed hash of the limit's name and the subject.
        times: uses that still count, oldest first.
        version: 0 before the log is stored.
    """

    id: str
    times: tuple[datetime, ...] = ()
    version: int = 0

    def with_use(self, limit: Limit, *, at: datetime) -> Self:
        """Add a use, and drop the uses that no longer count.

        The times are sorted, since the clocks of two instances may differ.
        """
        counting = [time for time in self.times if time > at - limit.longest_window]
        return replace(self, times=tuple(sorted([*counting, at])[-limit.max_count :]))


@dataclass(frozen=True, slots=True)
class KnownDevices:
    """Devices and networks from which a subject has logged in.

    Attributes:
        id: keyed hash of the subject.
        hashes: keyed hashes of device IDs, the latest last.
        version: 0 before the document is stored.
    """

    MAX_HASHES: ClassVar = 20

    id: str
    hashes: tuple[str, ...] = stored_as("traits", default=())
    version: int = 0

    def with_hashes(self, hashes: Sequence[str]) -> Self:
        """Add hashes; above ``MAX_HASHES`` the oldest are dropped."""
        others = [known for known in self.hashes if known not in hashes]
        return replace(self, hashes=(*others, *hashes)[-self.MAX_HASHES :])


def retry_after_seconds(wait: timedelta) -> int:
    """Value of ``Retry-After``: whole seconds, rounded up, so that a call after that time is not refused again."""
    return max(1, ceil(wait.total_seconds()))
