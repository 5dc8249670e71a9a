"""Rate limiting: exact sliding windows per person, shared counters per network and per app.

A handler checks a limit before the operation and counts the operation in its work. The count therefore commits with the
work, and once for each message, however often the message is delivered. A refused operation is not counted, so it does
not lengthen the wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from prometheus_client import Counter

from services.auth.rate_limits.known_devices import DeviceRecognition
from services.auth.rate_limits.models import (
    LIMIT_NAMES,
    PREFIX_LIMITS,
    SHARED_LIMITS,
    ZERO,
    KnownDevices,
    Limit,
    LimitName,
    UseLog,
    retry_after_seconds,
)
from services.auth.rate_limits.shared_counters import SharedCounter, SharedCounters
from services.auth.rate_limits.store import KnownDevicesStore, UseLogs
from shared.bus.work import Work
from shared.messages.auth.errors import Throttled
from shared.networks import is_loopback, prefix
from shared.sealing import Sealer

THROTTLED: Final = Counter("nest_auth_throttled", "Operations refused by a rate limit.", ["limit"])
for _name in LIMIT_NAMES:
    # Without a first value of zero Prometheus can't see the increase to one, which an alarm needs.
    THROTTLED.labels(_name)
ID_LENGTH: Final = 32
"""Hex characters of a keyed hash: 128 bits."""
MAX_CACHED_IDS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Bucket:
    """The uses of one subject under one limit.

    Attributes:
        wait: returns the time until one more use is allowed. Called as late as possible, since counts are shared.
        count: counts one use.
        hold: makes the handler run again if another message counts a use before the commit.
    """

    name: LimitName
    wait: Callable[[], timedelta]
    count: Callable[[], None]
    hold: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Quota:
    """What remains of one or more limits."""

    buckets: tuple[Bucket, ...]

    def require(self) -> None:
        """Check that every limit allows one more use, without counting one.

        Raises:
            Throttled: a limit is reached; ``meta.retry_after`` in seconds.
        """
        waits = [(bucket.wait(), bucket.name) for bucket in self.buckets]
        wait, name = max(waits, default=(ZERO, ""))
        if wait > ZERO:
            THROTTLED.labels(name).inc()
            raise Throttled(retry_after=retry_after_seconds(wait))

    def count(self) -> None:
        """Count one use under each limit, even one that is reached."""
        for bucket in self.buckets:
            bucket.count()

    def hold(self) -> None:
        """Make the handler run again if another message counts a use of a person before the commit.

        For an operation that was allowed and is not counted, such as a login with the right password. Without it, of
        many guesses that are handled at the same time the right one would be accepted however many wrong ones commit
        first. Not together with ``count`` or ``take``, whose writes have the same effect.
        """
        for bucket in self.buckets:
            bucket.hold()

    def take(self) -> None:
        """Count one use under each limit, or under none; call it once per work.

        Raises:
            Throttled: a limit is reached; ``meta.retry_after`` in seconds.
        """
        self.require()
        self.count()


@dataclass(frozen=True, slots=True)
class Usage:
    """The present uses of one subject under one limit.

    Attributes:
        used: number of uses under each rule.
        wait: time until one more use is allowed; zero if it is allowed now.
    """

    used: tuple[int, ...]
    wait: timedelta


class RateLimiter:
    """All rate limits of auth. With ``lift_loopback``, limits per IP prefix ignore callers on this machine."""

    def __init__(
        self,
        use_logs: UseLogs,
        known_devices: KnownDevicesStore,
        shared_counters: SharedCounters,
        sealer: Sealer,
        limits: Mapping[LimitName, Limit],
        *,
        lift_loopback: bool,
    ) -> None:
        self._use_logs = use_logs
        self._known_devices = known_devices
        self._shared_counters = shared_counters
        self._sealer = sealer
        self.limits = limits
        self.lift_loopback = lift_loopback
        # Few subjects repeat often, and a keyed hash takes some microseconds.
        self._shared_id = lru_cache(maxsize=MAX_CACHED_IDS)(self._id)

    async def quota(
        self, subjects: Mapping[LimitName, str | None], work: Work, *, device_ids: Sequence[str] = ()
    ) -> Quota:
        """What remains of some limits.

        Args:
            subjects: by limit name: an address or number in normal form, a user's or client's ID, a country, or the
                caller's IP address for limits per prefix. None, for an unknown IP address, is not limited.
            work: work in which the use is counted.
            device_ids: device IDs of the request. If one of them is known for the subject, that device has its own
                quota, separate from everybody else's.
        """
        reading: list[Awaitable[Bucket]] = []
        buckets: list[Bucket] = []
        for name, subject in subjects.items():
            counted = self._counted_subject(name, subject)
            limit = self.limits[name]
            if counted is None or not limit.rules:
                continue
            if name not in SHARED_LIMITS:
                reading.append(self._person_bucket(name, limit, counted, work, device_ids))
                continue
            counters = self._shared_counters.of_subject(self._shared_id(name, counted), limit)
            if self._shared_counters.stale(counters):
                reading.append(self._synced_bucket(name, counters, work))
            else:
                buckets.append(self._shared_bucket(name, counters, work))
        return Quota((*buckets, *await _all(reading)))

    async def usage(self, name: LimitName, subject: str, *, at: datetime) -> Usage:
        """Read the present uses of a subject under a limit, without those of its known devices."""
        limit, counted = self.limits[name], self._counted_subject(name, subject)
        if counted is None:
            return Usage((0,) * len(limit.rules), ZERO)
        if name in SHARED_LIMITS:
            counters = self._shared_counters.of_subject(self._shared_id(name, counted), limit)
            await self._shared_counters.sync(counters)
            return Usage(
                tuple(each.used(at) for each in counters), max((each.wait(at) for each in counters), default=ZERO)
            )
        times = (await self._use_logs.get(self._id(name, counted))).times
        return Usage(
            tuple(sum(time > at - rule.window for time in times) for rule in limit.rules), limit.wait(times, at=at)
        )

    async def recognize(self, subject: str, device_ids: Sequence[str]) -> DeviceRecognition:
        """Compare the device IDs of a request with the known devices of a subject."""
        if not device_ids:
            return DeviceRecognition(KnownDevices(""), (), self._known_devices)
        hashes = tuple(self._id("trait", subject, device_id) for device_id in device_ids)
        known = await self._known_devices.get(self._id("familiar", subject))
        return DeviceRecognition(known, hashes, self._known_devices)

    async def erase(self, subjects: Sequence[str], work: Work) -> None:
        """Delete the use logs and known devices of subjects.

        The logs of single known devices can't be found by subject. They expire with the limit's window.
        """
        person_limits = [name for name in self.limits if name not in SHARED_LIMITS]
        logs = [self._use_logs.get(self._id(name, subject)) for name in person_limits for subject in subjects]
        devices = [self._known_devices.get(self._id("familiar", subject)) for subject in subjects]
        for log in await asyncio.gather(*logs):
            if log.version:
                self._use_logs.remove(log, work)
        for known in await asyncio.gather(*devices):
            if known.version:
                self._known_devices.remove(known, work)

    def _counted_subject(self, name: LimitName, subject: str | None) -> str | None:
        """The subject by which uses are counted; None where no limit applies."""
        if name not in PREFIX_LIMITS or subject is None:
            return subject
        return None if self.lift_loopback and is_loopback(subject) else prefix(subject)

    def _shared_bucket(self, name: LimitName, counters: Sequence[SharedCounter], work: Work) -> Bucket:
        return Bucket(
            name,
            lambda: self._shared_counters.wait(counters, work.id, at=work.now),
            lambda: self._shared_counters.count(counters, work.id, at=work.now),
            # Merged counts are never exact.
            lambda: None,
        )

    async def _synced_bucket(self, name: LimitName, counters: Sequence[SharedCounter], work: Work) -> Bucket:
        await self._shared_counters.sync(counters)
        return self._shared_bucket(name, counters, work)

    async def _person_bucket(
        self, name: LimitName, limit: Limit, subject: str, work: Work, device_ids: Sequence[str]
    ) -> Bucket:
        common_log = self._use_logs.get(self._id(name, subject))
        log = await (self._device_log(name, subject, device_ids, common_log) if device_ids else common_log)
        return Bucket(
            name,
            lambda: limit.wait(log.times, at=work.now),
            lambda: self._use_logs.put(log.with_use(limit, at=work.now), limit, work),
            lambda: self._use_logs.hold(log, limit, work),
        )

    async def _device_log(
        self, name: LimitName, subject: str, device_ids: Sequence[str], common_log: Awaitable[UseLog]
    ) -> UseLog:
        """The log of the first known device; the common log of the subject if no device is known."""
        reading_logs = (self._use_logs.get(self._id(name, subject, device_id)) for device_id in device_ids)
        recognition, (common, *logs) = await asyncio.gather(
            self.recognize(subject, device_ids), asyncio.gather(common_log, *reading_logs)
        )
        known = recognition.known.hashes
        return next((log for log, hashed in zip(logs, recognition.hashes, strict=True) if hashed in known), common)

    def _id(self, *parts: str) -> str:
        return self._sealer.fingerprint(b"limits", *(part.encode() for part in parts))[:ID_LENGTH]


async def _all(reading: Sequence[Awaitable[Bucket]]) -> Sequence[Bucket]:
    # Tasks only pay off for two or more.
    return [await each for each in reading] if len(reading) < 2 else await asyncio.gather(*reading)  # noqa: PLR2004
