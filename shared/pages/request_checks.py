"""Checks of requests for a developer's pages, which have no login: DNS rebinding and cross-site requests.

The gateway's pages have checks of their own. The console without login responds to loopback names alone, and refuses
forms with neither `Origin` nor `Sec-Fetch-Site`, because no program sends them. The button of a magic link sits on a
page without a referrer, so its `Origin` is `null`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]*)?", re.IGNORECASE)
"""A Host header (RFC 9110 section 7.2): an IPv6 address in brackets, or a name or IPv4 address, and a port."""


def is_rebinding_safe(host: str) -> bool:
    """Whether a Host header is a literal address, `localhost` or a name below it.

    No one can make such a name resolve to this machine to reach its pages from a foreign one (DNS rebinding). The
    address may be one in the network, so that a phone can open the pages.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = (found[1] or found[2]).lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a page of this origin, the person at the browser or a program that is no browser sent a request.

    Browsers name the relation in `Sec-Fetch-Site` (Fetch Metadata Request Headers, section 2.4), to addresses without
    TLS only on the same machine; elsewhere, and in older browsers, a form has only its `Origin`.

    Args:
        headers: by lower-case name.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    return headers.get("origin") in {None, f"http://{headers.get('host', '')}"}
