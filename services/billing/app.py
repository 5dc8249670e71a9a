"""Assembly of the billing service from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from services.billing import metrics
from services.billing.catalog.store import Catalog, CatalogSyncs, Prices, Products
from services.billing.checkout.models import CheckoutSettings
from services.billing.checkout.store import Checkouts
from services.billing.context import Billing
from services.billing.customers.store import ProviderMappings
from services.billing.disputes.store import Disputes
from services.billing.entitlements.store import EntitlementRows
from services.billing.events.store import StripeEvents
from services.billing.handlers import HANDLERS
from services.billing.history.store import BillingHistory
from services.billing.payments.store import FailedPaymentMails, Payments
from services.billing.personal_data.store import PersonalData
from services.billing.runs.store import Differences, KnownDrifts, RecordReaders, Runs, Schedule, Takeover
from services.billing.settings import BillingSettings
from services.billing.stripe_api import account
from services.billing.stripe_api.subscription_changes import TRIAL_DAYS
from services.billing.subscriptions.duplicates import Exclusions
from services.billing.subscriptions.models import AccessPolicy, RenewalPolicy
from services.billing.subscriptions.portal import LISTS, PortalLimit
from services.billing.subscriptions.store import Payers, Subscriptions
from services.billing.trials.store import Trials
from services.billing.usage.store import UsageRows
from shared.messages.billing.runs import SCHEDULE, SCHEDULED, KeepStripeSchedule
from shared.messages.republishing import REPUBLISHING
from shared.migrations import Migrations
from shared.mongo import indexes_of
from shared.personal_data.erasure import ErasedIds
from shared.service import Resources, Service
from shared.settings import load

TOPICS: Final = ("billing.commands", "stripe.webhooks", "auth.events", REPUBLISHING)
DASHBOARD: Final = "https://dashboard.stripe.com"
CHECKOUTS: Final = 30
"""Checkouts that a user may order within ten minutes: each one takes calls to Stripe."""
INDEXES: Final = indexes_of(
    Subscriptions,
    Payers,
    Trials,
    Checkouts,
    ProviderMappings,
    Payments,
    FailedPaymentMails,
    Disputes,
    BillingHistory,
    StripeEvents,
    EntitlementRows,
    UsageRows,
    Runs,
    Differences,
    KnownDrifts,
    Schedule,
    Takeover,
    ErasedIds,
    Products,
    Prices,
    CatalogSyncs,
)
"""Indexes by collection, created before the first message is handled."""
MIGRATIONS: Final = Migrations()


def create(settings: BillingSettings | None = None) -> Service:
    """The service, which runs while it is entered.

    Settings are read from the environment by default; SettingsError is raised if a variable is missing or invalid.
    """
    chosen = settings or load(BillingSettings)
    return Service(
        chosen,
        name="billing",
        handlers=HANDLERS,
        topics=TOPICS,
        indexes=INDEXES,
        open_context=partial(open_context, settings=chosen),
        migrations=MIGRATIONS,
    )


@asynccontextmanager
async def open_context(resources: Resources, settings: BillingSettings) -> AsyncIterator[Billing]:
    """The context of the handlers, with connections to Stripe that are closed when the block ends."""
    runs, known_drift = Runs(resources.database), KnownDrifts(resources.database)
    events, products = StripeEvents(resources.database), frozenset(settings.stripe_products)
    async with (
        metrics.updated_gauges(runs, known_drift, events),
        account.open_account(
            api_key=settings.stripe_api_key,
            api_base=settings.stripe_api_base,
            rate=settings.calls_per_second,
            portal_return_url=settings.stripe_portal_return_url,
            products=products,
        ) as stripe,
    ):
        for kind in SCHEDULED:
            await resources.publish(KeepStripeSchedule(key=SCHEDULE, kind=kind))
        yield Billing(
            subscriptions=Subscriptions(resources.database, products),
            payers=Payers(resources.database),
            trials=Trials(resources.database),
            checkouts=Checkouts(resources.database),
            events=events,
            mappings=ProviderMappings(resources.database),
            payments=Payments(resources.database),
            failed_payment_mails=FailedPaymentMails(resources.database),
            disputes=Disputes(resources.database),
            history=BillingHistory(resources.database),
            entitlements=EntitlementRows(resources.database),
            personal_data=PersonalData(resources.database),
            erased=ErasedIds(resources.database),
            stripe=stripe,
            usage=UsageRows(resources.database),
            sealer=resources.sealer,
            livemode=settings.stripe_livemode,
            trial_price=settings.stripe_trial_price,
            trial_unaliased=settings.trial_unaliased,
            trial_redemption=timedelta(hours=settings.trial_redemption_hours),
            products=products,
            required_coupon=settings.stripe_required_coupon,
            access=AccessPolicy(
                grace=timedelta(days=settings.stripe_grace_days),
                unpaid_grace=timedelta(days=settings.stripe_unpaid_grace_days),
                leeway=timedelta(minutes=settings.stripe_renewal_leeway_minutes),
            ),
            exclusions=Exclusions(tuple(map(frozenset, settings.stripe_exclusive_products))),
            cancel_duplicates=False if settings.stripe_several_subscriptions else settings.stripe_cancel_duplicates,
            cancel_now=settings.stripe_cancel_now,
            downgrade=settings.stripe_downgrade,
            proration=settings.stripe_proration,
            renewals=RenewalPolicy(days=settings.renewal_notices, months=settings.renewal_notice_months),
            receipts=settings.receipts,
            dashboard=settings.stripe_api_base or DASHBOARD,
            account_url=settings.stripe_portal_return_url,
            portal_in_status=settings.stripe_portal_in_status,
            portal_limit=PortalLimit(),
            checkout_limit=PortalLimit(CHECKOUTS),
            checkout_settings=CheckoutSettings(
                promotion_codes=settings.stripe_promotion_codes,
                automatic_tax=settings.stripe_automatic_tax,
                several_subscriptions=settings.stripe_several_subscriptions,
                one_trial_per_card=settings.trial_once_per_card,
            ),
            list_limit=PortalLimit(LISTS),
            event_retention=timedelta(days=settings.stripe_events_retention_days),
            operators_address=settings.operators_address,
            runs=runs,
            differences=Differences(resources.database),
            known_drift=known_drift,
            records=RecordReaders(resources.database),
            takeover=Takeover(resources.database),
            schedule=Schedule(resources.database),
            catalog=Catalog(
                Products(resources.database),
                Prices(resources.database),
                listed=products,
                trials={settings.stripe_trial_price: TRIAL_DAYS},
            ),
            catalog_syncs=CatalogSyncs(resources.database),
            periods=settings.periods,
        )
