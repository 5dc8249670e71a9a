"""How is the billing service put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from services.billing import gauges
from services.billing.context import Billing
from services.billing.handlers import HANDLERS
from services.billing.settings import BillingSettings
from services.billing.store import INDEXES
from services.billing.store.differences import Differences, Standings
from services.billing.store.disputes import Disputes
from services.billing.store.events import StripeEvents
from services.billing.store.mappings import ProviderMappings
from services.billing.store.mirrors import Mirrors
from services.billing.store.payments import FailedPaymentMails, Payments
from services.billing.store.people import People
from services.billing.store.runs import Runs
from services.billing.store.schedule import Schedule, Takeover
from services.billing.store.subscriptions import Payers, Subscriptions
from services.billing.store.trials import Trials
from services.billing.stripe import account
from shared.messages.billing.runs import SCHEDULE, SCHEDULED, KeepStripeSchedule
from shared.personal_data.erased import Erased
from shared.service import Parts, Service
from shared.settings import load

TOPICS: Final = ("billing.commands", "stripe.webhooks", "auth.events")


def create(settings: BillingSettings | None = None) -> Service:
    """The service, running while it is entered.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    chosen = settings or load(BillingSettings)
    return Service(
        chosen,
        name="billing",
        handlers=HANDLERS,
        topics=TOPICS,
        indexes=INDEXES,
        open=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(parts: Parts, settings: BillingSettings) -> AsyncIterator[Billing]:
    """What the handlers work with."""
    runs, standings, events = Runs(parts.database), Standings(parts.database), StripeEvents(parts.database)
    async with (
        gauges.kept(runs, standings, events),
        account.opened(
            api_key=settings.stripe_api_key.get_secret_value(),
            api_base=settings.stripe_api_base,
            rate=settings.calls_per_second,
            portal_return_url=settings.stripe_portal_return_url,
        ) as stripe,
    ):
        for kind in SCHEDULED:
            await parts.announce(KeepStripeSchedule(key=SCHEDULE, kind=kind))
        yield Billing(
            subscriptions=Subscriptions(parts.database),
            payers=Payers(parts.database),
            trials=Trials(parts.database),
            events=events,
            mappings=ProviderMappings(parts.database),
            payments=Payments(parts.database),
            failed_payment_mails=FailedPaymentMails(parts.database),
            disputes=Disputes(parts.database),
            people=People(parts.database),
            erased=Erased(parts.database),
            stripe=stripe,
            sealer=parts.sealer,
            livemode=settings.stripe_livemode,
            trial_price=settings.stripe_trial_price,
            required_coupon=settings.stripe_required_coupon,
            grace=timedelta(days=settings.stripe_grace_days),
            cancel_duplicates=settings.stripe_cancel_duplicates,
            events_kept=timedelta(days=settings.stripe_events_retention_days),
            operators_address=settings.operators_address,
            runs=runs,
            differences=Differences(parts.database),
            standings=standings,
            mirrors=Mirrors(parts.database),
            takeover=Takeover(parts.database),
            schedule=Schedule(parts.database),
            periods=settings.periods,
        )
