"""May this be done once more now? Asked before the deed; every deed that is done is counted.

A use is counted in the work, so it counts if and when the work commits, and once, however often the message comes. A
use that is refused is not counted and makes nobody wait longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final

from prometheus_client import Counter

from services.auth.rate_limits.models import (
    NONE,
    PREFIX_LIMITS,
    SHARED_LIMITS,
    KnownDevices,
    Limit,
    LimitName,
    UsageLog,
    seconds,
)
from services.auth.rate_limits.shared_counters import SharedCounter, SharedCounters
from services.auth.rate_limits.store import KnownDevicesStore, UsageLogs
from shared.bus.work import Work
from shared.messages.auth.errors import Throttled
from shared.messages.auth.magic_links import Device
from shared.networks import is_loopback, prefix
from shared.sealing import Sealer

THROTTLED: Final = Counter("nest_auth_throttled", "UsageLog refused by a limit.", ["limit"])
ID_LENGTH: Final = 32
"""Hex characters of a keyed hash: 128 bits."""
MOST_CACHED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of somebody's.

    Attributes:
        wait: how long until there is room for one more use; asked at the last moment, since counts are shared.
        count: counts one.
    """

    name: LimitName
    wait: Callable[[], timedelta]
    count: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of one limit or of several."""

    budgets: tuple[Bucket, ...]

    def judge(self) -> None:
        """Say no when there is none; counts nothing.

        Raises:
            Throttled: with the seconds to wait.
        """
        waits = [(budget.wait(), budget.name) for budget in self.budgets]
        wait, name = max(waits, default=(NONE, ""))
        if wait > NONE:
            THROTTLED.labels(name).inc()
            raise Throttled(retry_after=seconds(wait))

    def take(self) -> None:
        """Count one use against each limit, or against none; once in a work.

        Raises:
            Throttled: there is no room.
        """
        self.judge()
        self.count()

    def count(self) -> None:
        """Count one use against each limit, room or none."""
        for budget in self.budgets:
            budget.count()


@dataclass(frozen=True, slots=True)
class DeviceRecognition:
    """Whether somebody is known by the traits they showed."""

    familiar: KnownDevices
    traits: tuple[str, ...]
    store: KnownDevicesStore

    def remember(self, work: Work) -> None:
        """Know them by these from now on: they have logged in. Writes nothing that is known already."""
        if not set(self.traits) <= set(self.familiar.traits):
            self.store.save(self.familiar.with_traits(self.traits), work)


class RateLimiter:
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
        uses: UsageLogs,
        familiars: KnownDevicesStore,
        meters: SharedCounters,
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
        # The same few again and again, and a keyed hash costs some microseconds.
        self._shared_id = lru_cache(maxsize=MOST_CACHED)(self._id)

    async def take(self, name: LimitName, subject: str | None, work: Work, *, traits: Sequence[str] = ()) -> None:
        """Count one use.

        Args:
            name: which limit.
            subject: whose: an address or number in normal form, a user's id, a client's id; the caller's IP address
                where the limit is per prefix. None, as of a caller whose address is not known, is not limited.
            work: the message's, where the use is written.
            traits: by what the person may be recognised (``trait``). If one of them is known (``acquaintance``), it
                has a budget of its own, which strangers can't use up.

        Raises:
            Throttled: there is no room; ``meta.retry_after`` in seconds.
        """
        (await self.room({name: subject}, work, traits=traits)).take()

    async def room(self, subjects: Mapping[LimitName, str | None], work: Work, *, traits: Sequence[str] = ()) -> Quota:
        """What is left of some limits: to be taken together, or where only later is known whether a use counts.

        A guess at a code asks for room, has it judged before anything is compared, and takes it when it was wrong.

        Args:
            subjects: whose, by limit; as of ``take``.
            work: as of ``take``.
            traits: as of ``take``.
        """
        waiting: list[Awaitable[Bucket]] = []
        budgets: list[Bucket] = []
        for name, subject in subjects.items():
            whose = self._whose(name, subject)
            limit = self._limits[name]
            if whose is None or not limit.rules:
                continue
            if name not in SHARED_LIMITS:
                waiting.append(self._own(name, limit, whose, work, traits))
                continue
            series = self._meters.series(self._shared_id(name, whose), limit)
            if self._meters.stale(series):
                waiting.append(self._fresh(name, series, work))
            else:
                budgets.append(self._shared(name, series, work))
        return Quota((*budgets, *await _all(waiting)))

    async def acquaintance(self, subject: str, traits: Sequence[str]) -> DeviceRecognition:
        """Whether somebody is known, to be remembered when they have logged in.

        Args:
            subject: who, as in ``take``.
            traits: by what.
        """
        if not traits:
            return DeviceRecognition(KnownDevices(""), (), self._familiars)
        hashed = tuple(self._id("trait", subject, trait) for trait in traits)
        familiar = await self._familiars.get(self._id("familiar", subject))
        return DeviceRecognition(familiar, hashed, self._familiars)

    async def forget(self, subjects: Sequence[str], work: Work) -> None:
        """Keep nothing of somebody: neither what they did, nor by what they are recognised.

        What was counted for one of their devices alone can't be found, and goes by itself within the limit's window.

        Args:
            subjects: who, as in ``take``.
            work: the message's.
        """
        own = [name for name in self._limits if name not in SHARED_LIMITS]
        uses = [self._uses.get(self._id(name, subject)) for name in own for subject in subjects]
        familiars = [self._familiars.get(self._id("familiar", subject)) for subject in subjects]
        for used in await asyncio.gather(*uses):
            if used.version:
                self._uses.forget(used, work)
        for familiar in await asyncio.gather(*familiars):
            if familiar.version:
                self._familiars.forget(familiar, work)

    def _whose(self, name: LimitName, subject: str | None) -> str | None:
        """The subject as it is counted; None where there is no limit."""
        if name not in PREFIX_LIMITS or subject is None:
            return subject
        return None if self._lift_loopback and is_loopback(subject) else prefix(subject)

    def _shared(self, name: LimitName, series: Sequence[SharedCounter], work: Work) -> Bucket:
        return Bucket(
            name,
            lambda: self._meters.wait(series, work.id, at=work.now),
            lambda: self._meters.count(series, work.id, at=work.now),
        )

    async def _fresh(self, name: LimitName, series: Sequence[SharedCounter], work: Work) -> Bucket:
        await self._meters.sync(series)
        return self._shared(name, series, work)

    async def _own(self, name: LimitName, limit: Limit, subject: str, work: Work, traits: Sequence[str]) -> Bucket:
        everybodys = self._uses.get(self._id(name, subject))
        uses = await (self._recognised(name, subject, traits, everybodys) if traits else everybodys)
        return Bucket(
            name,
            lambda: limit.wait(uses.times, at=work.now),
            lambda: self._uses.save(uses.with_use(limit, at=work.now), limit, work),
        )

    async def _recognised(
        self, name: LimitName, subject: str, traits: Sequence[str], everybodys: Awaitable[UsageLog]
    ) -> UsageLog:
        """The uses by the first trait that is known; everybody's where none is."""
        own_uses = (self._uses.get(self._id(name, subject, trait)) for trait in traits)
        acquaintance, (uses, *own) = await asyncio.gather(
            self.acquaintance(subject, traits), asyncio.gather(everybodys, *own_uses)
        )
        known = acquaintance.familiar.traits
        return next((each for each, trait in zip(own, acquaintance.traits, strict=True) if trait in known), uses)

    def _id(self, *parts: str) -> str:
        return self._sealer.fingerprint(b"limits", *(part.encode() for part in parts))[:ID_LENGTH]


async def _all(waiting: Sequence[Awaitable[Bucket]]) -> Sequence[Bucket]:
    """Wait for all of them; a task each is worth its price only where there are several."""
    return [await each for each in waiting] if len(waiting) < 2 else await asyncio.gather(*waiting)  # noqa: PLR2004


def trait(kind: str, value: str | None) -> tuple[str, ...]:
    """A trait of a person, none where there is no value: ``trait("network", prefix(ip))``."""
    return (f"{kind}:{value}",) if value else ()


def device_ids(device: Device | None) -> tuple[str, ...]:
    """By what a device is recognised that a request names."""
    if device is None:
        return ()
    return trait("fingerprint", device.fingerprint) + trait("beak-id", device.beak_id)


def network_ids(ip: str | None) -> tuple[str, ...]:
    """By what somebody is recognised whose request names no device: where they are."""
    return trait("network", ip and prefix(ip))
