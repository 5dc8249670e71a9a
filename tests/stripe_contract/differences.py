"""Where the double and Nest may differ from Stripe's public specification, each with the reason.

The module of stripe-mock has the newest public specification, which is older than the version that Nest pins.
`contract.py` fails for an entry that is no longer needed.
"""

from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).parent / "go" / "bin"
"""Folder that `tests/stripe_contract/install` fills: stripe-mock, and Stripe's specification and example objects."""

SPECIFICATION: Final = "2026-08-26.dahlia"
"""The version of the specification in the pinned stripe-mock. With another one, review this table."""

_LATER = "added in 2026-10-28.endive, the pinned version"
_HIDDEN = "returned by Stripe, as its examples show, and declared in stripe-python, but not in the public specification"

UNDECLARED: Final[dict[tuple[str, str], str]] = {
    ("subscription", "status_details"): _LATER,
    ("subscriptions_resource_trial_settings_end_behavior", "billing_cycle_anchor"): _LATER,
    ("dispute_evidence_details", "submission_method"): _LATER,
    ("charge", "source"): _HIDDEN,
    ("payment_intent", "source"): _HIDDEN,
    ("product", "type"): _HIDDEN,
    ("recurring", "trial_period_days"): _HIDDEN,
    ("subscription_item", "plan"): _HIDDEN,
    ("subscriptions_resource_pending_update", "cancel_at_period_end"): _HIDDEN,
    ("subscription_schedule_configuration_item", "plan"): _HIDDEN,
}
"""Properties that objects of a schema may have in addition."""

LIST_PROPERTY: Final = "total_count"
"""Property that Stripe adds to lists inside objects, without declaring it."""

UNDECLARED_ROUTES: Final[dict[str, str]] = {
    "POST /v1/subscriptions/{}/pause": _LATER,
}
"""Routes of the double that the specification lacks; `{}` stands for an ID."""

FAULTS: Final[dict[tuple[str, str], str]] = {
    ("event entitlements.active_entitlement_summary.updated", "no schema for the kind"): (
        "the public specification has this event's type but not its object; stripe-python declares it"
    ),
    ("event invoice.upcoming", "lacks id"): "the invoice of this event has no ID (docs.stripe.com/api/events/types)",
    ("tests/billing/subscriptions/test_sync.py::test_an_unknown_status_is_stored_and_counted", "'hibernating'"): (
        "the test invents a status that Nest does not know"
    ),
}
"""Faults by title or test, and the beginning of their message."""

_REDUCED = "the double's account has the members that identify it and its currency; Nest reads no others"
_METHOD = "only for payment methods of the example's type"
_METERED = "items of metered prices have no quantity"

MISSING: Final[dict[tuple[str, str], str]] = {
    ("account", ""): _REDUCED,
    ("charge", "payment_method_details.card"): _METHOD,
    ("charge", "refunds"): "since 2022-11-15 included only with expand",
    ("invoice", "id"): "see `FAULTS`: the invoice of `invoice.upcoming`",
    ("invoice", "subscription"): "replaced by `parent` in 2025-03-31.basil; the example is older",
    ("payment_method", "card"): _METHOD,
    ("payment_method", "metadata.order_id"): "a key of the example's metadata",
    ("refund", "customer"): "not declared in stripe-python of the pinned version",
    ("refund", "payment_method"): "not declared in stripe-python of the pinned version",
    ("subscription", "items.data.[].quantity"): _METERED,
    ("subscription_schedule", "phases.[].items.[].quantity"): _METERED,
}
"""Members of Stripe's examples that objects may lack, by kind and beginning of the member's name."""

UNSEEN_STATUSES: Final[dict[tuple[str, str], str]] = {
    ("subscription_schedule", "not_started"): "schedules of the double start now",
}
"""Statuses that no object of the double has, by kind."""

KINDS: Final = ("dispute", "invoice", "subscription", "subscription_schedule")
"""Kinds of which the tests must show every status."""
