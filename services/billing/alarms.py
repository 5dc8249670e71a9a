"""What does billing count, so that somebody is called when it must be?"""

from typing import Final

from prometheus_client import Counter

from shared.telemetry import log

EVENTS: Final = Counter("nest_stripe_events", "Events of Stripe's that were read, by type; others together.", ["type"])
OTHER_MODE: Final = Counter(
    "nest_stripe_other_mode", "What came from the other mode, live or test, and was not followed."
)
UNKNOWN_STATUSES: Final = Counter(
    "nest_stripe_unknown_statuses", "Subscriptions stored with a status that Nest does not know, hence not entitled."
)
NOBODY: Final = Counter("nest_stripe_subscriptions_of_nobody", "Subscriptions that no user could be found for.")
MISSING: Final = Counter("nest_stripe_subscriptions_missing", "Subscriptions asked about that Stripe does not have.")
UNKNOWN_PAYMENT_STATUSES: Final = Counter(
    "nest_stripe_unknown_payment_statuses", "Payments and disputes stored with a status that Nest does not know."
)
MISSING_PAYMENTS: Final = Counter(
    "nest_stripe_payments_missing", "Payments and disputes asked about that Stripe does not have."
)
UNTOLD_DISPUTES: Final = Counter(
    "nest_disputes_untold", "Disputes opened or decided of which nobody was told: NEST_OPERATORS_ADDRESS is not set."
)
DUPLICATES: Final = Counter(
    "nest_stripe_duplicate_subscriptions", "Second live subscriptions of one user, by what was done.", ["done"]
)
NOT_REFUNDED: Final = Counter(
    "nest_stripe_not_refunded", "Payments on duplicate subscriptions that Stripe would not give back."
)


def is_of_other_mode(what: str, *, livemode: bool, ours: bool, **named: str) -> bool:
    """Whether something of Stripe's belongs to the other mode, test or live; if so it is counted and logged."""
    if livemode == ours:
        return False
    OTHER_MODE.inc()
    log.error(f"{what} of the other mode", livemode=livemode, **named)
    return True
