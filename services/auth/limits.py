"""May this be done once more now? Asked before the deed; every deed that is done is counted.

A use is counted in the work, so it counts if and when the work commits, and once, however often the message comes. A
use that is refused is not counted and makes nobody wait longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from services.auth.errors import Throttled
from services.auth.meters import Meters, Series
from services.auth.models.limits import MERGED, NONE, PER_IP, Limit, LimitName, seconds
from services.auth.store.limits import Familiars, LimitUses
from shared.networks import is_loopback, prefix
from shared.sealed import Sealer
from shared.work import Work

THROTTLED: Final = Counter("nest_auth_throttled_total", "Uses refused by a limit.", ["limit"])
ID_LENGTH: Final = 32
"""Hex characters of a keyed hash: 128 bits."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of a limit for somebody.

    Attributes:
        wait: how long until there is room for one more use; asked again at the last moment, where counts are shared.
        count: counts one.
    """

    name: LimitName
    wait: Callable[[], timedelta]
    count: Callable[[], None]

    def judge(self) -> None:
        """Say no when there is none.

        Raises:
            Throttled: with the seconds to wait.
        """
        wait = self.wait()
        if wait > NONE:
            THROTTLED.labels(self.name).inc()
            raise Throttled(retry_after=seconds(wait))

    def take(self) -> None:
        """Count one use; once for each limit and subject in a work.

        Raises:
            Throttled: there is no room.
        """
        self.judge()
        self.count()


class Limits:
    """All limits of auth.

    Args:
        uses: when each person did what is limited for them.
        familiars: by what each is recognised.
        meters: counts what many people share.
        sealer: makes hashes of subjects.
        limits: the rules, by name.
        lift_loopback: whether limits per IP address don't hold for this machine itself.
    """

    def __init__(
        self,
        uses: LimitUses,
        familiars: Familiars,
        meters: Meters,
        sealer: Sealer,
        limits: Mapping[LimitName, Limit],
        *,
        lift_loopback: bool,
    ) -> None:
        self._uses = uses
        self._familiars = familiars
        self._meters = meters
        self._sealer = sealer
        self._limits = limits
        self._lift_loopback = lift_loopback

    async def take(self, name: LimitName, subject: str | None, work: Work, *, traits: Sequence[str] = ()) -> None:
        """Count one use.

        Args:
            name: which limit.
            subject: whose: an address or number in normal form, a user's id, a client's id; the caller's IP address
                where the limit is per prefix. None, as of a caller whose address is not known, is not limited.
            work: the message's, where the use is written.
            traits: by what the person may be recognised (``trait``). If one of them is known (``remember``), it has
                a budget of its own, which strangers can't use up.

        Raises:
            Throttled: there is no room; ``meta.retry_after`` in seconds.
        """
        (await self.room(name, subject, work, traits=traits)).take()

    async def take_all(
        self, subjects: Mapping[LimitName, str | None], work: Work, *, traits: Sequence[str] = ()
    ) -> None:
        """Count one use against each of several limits, or against none of them.

        Raises:
            Throttled: one of them has no room.
        """
        rooms = await asyncio.gather(
            *(self.room(name, subject, work, traits=traits) for name, subject in subjects.items())
        )
        for room in rooms:
            room.judge()
        for room in rooms:
            room.count()

    async def room(self, name: LimitName, subject: str | None, work: Work, *, traits: Sequence[str] = ()) -> Room:
        """What is left of a limit, where it is known only later whether the use counts: as a guess that is wrong.

        Between ``judge``, which refuses whoever has none left, and ``take`` nothing is counted. Arguments as of
        ``take``.
        """
        limit = self._limits[name]
        if name in PER_IP and subject is not None:
            subject = None if self._lift_loopback and is_loopback(subject) else prefix(subject)
        if subject is None or not limit.rules:
            return Room(name, lambda: NONE, lambda: None)
        if name in MERGED:
            return self._shared(name, await self._meters.series(self._id(name, subject), limit), work)
        return await self._own(name, limit, subject, work, traits)

    async def remember(self, subject: str, traits: Sequence[str], work: Work) -> None:
        """Know somebody by these traits from now on: they have just logged in. Writes nothing that is known already."""
        if not traits:
            return
        familiar = await self._familiars.get(self._id("familiar", subject))
        hashed = [self._id("trait", subject, trait) for trait in traits]
        if not set(hashed) <= set(familiar.traits):
            self._familiars.save(familiar.with_traits(hashed), work)

    def _shared(self, name: LimitName, series: Sequence[Series], work: Work) -> Room:
        return Room(
            name,
            lambda: self._meters.wait(series, work.id, at=work.now),
            lambda: self._meters.count(series, work.id, at=work.now),
        )

    async def _own(self, name: LimitName, limit: Limit, subject: str, work: Work, traits: Sequence[str]) -> Room:
        hashed = [self._id("trait", subject, trait) for trait in traits]
        ids = [self._id(name, subject), *(self._id(name, subject, trait) for trait in traits)]
        everybodys, *familiars = await asyncio.gather(*map(self._uses.get, ids))
        uses = everybodys
        if traits:
            known = (await self._familiars.get(self._id("familiar", subject))).traits
            uses = next((own for own, trait in zip(familiars, hashed, strict=True) if trait in known), everybodys)
        return Room(
            name,
            lambda: limit.wait(uses.times, at=work.now),
            lambda: self._uses.save(uses.one_more(limit, at=work.now), limit, work),
        )

    def _id(self, *parts: str) -> str:
        return self._sealer.fingerprint(b"limits", *(part.encode() for part in parts))[:ID_LENGTH]


def trait(kind: str, value: str | None) -> tuple[str, ...]:
    """A trait of a person, none where there is no value: ``trait("fingerprint", device.fingerprint)``."""
    return () if not value else (f"{kind}:{value}",)
