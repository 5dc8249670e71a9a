"""What do two hundred customers do in half a year? A seeded run of all that can happen to subscriptions."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.stripe_double import StripeApiError
from services.stripe_double.account import Json
from services.stripe_double.double import StripeDouble
from services.stripe_double.endings import OVER
from services.stripe_double.simulation import BAD_CARD, GOOD_CARD

_ARRIVALS = {
    "checkout": 4,
    "trial": 3,
    "trial_without_card": 1,
    "left_checkout": 1,
    "declined_checkout": 1,
    "bank_debit": 1,
    "authentication": 1,
}
"""How customers begin, by weight."""

_DAILY = {
    "decline": 0.02,
    "recover": 0.15,
    "cancel_at_period_end": 0.01,
    "cancel_at_date": 0.01,
    "cancel_now": 0.004,
    "reactivate": 0.04,
    "pause": 0.005,
    "resume": 0.1,
    "pause_collection": 0.005,
    "resume_collection": 0.1,
    "duplicate": 0.006,
    "dispute": 0.006,
    "close_dispute": 0.1,
    "refund": 0.006,
    "delete_customer": 0.001,
}
"""The chance of each verb on each day of each subscription, where it makes sense."""


class RandomWorkload:
    """Plays customers who come, pay, decline, recover, pause, double, dispute, leave.

    Args:
        double: Where they live.
        price: What all of them buy.
        seed: The same seed plays the same life on a fresh double.
    """

    def __init__(self, double: StripeDouble, price: str, *, seed: int) -> None:
        self.performed: Counter[str] = Counter()
        """How often each verb was played; those that Stripe refused are not counted."""
        self.rejected: Counter[str] = Counter()
        self._double = double
        self._price = price
        self._random = random.Random(seed)

    async def run(
        self, *, customers: int, days: int, after_each_day: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Lets customers arrive over the first half of the days, and every day do what they do.

        Args:
            customers: How many.
            days: How long, in the double's time, which is moved.
            after_each_day: What else happens at the end of each day.
        """
        arrivals = Counter(self._random.randrange(max(1, days // 2)) for _ in range(customers))
        number = 0
        for day in range(days):
            for _ in range(arrivals[day]):
                number += 1
                self._arrive(number)
            for subscription in self._double.objects("subscription"):
                self._day_of(subscription["id"])
            await self._double.clock.advance(timedelta(days=1))
            if after_each_day is not None:
                await after_each_day()

    def _arrive(self, number: int) -> None:
        way = self._random.choices(list(_ARRIVALS), weights=list(_ARRIVALS.values()))[0]
        simulate, email = self._double.simulate, f"customer{number}@example.com"
        if way == "trial_without_card":
            simulate.checkout(self._price, email=email, trial_days=14, payment_method=None)
        elif way == "trial":
            simulate.checkout(self._price, email=email, trial_days=14)
        else:
            card = {
                "left_checkout": None,
                "declined_checkout": BAD_CARD,
                "bank_debit": "pm_usBankAccount_success",
                "authentication": "pm_card_authenticationRequired",
            }.get(way, GOOD_CARD)
            made = simulate.checkout(self._price, email=email, payment_method=card)
            if way == "authentication":
                simulate.authenticate(made["id"])
        self.performed[way] += 1

    def _day_of(self, identifier: str) -> None:
        for verb in [verb for verb, chance in _DAILY.items() if self._random.random() < chance]:
            subscription = self._double.object("subscription", identifier)
            if not self._sensible(verb, subscription):
                continue
            try:
                self._do(verb, subscription)
            except StripeApiError:
                self.rejected[verb] += 1
            else:
                self.performed[verb] += 1

    def _sensible(self, verb: str, subscription: Json) -> bool:
        status, planned = subscription["status"], subscription["cancel_at"] is not None
        if self._double.object("customer", subscription["customer"]).get("deleted"):
            return False
        if verb in {"close_dispute", "dispute", "refund"}:
            return True
        if status in OVER:
            return False
        sensible: dict[str, bool] = {
            "recover": status in {"past_due", "unpaid", "incomplete"},
            "reactivate": planned,
            "cancel_at_period_end": not planned and status in {"active", "trialing"},
            "cancel_at_date": not planned and status in {"active", "trialing"},
            "pause": status == "active",
            "resume": status == "paused",
            "resume_collection": subscription["pause_collection"] is not None,
        }
        return sensible.get(verb, True)

    def _do(self, verb: str, subscription: Json) -> None:
        simulate, identifier, customer = self._double.simulate, subscription["id"], subscription["customer"]
        if verb in {"decline", "recover", "delete_customer"}:
            getattr(simulate, verb)(customer)
        elif verb.startswith("cancel_"):
            simulate.cancel(identifier, at=verb.removeprefix("cancel_").removeprefix("at_"))
        elif verb == "duplicate":
            simulate.checkout(self._price, customer=customer)
        elif verb == "close_dispute":
            simulate.close_dispute(*self._open_dispute(customer))
        elif verb == "dispute":
            simulate.dispute(identifier, inquiry=self._random.random() < 0.3)
        else:
            getattr(simulate, verb)(identifier)

    def _open_dispute(self, customer: str) -> tuple[str, str]:
        charges = {charge["id"] for charge in self._double.objects("charge") if charge["customer"] == customer}
        for dispute in self._double.objects("dispute"):
            if dispute["charge"] in charges and dispute["status"].endswith("needs_response"):
                inquiry = dispute["status"].startswith("warning_")
                return dispute["id"], "warning_closed" if inquiry else self._random.choice(["won", "lost"])
        raise StripeApiError("This customer has no open dispute.")
