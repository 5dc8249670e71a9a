"""May our mail servers send for a domain, as receivers read its SPF record (RFC 7208)?"""

from __future__ import annotations

import re
from typing import Final

from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.names import RECORDS, Names

MOST_LOOKUPS: Final = 10
"""Receivers give up beyond so many (RFC 7208 section 4.6.4)."""
ASKS: Final = ("include:", "redirect=", "exists:", "a:", "a/", "mx:", "mx/", "ptr:")
"""What begins a term that asks DNS again; ``a``, ``mx`` and ``ptr`` alone do too."""


def sender_policy(domain: str, records: list[str], lookups: int) -> Finding:
    """What is to be said of a domain's SPF records, and of how many more they ask for."""
    if not records:
        return warning(
            RECORDS, f"{domain} has no SPF record", "publish the one that your mail provider names (TXT v=spf1 …)"
        )
    if len(records) > 1:
        return problem(RECORDS, f"{domain} has {len(records)} SPF records, so none counts", "make one of them")
    words = records[0].lower().split()
    if words[-1] in ("+all", "all"):
        return problem(RECORDS, f"{domain}: SPF lets anybody send ({words[-1]})", "end it with ~all or -all")
    if words[-1] not in ("~all", "-all") and not any(word.startswith("redirect=") for word in words):
        return warning(RECORDS, f"{domain}: SPF does not say what of others", "end it with ~all or -all")
    if lookups > MOST_LOOKUPS:
        return problem(
            RECORDS,
            f"{domain}: SPF needs more than {MOST_LOOKUPS} look-ups, so none counts",
            "take out includes of providers that you don't use any more",
        )
    return ok(RECORDS, f"{domain}: {records[0]}")


async def count_lookups(names: Names, domain: str) -> int:
    """How many more questions to DNS the record of a domain leads to; counted no further than one too many.

    Raises:
        dns.exception.DNSException: nobody answers.
    """
    count, waiting = 0, [domain]
    while waiting and count <= MOST_LOOKUPS:
        records = await names.texts(waiting.pop(), "v=spf1")
        for term in records[0].lower().split()[1:] if records else []:
            plain = term.lstrip("+-~?")
            if plain not in ("a", "mx", "ptr") and not plain.startswith(ASKS):
                continue
            count += 1
            # A macro stands for something that only a mail's arrival tells.
            if plain.startswith(("include:", "redirect=")) and "%" not in plain:
                waiting.append(re.split("[:=]", plain, maxsplit=1)[1])
    return count
