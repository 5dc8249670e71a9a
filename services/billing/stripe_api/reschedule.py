"""When is Stripe asked again that could not be asked now?"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from shared.bus.work import Work
from shared.messages.billing.stripe_events import StripeCommand

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=15)


def put_off(order: StripeCommand, work: Work) -> None:
    """Order the same again for later."""
    again = order.model_copy(update={"key": work.key, "attempt": order.attempt + 1})
    work.publish(again, at=later(order.attempt, work))


def later(attempt: int, work: Work) -> datetime:
    """When to try again: after growing pauses, and then every quarter of an hour until Stripe answers.

    For ever, because a record that isn't followed stays wrong for as long; jittered, since an outage hits many at once.

    Args:
        attempt: the one that failed, counted from 1.
        work: of the message that failed.
    """
    pause = min(FIRST_PAUSE * 3.0 ** min(attempt - 1, 10), LONGEST_PAUSE)
    return work.now + pause * random.uniform(0.7, 1.3)  # noqa: S311 -- jitter
