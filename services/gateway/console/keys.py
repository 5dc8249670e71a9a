"""Pages of the signing keys and of the rate limits."""

from __future__ import annotations

from typing import Any, Final, get_args

from services.gateway.console.calls import CallRefused
from services.gateway.console.lists import explained
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.messages.auth.rate_limits import SubjectKind

KEYS: Final = PageTable(Link("Operation", "Signing keys", "/console/keys"))
LIMITS: Final = PageTable(Link("Operation", "Rate limits", "/console/limits"))
SUBJECTS: Final = dict(
    zip(
        get_args(SubjectKind), ("email address", "phone number", "IP address", "client ID", "country code"), strict=True
    )
)
"""Kinds of subjects, and their words on the page."""
PERIODS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


@KEYS.page("/console/keys")
async def keys(visit: Visit) -> HttpResponse:
    """The keys that verify tokens, oldest first."""
    view = await visit.call("list_signing_keys")
    return visit.page("keys.html", keys=view["keys"])


@KEYS.act("/console/keys/rotate", page=keys)
async def rotate(visit: Visit) -> HttpResponse:
    """Rotate the signing key, or replace all after a leak."""
    emergency = visit.form.get("emergency") == "yes"
    await visit.call("rotate_signing_keys", emergency=emergency)
    sentence = (
        "A new key signs from now on, and all others are withdrawn."
        if emergency
        else "The next key is published, and signs after its lead time."
    )
    return visit.done("/console/keys", sentence)


@LIMITS.page("/console/limits")
async def limits(visit: Visit) -> HttpResponse:
    """The rate limits, and how far one subject has used them."""
    kind, subject = visit.query.get("kind") or None, visit.query.get("subject", "").strip() or None
    view: dict[str, Any] = {"limits": [], "lift_loopback": False}
    problem = ""
    try:
        # Without a subject its kind, which the form always sends, means nothing.
        view = await visit.call("list_rate_limits", kind=kind if subject else None, subject=subject)
    except CallRefused as refused:
        problem = explained(visit, refused)
    return visit.page(
        "limits.html",
        limits=view["limits"],
        lifted=view["lift_loopback"],
        problem=problem,
        subjects=SUBJECTS,
        period=period,
    )


def period(seconds: int) -> str:
    """A period in words: ``minute``, ``5 minutes``, ``day``."""
    length, name = next((length, name) for length, name in PERIODS if seconds % length == 0)
    count = seconds // length
    return name if count == 1 else f"{count} {name}s"
