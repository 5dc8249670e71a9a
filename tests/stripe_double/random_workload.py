"""Random workload: a seeded sequence of simulated actions of many customers over many days."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.stripe_double import StripeApiError, StripeDouble
from services.stripe_double.account import Json
from services.stripe_double.simulation import DECLINING_CARD, GOOD_CARD
from services.stripe_double.subscription_status import ENDED

_ARRIVALS = {
    "checkout": 4,
    "trial": 3,
    "trial_without_card": 1,
    "abandoned_checkout": 1,
    "declined_checkout": 1,
    "bank_debit": 1,
    "authentication": 1,
}
"""Ways in which a customer subscribes, with their weights."""

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
"""Probability of each action on each day of each subscription, where the action applies."""

_INQUIRIES = 0.3
"""Share of the disputes that are inquiries."""


class RandomWorkload:
    """Customers who subscribe, pay, decline, recover, pause, subscribe twice, dispute and cancel.

    Args:
        double: The double.
        price: ID of the price of all subscriptions.
        seed: The same seed makes the same actions on a new double.
    """

    def __init__(self, double: StripeDouble, price: str, *, seed: int) -> None:
        self.performed: Counter[str] = Counter()
        """Number of successful actions by name."""
        self.rejected: Counter[str] = Counter()
        """Number of refused actions by name."""
        self._double = double
        self._price = price
        self._random = random.Random(seed)

    async def run(
        self, *, customers: int, days: int, after_each_day: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Run the workload; the customers arrive during the first half of the days.

        Args:
            customers: Number of customers.
            days: Number of days, by which the clock is advanced.
            after_each_day: Called after each day.
        """
        arrivals = Counter(self._random.randrange(max(1, days // 2)) for _ in range(customers))
        number = 0
        for day in range(days):
            for _ in range(arrivals[day]):
                number += 1
                self._subscribe(number)
            for subscription in self._double.objects("subscription"):
                self._run_day(subscription["id"])
            await self._double.clock.advance(timedelta(days=1))
            if after_each_day is not None:
                await after_each_day()

    def _subscribe(self, number: int) -> None:
        way = self._random.choices(list(_ARRIVALS), weights=list(_ARRIVALS.values()))[0]
        simulate, email = self._double.simulate, f"customer{number}@example.com"
        if way == "trial_without_card":
            simulate.checkout(self._price, email=email, trial_days=14, payment_method=None)
        elif way == "trial":
            simulate.checkout(self._price, email=email, trial_days=14)
        else:
            card = {
                "abandoned_checkout": None,
                "declined_checkout": DECLINING_CARD,
                "bank_debit": "pm_usBankAccount_success",
                "authentication": "pm_card_authenticationRequired",
            }.get(way, GOOD_CARD)
            subscription = simulate.checkout(self._price, email=email, payment_method=card)
            if way == "authentication":
                simulate.authenticate(subscription["id"])
        self.performed[way] += 1

    def _run_day(self, identifier: str) -> None:
        for action in [action for action, probability in _DAILY.items() if self._random.random() < probability]:
            subscription = self._double.object("subscription", identifier)
            if not self._applies(action, subscription):
                continue
            try:
                self._perform(action, subscription)
            except StripeApiError:
                self.rejected[action] += 1
            else:
                self.performed[action] += 1

    def _applies(self, action: str, subscription: Json) -> bool:
        status, scheduled = subscription["status"], subscription["cancel_at"] is not None
        if self._double.object("customer", subscription["customer"]).get("deleted"):
            return False
        if action in {"close_dispute", "dispute", "refund"}:
            return True
        if status in ENDED:
            return False
        applies: dict[str, bool] = {
            "recover": status in {"past_due", "unpaid", "incomplete"},
            "reactivate": scheduled,
            "cancel_at_period_end": not scheduled and status in {"active", "trialing"},
            "cancel_at_date": not scheduled and status in {"active", "trialing"},
            "pause": status == "active",
            "resume": status == "paused",
            "resume_collection": subscription["pause_collection"] is not None,
        }
        return applies.get(action, True)

    def _perform(self, action: str, subscription: Json) -> None:
        simulate, identifier, customer = self._double.simulate, subscription["id"], subscription["customer"]
        if action in {"decline", "recover", "delete_customer"}:
            getattr(simulate, action)(customer)
        elif action.startswith("cancel_"):
            simulate.cancel(identifier, at=action.removeprefix("cancel_").removeprefix("at_"))
        elif action == "duplicate":
            simulate.checkout(self._price, customer=customer)
        elif action == "close_dispute":
            simulate.close_dispute(*self._open_dispute(customer))
        elif action == "dispute":
            simulate.dispute(identifier, inquiry=self._random.random() < _INQUIRIES)
        else:
            getattr(simulate, action)(identifier)

    def _open_dispute(self, customer: str) -> tuple[str, str]:
        """Return the ID of the customer's first open dispute and a status to close it with."""
        charges = {charge["id"] for charge in self._double.objects("charge") if charge["customer"] == customer}
        for dispute in self._double.objects("dispute"):
            if dispute["charge"] in charges and dispute["status"].endswith("needs_response"):
                inquiry = dispute["status"].startswith("warning_")
                return dispute["id"], "warning_closed" if inquiry else self._random.choice(["won", "lost"])
        raise StripeApiError("This customer has no open dispute.")
