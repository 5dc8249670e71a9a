"""Context of the billing handlers: the stores, the Stripe account, and the settings that handlers need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.billing.catalog.store import Catalog, CatalogSyncs
from services.billing.checkout.models import CheckoutSettings
from services.billing.checkout.store import Checkouts
from services.billing.customers.store import ProviderMappings
from services.billing.disputes.store import Disputes
from services.billing.entitlements.store import EntitlementRows
from services.billing.events.store import StripeEvents
from services.billing.history.store import BillingHistory
from services.billing.payments.store import FailedPaymentMails, Payments
from services.billing.personal_data.store import PersonalData
from services.billing.plan_changes.models import CancelNow, Downgrade
from services.billing.runs.store import Differences, KnownDrifts, RecordReaders, Runs, Schedule, Takeover
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.plan_change_models import Proration
from services.billing.subscriptions.duplicates import Exclusions, rival_of
from services.billing.subscriptions.models import AccessPolicy, RenewalPolicy, Subscription
from services.billing.subscriptions.portal import PortalLimit
from services.billing.subscriptions.store import Payers, Subscriptions
from services.billing.trials.store import Trials
from services.billing.usage.store import UsageRows
from shared.messages.billing.runs import Scheduled
from shared.personal_data.erasure import ErasedIds
from shared.sealing import Sealer

SERVICE: Final = "billing"
"""The service for which ``Billing.seal`` seals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """The stores, adapters and settings of billing, built in ``app.py``.

    Attributes:
        erased: IDs of erased users and customers.
        livemode: whether this deployment handles real money; events and objects of the other mode are ignored.
        trial_price: the price of a subscription after its trial.
        trial_unaliased: whether addresses that differ only in tags and meaningless dots are one person.
        trial_redemption: how long a trial waits for the redemption of its link.
        products: the products that Nest sells; empty for all.
        required_coupon: if set, a subscription without this coupon is cancelled, trials excepted.
        access: how long a subscription counts as active after the times that Stripe names.
        exclusions: products of which a user may have one subscription at a time.
        cancel_duplicates: whether a user's second live subscription is cancelled, or only announced; None to announce
            it if the account was imported.
        cancel_now: whether a person may cancel at once, and what becomes of the unused time.
        downgrade: when a downgrade takes effect.
        proration: how the rest of the period is charged after a change of plan.
        renewals: which renewals are announced to the person, and when.
        receipts: whether the person gets a mail about each payment.
        dashboard: base URL of Stripe's dashboard, or of the double that stands in for Stripe.
        account_url: page of the app where a person manages the subscription.
        portal_in_status: whether a status has the URL of a new session of the customer portal.
        portal_limit: how often a user may open the customer portal.
        checkout_limit: how often a user may order a checkout.
        checkout_settings: what an operator chose for checkouts.
        list_limit: how often the invoices of a user may be listed.
        event_retention: retention of handled events.
        operators_address: recipient of mails about disputes; None for no mails.
        takeover: until when objects in Stripe count as taken over by an import.
        catalog: products, prices and plans.
        periods: intervals of the scheduled runs; kinds that are not scheduled are absent.
    """

    subscriptions: Subscriptions
    payers: Payers
    trials: Trials
    checkouts: Checkouts
    events: StripeEvents
    mappings: ProviderMappings
    payments: Payments
    failed_payment_mails: FailedPaymentMails
    disputes: Disputes
    history: BillingHistory
    entitlements: EntitlementRows
    usage: UsageRows
    personal_data: PersonalData
    erased: ErasedIds
    stripe: Stripe
    sealer: Sealer
    livemode: bool
    trial_price: str
    trial_unaliased: bool
    trial_redemption: timedelta
    products: frozenset[str]
    required_coupon: str | None
    access: AccessPolicy
    exclusions: Exclusions
    cancel_duplicates: bool | None
    cancel_now: CancelNow
    downgrade: Downgrade
    proration: Proration
    renewals: RenewalPolicy
    receipts: bool
    dashboard: str
    account_url: str
    portal_in_status: bool
    portal_limit: PortalLimit
    checkout_limit: PortalLimit
    checkout_settings: CheckoutSettings
    list_limit: PortalLimit
    event_retention: timedelta
    operators_address: str | None
    runs: Runs
    differences: Differences
    known_drift: KnownDrifts
    records: RecordReaders
    takeover: Takeover
    schedule: Schedule
    catalog: Catalog
    catalog_syncs: CatalogSyncs
    periods: Mapping[Scheduled, timedelta]

    def sells(self, product_id: str) -> bool:
        """Whether a product is one of Nest's."""
        return not self.products or product_id in self.products

    async def find_rival(
        self, user_id: str, products: frozenset[str], *, at: datetime, own: str | None = None
    ) -> Subscription | None:
        """The live subscription of a user that excludes a further one with these products.

        None if NEST_STRIPE_SEVERAL_SUBSCRIPTIONS allows several. ``own`` is the ID of the subscription to get them.
        """
        if self.checkout_settings.several_subscriptions:
            return None
        others = [each for each in await self.subscriptions.of_user(user_id) if each.id != own]
        return rival_of(products, others, at=at, policy=self.access, exclusions=self.exclusions)

    async def cancels_duplicates(self) -> bool:
        """Whether a duplicate is cancelled, or only announced."""
        if self.cancel_duplicates is not None:
            return self.cancel_duplicates
        return not await self.takeover.happened()

    def seal(self, secret: str) -> str:
        """Seal a secret that only billing can unseal."""
        return self.sealer.seal(SERVICE, secret.encode())

    def unseal(self, ciphertext: str) -> str:
        """Unseal a secret that ``seal`` sealed."""
        return self.sealer.unseal(SERVICE, ciphertext).decode()
