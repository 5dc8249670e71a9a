"""What do the handlers of billing work with?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

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
from services.billing.stripe.account import Stripe
from shared.messages.billing.runs import Scheduled
from shared.personal_data.erasure import ErasedIds
from shared.sealing import Sealer

OWN: Final = "billing"
"""What secrets that billing keeps for itself are sealed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """The stores and adapters of billing, built in ``app.py``.

    Attributes:
        people: all that is held on a person, in one place.
        erased: who must not come back.
        livemode: whether this deployment is about real money; what comes from the other mode is not followed.
        trial_price: the price that a trial goes over into.
        required_coupon: where set, a subscription without it is cancelled, trials excepted.
        grace: how long a subscription counts although it was not paid.
        cancel_duplicates: whether a user's second live subscription is cancelled, or only told of.
        events_kept: how long an event is kept once it is handled.
        operators_address: who is written to about disputes; None for nobody.
        takeover: until when what Stripe has came with an account that was taken over.
        periods: how often the clock begins each kind of run; kinds that it does not begin are absent.
    """

    subscriptions: Subscriptions
    payers: Payers
    trials: Trials
    events: StripeEvents
    mappings: ProviderMappings
    payments: Payments
    failed_payment_mails: FailedPaymentMails
    disputes: Disputes
    people: People
    erased: ErasedIds
    stripe: Stripe
    sealer: Sealer
    livemode: bool
    trial_price: str
    required_coupon: str | None
    grace: timedelta
    cancel_duplicates: bool
    events_kept: timedelta
    operators_address: str | None
    runs: Runs
    differences: Differences
    standings: Standings
    mirrors: Mirrors
    takeover: Takeover
    schedule: Schedule
    periods: Mapping[Scheduled, timedelta]

    def seal(self, secret: str) -> str:
        """A secret that only billing can read again."""
        return self.sealer.seal(OWN, secret.encode())

    def unseal(self, ciphertext: str) -> str:
        """What ``seal`` closed."""
        return self.sealer.unseal(OWN, ciphertext).decode()
