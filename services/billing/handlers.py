"""Handlers of billing, collected from its capabilities."""

from typing import Final

from services.billing.catalog import handlers as catalog
from services.billing.checkout import handlers as checkout
from services.billing.customer_state import handlers as customer_state
from services.billing.customers import handlers as customers
from services.billing.disputes import handlers as disputes
from services.billing.entitlements import handlers as entitlements
from services.billing.events import handlers as events
from services.billing.history import handlers as history
from services.billing.history.handlers import with_history
from services.billing.invoices import handlers as invoices
from services.billing.payments import handlers as payments
from services.billing.personal_data import handlers as personal_data
from services.billing.plan_changes import handlers as plan_changes
from services.billing.runs import handlers as runs
from services.billing.stripe_api.reschedule import prioritized
from services.billing.subscriptions import handlers as subscriptions
from services.billing.trials import handlers as trials
from services.billing.usage import handlers as usage
from shared.bus.handling import handlers_in

_HANDLERS: Final = handlers_in(
    catalog,
    checkout,
    customer_state,
    customers,
    disputes,
    entitlements,
    events,
    history,
    invoices,
    payments,
    personal_data,
    plan_changes,
    runs,
    subscriptions,
    trials,
    usage,
)
HANDLERS: Final = with_history({message: prioritized(handler) for message, handler in _HANDLERS.items()})
"""Handlers by the message that each handles. Their calls to Stripe have its priority, and their events an entry in the
billing history."""
