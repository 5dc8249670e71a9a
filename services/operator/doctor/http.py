"""What does a server say over HTTP, what time does it have, and until when is its certificate good?"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from services.operator.doctor.findings import Finding, ok, problem, warning

SECONDS: Final = 10.0
OK: Final = 200
CLOCK_WARNING: Final = 2.0
"""Seconds; a token's or a code's time is judged to the second."""
CLOCK_PROBLEM: Final = 10.0
CERTIFICATE_DAYS: Final = 14
"""Who renews by itself does so weeks before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP's.
        said: the JSON object in the body; empty where it is none.
        offset: seconds that the server's clock is ahead of ours; None where it says no time.
        certificate: until when its certificate is good; None without one.
    """

    status: int
    said: Mapping[str, Any]
    offset: float | None
    certificate: datetime | None


async def asked(url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """What a server answers to a GET.

    Raises:
        aiohttp.ClientError: it can't be reached.
        TimeoutError: it does not answer within 10 s.
    """
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        began = time.time()
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            took = time.time() - began
            # Asked while the connection is there.
            until = expiry(answer.connection and answer.connection.transport)
            try:
                said = await answer.json(content_type=None)
            except ValueError:
                said = None
            return Answer(
                answer.status,
                said if isinstance(said, dict) else {},
                _offset(answer.headers.get("date"), began, took),
                until,
            )


def expiry(transport: Any) -> datetime | None:
    """Until when the certificate at the other end of a connection is good; None without TLS."""
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def certificate(area: str, whose: str, until: datetime | None) -> list[Finding]:
    """A warning for a certificate that will soon be good no more."""
    if until is None:
        return []
    left = until - datetime.now(UTC)
    if left.days >= CERTIFICATE_DAYS:
        return []
    says = f"the certificate of {whose} ends on {until:%Y-%m-%d %H:%M} UTC"
    return [warning(area, says, "renew it, and see why that did not happen by itself")]


def clock(whose: str, offset: float) -> Finding:
    """How far somebody's clock is from ours, in seconds."""
    if abs(offset) < CLOCK_WARNING:
        return ok("clock", f"{whose} agrees with this machine's")
    says = f"{whose} is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    if abs(offset) >= CLOCK_PROBLEM:
        return problem("clock", says, "run NTP on both: codes and tokens are refused, or live too long")
    return warning("clock", says, "run NTP on both")


def _offset(date: str | None, began: float, took: float) -> float | None:
    """How far ahead a server is that said a time, cut to the second, at some moment of a call."""
    if date is None:
        return None
    try:
        told = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    # Within these bounds it may be right to the millisecond.
    if told + 1 < began:
        return told + 1 - began
    return max(0.0, told - (began + took))
