"""Does the gateway answer where clients reach it, is it well, and is it the one that the settings mean?"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from services.operator.doctor.findings import Finding, ok, problem
from services.operator.doctor.http import OK, asked, certificate, clock

AREA = "gateway"
UNAVAILABLE = 503


async def look_at_gateway(url: str, issuer: str | None) -> AsyncIterator[Finding]:
    """Whether it is healthy, what time it has, and what issuer it speaks for.

    Args:
        url: where its API is.
        issuer: what the settings call it; None where they are not known.
    """
    try:
        health = await asked(f"{url}/healthz")
    except (aiohttp.ClientError, TimeoutError, OSError) as failure:
        reason = str(failure) or type(failure).__name__
        yield problem(
            AREA,
            f"nobody answers at {url} ({reason})",
            "see that it runs, and that NEST_ISSUER leads to it from here too, through proxy and DNS",
        )
        return
    if health.status == OK and health.said.get("status") == "ok":
        yield ok(AREA, f"answers at {url}, and is well")
    elif health.status == UNAVAILABLE and "reasons" in health.said:
        reasons = "; ".join(map(str, health.said["reasons"]))
        yield problem(AREA, f"at {url} is not well: {reasons}", "see its log; it ends by itself if it can't recover")
    else:
        yield problem(
            AREA, f"what answers {health.status} at {url} is not Nest's gateway", "see where the proxy and DNS lead"
        )
        return
    for finding in certificate(AREA, url, health.certificate):
        yield finding
    if health.offset is not None:
        yield clock("the gateway's clock", health.offset)
    if issuer is None:
        return
    told = await asked(f"{url}/.well-known/openid-configuration")
    if told.said.get("issuer") != issuer:
        yield problem(
            AREA,
            f"at {url} says that it is {told.said.get('issuer')}, and the settings say {issuer}",
            "give every service the same NEST_ISSUER: tokens are refused otherwise",
        )
