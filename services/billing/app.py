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
from shared.personal_data.erasure import ErasedIds
from shared.service import Resources, Service
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
async def opened(resources: Resources, settings: BillingSettings) -> AsyncIterator[Billing]:
    """What the handlers work with."""
    runs, standings, events = Runs(resources.database), Standings(resources.database), StripeEvents(resources.database)
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
            await resources.publish(KeepStripeSchedule(key=SCHEDULE, kind=kind))
        yield Billing(
            subscriptions=Subscriptions(resources.database),
            payers=Payers(resources.database),
            trials=Trials(resources.database),
            events=events,
            mappings=ProviderMappings(resources.database),
            payments=Payments(resources.database),
            failed_payment_mails=FailedPaymentMails(resources.database),
            disputes=Disputes(resources.database),
            people=People(resources.database),
            erased=ErasedIds(resources.database),
            stripe=stripe,
            sealer=resources.sealer,
            livemode=settings.stripe_livemode,
            trial_price=settings.stripe_trial_price,
            required_coupon=settings.stripe_required_coupon,
            grace=timedelta(days=settings.stripe_grace_days),
            cancel_duplicates=settings.stripe_cancel_duplicates,
            events_kept=timedelta(days=settings.stripe_events_retention_days),
            operators_address=settings.operators_address,
            runs=runs,
            differences=Differences(resources.database),
            standings=standings,
            mirrors=Mirrors(resources.database),
            takeover=Takeover(resources.database),
            schedule=Schedule(resources.database),
            periods=settings.periods,
        )
