"""HTTP requests of the checks, and the checks of the gateway, clocks and certificates."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from services.operator.doctor.findings import Finding, ok, problem, skipped, warning

TIMEOUT_SECONDS: Final = 10.0
OK: Final = 200
UNAVAILABLE: Final = 503
CLOCK_WARNING: Final = 2.0
"""Seconds; tokens and codes expire to the second."""
CLOCK_PROBLEM: Final = 10.0
UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError)
CERTIFICATE_DAYS: Final = 14
"""Automatic renewal happens weeks before the end."""


@dataclass(frozen=True, slots=True)
class Response:
    """Response of a server."""

    status: int
    body: Mapping[str, Any]
    """The JSON object; empty if the body is none."""
    clock_offset: float | None
    """Seconds by which the server's clock is ahead of ours; None without a date."""
    expiry: datetime | None
    """End of the certificate; None without TLS."""


async def get(url: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Send a GET request.

    Raises:
        aiohttp.ClientError: the server cannot be reached.
        TimeoutError: it does not respond within 10 s.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        started = time.time()
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            ended = time.time()
            # Reading the body may release the connection.
            expiry = certificate_expiry(response.connection and response.connection.transport)
            try:
                body = await response.json(content_type=None)
            except ValueError:
                body = None
            return Response(
                response.status,
                body if isinstance(body, dict) else {},
                _clock_offset(response.headers.get("date"), started, ended),
                expiry,
            )


def describe(failure: BaseException) -> str:
    """Return the text of a failed request."""
    return str(failure) or type(failure).__name__


def certificate_expiry(transport: Any) -> datetime | None:
    """Return the end of the peer's certificate; None without TLS."""
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def certificate_findings(owner: str, expiry: datetime | None) -> list[Finding]:
    """Return a warning if a certificate ends within two weeks."""
    if expiry is None or (expiry - datetime.now(UTC)).days >= CERTIFICATE_DAYS:
        return []
    says = f"the certificate of {owner} ends on {expiry:%Y-%m-%d %H:%M} UTC"
    return [warning(says, "renew it, and find out why the automatic renewal failed")]


def clock_finding(owner: str, offset: float) -> Finding:
    """Return the finding about a clock that is ``offset`` seconds ahead of ours."""
    if abs(offset) < CLOCK_WARNING:
        return ok(f"{owner} agrees with this machine's", area="clock")
    says = f"{owner} is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    if abs(offset) >= CLOCK_PROBLEM:
        return problem(says, "run NTP on both: codes and tokens expire too early or too late", area="clock")
    return warning(says, "run NTP on both", area="clock")


def _clock_offset(date: str | None, started: float, ended: float) -> float | None:
    """Return the smallest offset that explains a date, which is truncated to seconds, within a request."""
    try:
        seconds = parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
    if seconds is None:
        return None
    return seconds + 1 - started if seconds + 1 < started else max(0.0, seconds - ended)


async def check_issuer(issuer: str, local: str | None, *, required: bool) -> AsyncIterator[Finding]:
    """Check the gateway at its public URL, as ``check_gateway``, as far as it can be reached from here.

    Args:
        issuer: the public URL.
        local: URL of a gateway beside this process, which is checked if the public one does not respond.
        required: whether the public URL must respond here; otherwise a network policy may close it.
    """
    try:
        await get(f"{issuer}/healthz")
    except UNREACHABLE as failure:
        if not required:
            yield skipped(
                f"{issuer} is not checked: no response here ({describe(failure)})",
                "if this environment has no way to it, set NEST_URL to an address of the gateway that it can reach",
            )
            if local is not None:
                async for finding in check_gateway(local, issuer):
                    yield finding
            return
    async for finding in check_gateway(issuer, issuer):
        yield finding


async def check_gateway(url: str, issuer: str | None) -> AsyncIterator[Finding]:
    """Check the gateway's health, certificate and clock, and compare its issuer with that of the settings, if known."""
    try:
        health = await get(f"{url}/healthz")
    except UNREACHABLE as failure:
        yield problem(
            f"no response from {url} ({describe(failure)})",
            "check that it runs, and that NEST_ISSUER is reachable from this machine, through proxy and DNS",
        )
        return
    if health.status == OK and health.body.get("status") == "ok":
        yield ok(f"{url} responds and is healthy")
    elif health.status == UNAVAILABLE and "reasons" in health.body:
        reasons = "; ".join(map(str, health.body["reasons"]))
        yield problem(f"{url} is unhealthy: {reasons}", "read its log; it ends by itself if it cannot recover")
    else:
        yield problem(
            f"the server at {url}, which responds with {health.status}, is not Nest's gateway", "check proxy and DNS"
        )
        return
    for finding in certificate_findings(url, health.expiry):
        yield finding
    if health.clock_offset is not None:
        yield clock_finding("the gateway's clock", health.clock_offset)
    if issuer is None:
        return
    discovery = await get(f"{url}/.well-known/openid-configuration")
    if discovery.body.get("issuer") != issuer:
        yield problem(
            f"the issuer of {url} is {discovery.body.get('issuer')}, that of the settings {issuer}",
            "set the same NEST_ISSUER for every service; otherwise tokens are refused",
        )
