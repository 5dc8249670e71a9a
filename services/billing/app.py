"""How is the billing service put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.billing.context import Billing
from services.billing.handlers import HANDLERS
from services.billing.settings import BillingSettings
from services.billing.store import INDEXES
from services.billing.store.mappings import ProviderMappings
from services.billing.store.subscriptions import Payers, Subscriptions
from services.billing.store.trials import Trials
from services.billing.stripe import opened as stripe_opened
from shared.service import Parts, Service
from shared.settings import load


def create(settings: BillingSettings | None = None) -> Service:
    """The service, running while it is entered.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    chosen = settings or load(BillingSettings)

    @asynccontextmanager
    async def opened(parts: Parts) -> AsyncIterator[Billing]:
        async with stripe_opened(
            api_key=chosen.stripe_api_key.get_secret_value(),
            api_base=chosen.stripe_api_base,
            portal_return_url=chosen.stripe_portal_return_url,
        ) as stripe:
            yield Billing(
                subscriptions=Subscriptions(parts.database),
                payers=Payers(parts.database),
                trials=Trials(parts.database),
                mappings=ProviderMappings(parts.database),
                stripe=stripe,
                sealer=parts.sealer,
                livemode=chosen.stripe_livemode,
                trial_price=chosen.stripe_trial_price,
                required_coupon=chosen.stripe_required_coupon,
            )

    return Service(
        chosen,
        name="billing",
        handlers=HANDLERS,
        topics=["billing.commands", "stripe.webhooks", "auth.events"],
        indexes=INDEXES,
        open=opened,
    )
