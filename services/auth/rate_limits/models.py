"""How often may something be done? Rules such as five an hour, each over a window that slides with the clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import ClassVar, Final, Literal, Self, TypeAlias, get_args

PersonLimitName: TypeAlias = Literal[
    "magic-links-per-address",
    "trials-per-address",
    "guesses-per-identifier",
    "texts-per-number",
    "passwords-per-user",
]
"""Limits of one person's: no use too many, whatever the number of instances."""
SharedLimitName: TypeAlias = Literal[
    "magic-links-per-prefix", "magic-links-per-client", "wrong-keys-per-prefix", "texts-per-prefix"
]
"""Limits whose count many people share: counted by each instance, and merged within a second."""
LimitName: TypeAlias = PersonLimitName | SharedLimitName
SHARED_LIMITS: Final[frozenset[str]] = frozenset(get_args(SharedLimitName))
PREFIX_LIMITS: Final = frozenset(name for name in SHARED_LIMITS if name.endswith("-per-prefix"))
"""Limits whose subject is a client's IP address; counted by its prefix."""

SLOTS: Final = 12
"""Into so many parts a merged window is cut: uses in one part are counted, not remembered one by one."""
MAX_LOGGED_USES: Final = 1_000
"""UsageLog that a person's limit may ask to remember: they are all in one document."""
LONGEST: Final = timedelta(days=31)
_UNITS: Final = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_RULE: Final = re.compile(r"\s*([1-9]\d{0,8})\s*/\s*([1-9]\d{0,6})\s*([smhd])\s*")
NONE: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Rule:
    """So many uses within any stretch of time that is so long."""

    count: int
    within: timedelta

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``5/1h``: a count, a slash, and a whole number of ``s``, ``m``, ``h`` or ``d``.

        Raises:
            ValueError: another form, or more than 31 days.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError("write it as 1/1m, 5/1h, 10/1d: how many, a slash, and within what (s, m, h or d)")
        count, number, unit = match.groups()
        within = int(number) * _UNITS[unit]
        if within > LONGEST:
            raise ValueError(f"nothing is counted for longer than {LONGEST.days}d")
        return cls(int(count), within)

    def __str__(self) -> str:
        """As it is written."""
        unit, length = next((unit, length) for unit, length in reversed(_UNITS.items()) if not self.within % length)
        return f"{self.count}/{self.within // length}{unit}"

    def wait(self, uses: Sequence[datetime], *, at: datetime) -> timedelta:
        """How long until there is room for one more use; nothing when there is.

        Args:
            uses: the times of the latest ones, oldest first; at least ``count`` of them if there were so many.
            at: now.
        """
        if len(uses) < self.count:
            return NONE
        return max(NONE, uses[-self.count] + self.within - at)

    def grain(self, at: datetime) -> int:
        """The number of the part of time that a moment is in."""
        return int(at.timestamp() / self._width)

    def grain_ends(self, grain: int) -> float:
        """When the uses of a part of time count no longer, in Unix seconds.

        Those at its beginning are kept too long, by a twelfth of the window at most.
        """
        return (grain + 1) * self._width + self.within.total_seconds()

    def wait_of_slots(self, counts: Mapping[int, int], *, at: datetime) -> timedelta:
        """As ``wait``, from the number of uses in each part of time."""
        if len(counts) == 0:
            return NONE
        now = at.timestamp()
        live = {grain: count for grain, count in counts.items() if self.grain_ends(grain) > now}
        left = sum(live.values())
        if left < self.count:
            return NONE
        for grain in sorted(live):
            left -= live[grain]
            if left < self.count:
                break
        return timedelta(seconds=self.grain_ends(grain) - now)

    @property
    def _width(self) -> float:
        return self.within.total_seconds() / SLOTS


@dataclass(frozen=True, slots=True)
class Limit:
    """Some rules that hold at once; none: no limit."""

    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1/1m, 5/1h, 10/1d``, or ``none``.

        Raises:
            ValueError: a rule is written otherwise, or two have the same window.
        """
        if text.strip().lower() == "none":
            return cls(())
        rules = tuple(map(Rule.parse, text.split(",")))
        if len({rule.within for rule in rules}) < len(rules):
            raise ValueError("say for each stretch of time once how many")
        return cls(rules)

    def __str__(self) -> str:
        """As it is written."""
        return ", ".join(map(str, self.rules)) or "none"

    @property
    def most(self) -> int:
        """How many of the latest uses decide."""
        return max((rule.count for rule in self.rules), default=0)

    @property
    def longest(self) -> timedelta:
        """How long a use decides anything."""
        return max((rule.within for rule in self.rules), default=NONE)

    def wait(self, uses: Sequence[datetime], *, at: datetime) -> timedelta:
        """How long until every rule has room for one more use; nothing when they have.

        Args:
            uses: the times of the ``most`` latest ones, oldest first.
            at: now.
        """
        return max((rule.wait(uses, at=at) for rule in self.rules), default=NONE)


@dataclass(frozen=True, slots=True)
class UsageLog:
    """When somebody last did something that is limited.

    Attributes:
        id: tells what and who, to whoever holds the sealing key.
        times: of the uses that may still decide, oldest first.
        version: 0 before it was ever stored.
    """

    id: str
    times: tuple[datetime, ...] = ()
    version: int = 0

    def with_use(self, limit: Limit, *, at: datetime) -> Self:
        """The same with a use now, without those that decide nothing any more.

        Sorted, since the clocks of two instances may differ.
        """
        recent = [time for time in self.times if time > at - limit.longest]
        return type(self)(self.id, tuple(sorted([*recent, at])[-limit.most :]), self.version)


@dataclass(frozen=True, slots=True)
class KnownDevices:
    """By what a person is recognised who has logged in before: devices, networks.

    Attributes:
        id: tells who, to whoever holds the sealing key.
        traits: hashes, the latest last.
        version: 0 before it was ever stored.
    """

    MOST: ClassVar = 20

    id: str
    traits: tuple[str, ...] = ()
    version: int = 0

    def with_traits(self, traits: Sequence[str]) -> Self:
        """The same that knows these too; beyond the bound the oldest are forgotten."""
        return type(self)(
            self.id, (*(known for known in self.traits if known not in traits), *traits)[-self.MOST :], self.version
        )


def seconds(wait: timedelta) -> int:
    """What ``retry-after`` says: whole seconds, rounded up, so that whoever waits so long has waited enough."""
    return max(1, ceil(wait.total_seconds()))
