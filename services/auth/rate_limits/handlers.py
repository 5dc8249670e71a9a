"""Handler that lists the rate limits, and how far a subject has used them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, cast

from services.auth.context import Auth
from services.auth.rate_limits.limiter import Usage
from services.auth.rate_limits.models import LIMIT_NAMES, LimitName
from shared.bus.work import Work
from shared.email_addresses import normal_email
from shared.messages.auth.rate_limits import (
    ListRateLimits,
    RateLimitPer,
    RateLimitRule,
    RateLimitsView,
    RateLimitView,
    SubjectKind,
)
from shared.phone_numbers import PhoneNumber

READ: Final[Mapping[SubjectKind | None, frozenset[str]]] = {
    None: frozenset({"deployment"}),
    "address": frozenset({"address", "identifier"}),
    "number": frozenset({"number", "identifier"}),
    "network": frozenset({"prefix"}),
    "client": frozenset({"client"}),
    "country": frozenset({"country"}),
}
"""Limits that are read for a kind of subject, by the end of their name."""


async def list_rate_limits(query: ListRateLimits, work: Work, auth: Auth) -> RateLimitsView:
    """Return the rules of all limits; with a subject those of its limits, and its uses.

    Raises:
        InvalidEmail, InvalidPhoneNumber: the subject is no address or number.
    """
    subject = "" if query.subject is None else _normal(query.kind, auth.unseal(query.subject).strip(), auth)
    read = READ[query.kind]
    names = [name for name in LIMIT_NAMES if query.kind is None or _per(name) in read]
    usages = await asyncio.gather(
        *(auth.rate_limits.usage(name, subject, at=work.now) for name in names if _per(name) in read)
    )
    by_name = dict(zip((name for name in names if _per(name) in read), usages, strict=True))
    return RateLimitsView(
        limits=tuple(_view(name, by_name.get(name), work, auth) for name in names),
        lift_loopback=auth.rate_limits.lift_loopback,
    )


def _normal(kind: SubjectKind | None, text: str, auth: Auth) -> str:
    """The subject in the form in which it is counted."""
    match kind:
        case "address":
            return normal_email(text, test_domains=auth.test_domains)
        case "number":
            return PhoneNumber.parse(text).e164
        case "country":
            return text.upper()
        case _:
            return text


def _per(name: LimitName) -> str:
    return name.rpartition("-per-")[2]


def _view(name: LimitName, usage: Usage | None, work: Work, auth: Auth) -> RateLimitView:
    rules = auth.rate_limits.limits[name].rules
    used: tuple[int | None, ...] = (None,) * len(rules) if usage is None else usage.used
    return RateLimitView(
        name=name,
        setting=f"NEST_LIMIT_{name.replace('-', '_').upper()}",
        per=cast("RateLimitPer", _per(name)),
        rules=tuple(
            RateLimitRule(count=rule.count, seconds=int(rule.window.total_seconds()), used=count)
            for rule, count in zip(rules, used, strict=True)
        ),
        free_at=work.now + usage.wait if usage is not None and usage.wait else None,
    )
