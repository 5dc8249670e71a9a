"""Rescheduling of commands that need Stripe while it is unavailable."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from shared.bus.work import Work
from shared.messages.billing.stripe_events import StripeCommand

FIRST_PAUSE: Final = timedelta(seconds=5)
MAX_PAUSE: Final = timedelta(minutes=15)


def reschedule(command: StripeCommand, work: Work) -> None:
    """Publish a command again for later, with its attempt counted, because Stripe is unavailable."""
    retry = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
    work.publish(retry, at=retry_time(command.attempt, work))


def retry_time(attempt: int, work: Work) -> datetime:
    """The time of the next attempt: pauses grow from 5 s to 15 min and then stay there until Stripe answers.

    There is no last attempt, because a record that is not synchronized stays wrong. Pauses are jittered by 30 %, since
    an outage makes many commands wait.

    Args:
        attempt: number of the failed attempt, counted from 1.
        work: of the failed command.
    """
    pause = min(FIRST_PAUSE * 3.0 ** min(attempt - 1, 10), MAX_PAUSE)
    return work.now + pause * random.uniform(0.7, 1.3)  # noqa: S311 -- jitter
