"""The log of the billing playground: events of the Stripe double, and the attempts to deliver them."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

from services.stripe_double import DeliveryAttempt, StripeDouble

Json = dict[str, Any]
_ATTEMPTS: Final = 1_000
"""Latest attempts in which those of the shown events are looked up."""


class EventLog:
    """The events of a double.

    Args:
        double: the Stripe double.
    """

    def __init__(self, double: StripeDouble) -> None:
        self._double = double

    def newest(self, number: int) -> list[Json]:
        """Return the newest events with the attempts to deliver them."""
        attempts: dict[str, list[DeliveryAttempt]] = defaultdict(list)
        for attempt in self._double.deliveries[-_ATTEMPTS:]:
            attempts[attempt.event].append(attempt)
        return [
            {
                **self.entry(event),
                "attempts": [_attempt(each) for each in attempts[event["id"]][-5:]],
                "earlier": max(0, len(attempts[event["id"]]) - 5),
                "state": self._delivery_state(event["id"], attempts[event["id"]]),
            }
            for event in self._double.account.all("event")[:number]
        ]

    def entry(self, event: Json) -> Json:
        """Return an event as the pages show it."""
        subject = event["data"]["object"]
        return {
            "id": event["id"],
            "type": event["type"],
            "object": subject.get("id", ""),
            "at": time_text(event["created"]),
        }

    def _delivery_state(self, event: str, attempts: list[DeliveryAttempt]) -> tuple[str, str]:
        """State of the deliveries of an event, and its tone as a badge."""
        rows = self._double.account.owned("_delivery", event)
        states = {row["state"] for row in rows}
        if "lost" in states:
            return "lost", "bad"
        if "failed" in states:
            return "given up", "bad"
        if rows:
            due = min(row["due"] for row in rows)
            return (f"retry at {_clock_time(due)}" if attempts else "on its way"), "warn"
        return "answered", "good"


def _attempt(attempt: DeliveryAttempt) -> Json:
    good = attempt.status is not None and attempt.status // 100 == 2  # noqa: PLR2004 -- the success statuses
    return {
        "status": str(attempt.status) if attempt.status else "no answer",
        "error": attempt.error,
        "good": good,
        "at": _clock_time(attempt.at),
        "took": f"{attempt.seconds * 1000:.0f} ms",
    }


def time_text(moment: int) -> str:
    """Format a Unix time: `1 Dec 2026, 10:15 UTC`."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def _clock_time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}"
