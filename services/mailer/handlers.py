"""Handlers of the mailer, collected from its capabilities."""

from typing import Final

from services.mailer.branding import handlers as branding
from services.mailer.consents import handlers as consents
from services.mailer.deliveries import handlers as deliveries
from services.mailer.mails import handlers as mails
from services.mailer.personal_data import handlers as personal_data
from services.mailer.suppressions import handlers as suppressions
from services.mailer.texts import handlers as texts
from services.mailer.webhooks import deliveries as webhook_deliveries
from services.mailer.webhooks import handlers as webhooks
from shared.bus.handling import handlers_in

HANDLERS: Final = {
    **handlers_in(
        branding, consents, deliveries, mails, personal_data, suppressions, texts, webhook_deliveries, webhooks
    ),
    **webhook_deliveries.EVENT_HANDLERS,
}
"""Handlers by the message that each handles."""
