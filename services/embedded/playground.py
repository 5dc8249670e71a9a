"""What the billing playground shows and does: the Stripe double beside Nest's records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import httpx

from services.embedded.event_log import EventLog, time_text
from services.embedded.nest_billing import NestBilling
from services.stripe_double import DeliveryFaults, StripeApiError, StripeDouble
from services.stripe_double.checkout_creation import create_session
from services.stripe_double.clock import HOUR, add_intervals
from services.stripe_double.pages.pages import card_text, day, money, price_text, product_name, units
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import default_of
from services.stripe_double.portal_sessions import create_portal_session
from services.stripe_double.prices import is_metered
from services.stripe_double.rendering import RECEIPT_PAGE, render
from services.stripe_double.subscription_items import period_end
from services.stripe_double.subscription_status import ENDED

Json = dict[str, Any]
Step = Literal["day", "trial", "renewal", "month"]
SETTLED: Final = HOUR + 60
"""Seconds after the end of a trial or period until Stripe has charged: it finalizes the invoice an hour later."""
SHOWN_CUSTOMERS: Final = 10
EVENTS_PER_CUSTOMER: Final = 2
"""Events that are shown for each customer that may be shown."""
SHOWN_MOVED: Final = 12
SHOWN_PRICES: Final = 100
_RENEWING: Final = ("active", "past_due", "trialing")
_OPEN_DISPUTES: Final = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
SWITCHES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "fail": ("Fail", "each attempt fails, and is retried after 5 s, 20 s, 80 s …", {"failure_rate": 1.0}),
    "lose": ("Lose", "new events are never sent; Nest fetches them within 15 minutes", {"loss_rate": 1.0}),
    "delay": ("Delay", "new events are sent 10 s late", {"delay_seconds": 10.0}),
    "duplicate": ("Duplicate", "each event is sent three times", {"copies": 3}),
    "shuffle": ("Shuffle", "new events wait up to 5 s each, so they change places", {"shuffle_seconds": 5.0}),
}
"""Label, effect and delivery faults of each switch."""


@dataclass(frozen=True)
class Move:
    """A move of the clock: from and to in Unix seconds, and the events that it caused, oldest first."""

    start: int
    end: int
    events: list[Json]


class Playground:
    """The content of `/dev/billing`, and what its buttons do.

    Args:
        double: the Stripe double.
        nest: Nest's records.
    """

    def __init__(self, double: StripeDouble, nest: NestBilling) -> None:
        self._double = double
        self._nest = nest
        self.log = EventLog(double)
        """The events, with the attempts to deliver them."""
        self._move: Move | None = None
        self._moving = asyncio.Lock()

    async def move(self, step: Step) -> str:
        """Move the clock forward; return a sentence about it.

        Raises:
            StripeApiError: there is no trial or renewal to move to.
        """
        async with self._moving:
            now, target = self._double.clock.now(), self._target(step)
            known = {event["id"] for event in self._double.account.all("event")}
            await self._double.clock.advance(timedelta(seconds=max(0, target - now)))
            events = [event for event in reversed(self._double.account.all("event")) if event["id"] not in known]
            self._move = Move(now, self._double.clock.now(), events)
        return f"Moved to {time_text(self._move.end)}: {_count(len(events), 'event')}."

    def _target(self, step: Step) -> int:
        now = self._double.clock.now()
        if step == "day":
            return now + 24 * HOUR
        if step == "month":
            return add_intervals(now, "month", 1)
        target = self._next_trial_end() if step == "trial" else self._next_renewal()
        if target is None:
            raise StripeApiError("There is no trial." if step == "trial" else "No subscription renews.")
        return target + SETTLED

    def _next_trial_end(self) -> int | None:
        ends = (each["trial_end"] for each in self._double.account.all("subscription") if each["status"] == "trialing")
        return min(ends, default=None)

    def _next_renewal(self) -> int | None:
        ends = (period_end(each) for each in self._double.account.all("subscription") if each["status"] in _RENEWING)
        return min(ends, default=None)

    def act(self, customer: str, action: str) -> str:
        """Do what a button of a customer says; return a sentence about it.

        Raises:
            StripeApiError: Stripe would refuse it, or there is no such customer or action.
        """
        simulate, account = self._double.simulate, self._double.account
        if account.get("customer", customer).get("deleted"):
            raise StripeApiError("This customer was deleted.")
        if action == "decline":
            simulate.decline_next_payment(customer)
            return "The bank declines the next payment that Stripe collects by itself."
        if action == "accept":
            simulate.decline_next_payment(customer, declines=False)
            return "The bank accepts the next payment again."
        if action == "refund":
            made = simulate.refund_payment(customer)
            return f"Refunded {money(made['amount'], made['currency'])}."
        if action == "dispute":
            made = simulate.dispute_payment(customer)
            return f"Opened a dispute over {money(made['amount'], made['currency'])}."
        if action in {"won", "lost"}:
            dispute = self._open_dispute(customer)
            if dispute is None:
                raise StripeApiError("No dispute is open.")
            warning = dispute["status"].startswith("warning_")
            simulate.close_dispute(dispute["id"], "warning_closed" if warning else action)
            return "Closed the inquiry." if warning else f"The dispute is {action}."
        raise StripeApiError(f"There is no action {action}.")

    def _open_dispute(self, customer: str) -> Json | None:
        account = self._double.account
        found = (
            each for charge in account.owned("charge", customer) for each in account.owned("dispute", charge["id"])
        )
        return next((each for each in found if each["status"] in _OPEN_DISPUTES), None)

    def switch(self, name: str, *, on: bool) -> str:
        """Switch a fault of the webhooks; return a sentence about it.

        Raises:
            StripeApiError: there is no such switch.
        """
        if name not in SWITCHES:
            raise StripeApiError(f"There is no switch {name}.")
        label, effect, _ = SWITCHES[name]
        chosen = {each for each in SWITCHES if self._is_on(each)} - {name} | ({name} if on else set())
        self._double.webhooks.faults = DeliveryFaults(
            **{field: value for each in chosen for field, value in SWITCHES[each][2].items()}
        )
        return f"{label} is on: {effect}." if on else f"{label} is off."

    def _is_on(self, name: str) -> bool:
        faults = self._double.webhooks.faults
        return all(getattr(faults, field) == value for field, value in SWITCHES[name][2].items())

    def resend(self, event: str) -> str:
        """Send an event again, as the Dashboard's "Resend" does; return a sentence about it.

        Raises:
            StripeApiError: there is no such event.
        """
        found = self._double.account.get("event", event)
        self._double.webhooks.resend(event)
        return f"Sent {found['type']} again."

    def portal(self, customer: str, return_url: str) -> str:
        """Return the URL of a new portal session of a customer.

        Raises:
            StripeApiError: there is no such customer.
        """
        account = self._double.account
        with account.change():
            session = create_portal_session(account, Params({"customer": customer, "return_url": return_url}))
        return str(render(account, session)["url"])

    @property
    def pages_url(self) -> str:
        """Address of the double's pages."""
        return self._double.url

    def prices(self) -> list[tuple[str, str]]:
        """IDs and texts of the recurring prices for sale, newest first."""
        account = self._double.account
        return [
            (price["id"], f"{product_name(account, price)}, {price_text(price)}")
            for price in account.all("price")
            if price["active"] and price["recurring"] is not None
        ][:SHOWN_PRICES]

    def checkout(self, *, email: str, price: str, trial: str, return_url: str) -> str:
        """Return the URL of a new Checkout page for an address.

        Raises:
            StripeApiError: a field is invalid.
        """
        account = self._double.account
        metered = is_metered(account.get("price", price, param="price"))
        params: Json = {
            "mode": "subscription",
            "line_items": [{"price": price, **({} if metered else {"quantity": "1"})}],
            "customer_email": email,
            "success_url": return_url,
            "cancel_url": return_url,
        }
        if trial not in {"", "0"}:
            params["subscription_data"] = {"trial_period_days": trial}
        with account.change():
            session = create_session(account, Params(params))
        return str(render(account, session)["url"])

    def clock(self) -> Json:
        """The double's time, the moves that are possible, and the last one."""
        ahead = round(self._double.clock.offset)
        trial, renewal = self._next_trial_end(), self._next_renewal()
        moved = self._move
        return {
            "now": time_text(self._double.clock.now()),
            "ahead": f"{_count(ahead // (24 * HOUR), 'day')} ahead of this computer"
            if ahead >= 24 * HOUR
            else "as on this computer"
            if ahead < HOUR
            else f"{_count(ahead // HOUR, 'hour')} ahead of this computer",
            "trial": None if trial is None else day(trial),
            "renewal": None if renewal is None else day(renewal),
            "moved": None
            if moved is None
            else {
                "start": time_text(moved.start),
                "end": time_text(moved.end),
                "count": _count(len(moved.events), "event"),
                "events": [self.log.entry(each) for each in moved.events[:SHOWN_MOVED]],
                "more": max(0, len(moved.events) - SHOWN_MOVED),
            },
        }

    def switches(self) -> list[Json]:
        """The switches of the webhooks."""
        return [
            {"name": name, "label": label, "effect": effect, "on": self._is_on(name)}
            for name, (label, effect, _) in SWITCHES.items()
        ]

    async def customers(self, shown: int) -> list[Json]:
        """The newest customers with their state in Stripe and in Nest."""
        return list(await asyncio.gather(*map(self._customer, self._existing()[:shown])))

    def counts(self) -> tuple[int, int]:
        """The numbers of all customers and of all events."""
        return len(self._existing()), len(self._double.account.all("event"))

    def _existing(self) -> list[Json]:
        return [each for each in self._double.account.all("customer") if not each.get("deleted")]

    async def _customer(self, customer: Json) -> Json:
        account, identifier = self._double.account, customer["id"]
        subscriptions = account.owned("subscription", identifier)
        payment = next((each for each in account.owned("charge", identifier) if each["status"] != "pending"), None)
        paid = next((each for each in account.owned("charge", identifier) if each["status"] == "succeeded"), None)
        dispute = self._open_dispute(identifier)
        methods = [default_of(account, each, identifier) for each in (*subscriptions, None)]
        method = next((each for each in methods if each is not None), None)
        nest = await self._nest_state(customer, subscriptions)
        living = [each for each in subscriptions if each["status"] not in ENDED]
        return {
            "id": identifier,
            "name": customer["email"] or customer["name"] or identifier,
            "card": card_text(method) if method else None,
            "declines": bool(customer.get("_declines_next")),
            "subscriptions": [self._subscription(each) for each in living or subscriptions[:1]],
            "payment": None
            if payment is None
            else {
                "amount": money(payment["amount"], payment["currency"]),
                "state": _payment_state(payment),
                "date": day(payment["created"]),
                "receipt": f"{account.pages_url}{RECEIPT_PAGE}{payment['id']}" if payment["paid"] else None,
            },
            "dispute": dispute,
            "may_refund": paid is not None and not paid["refunded"] and not paid["disputed"],
            "may_dispute": paid is not None and not paid["disputed"],
            "paid": None if paid is None else money(paid["amount"], paid["currency"]),
            "nest": nest,
            "same": not nest["problem"] and _compared(nest["plans"]) == sorted(map(_comparable, living)),
        }

    def _subscription(self, subscription: Json) -> Json:
        account = self._double.account
        prices = [(account.get("price", item["price"]), item["quantity"]) for item in subscription["items"]]
        return {
            "id": subscription["id"],
            "status": subscription["status"],
            "plan": ", ".join(
                f"{units(product_name(account, price), quantity)}, {price_text(price)}" for price, quantity in prices
            ),
            "ended": subscription["status"] in ENDED,
            "end": day(subscription["ended_at"] or period_end(subscription)),
            "cancels": day(subscription["cancel_at"]) if subscription["cancel_at"] else None,
        }

    async def _nest_state(self, customer: Json, subscriptions: list[Json]) -> Json:
        named = (each["metadata"].get("user_id") for each in (customer, *subscriptions))
        try:
            state = await self._nest.state(next(filter(None, named), None), customer["email"])
        except httpx.HTTPError:
            return {"problem": "Nest does not answer."}
        if state is None:
            return {"problem": "Nest has no user for this customer."}
        return {
            "problem": None,
            "status": state["status"],
            "entitled": state["entitled"],
            "features": state["features"],
            "plans": [
                {
                    **{name: plan[name] for name in ("status", "entitled", "end_date", "cancel_at")},
                    "plan": ", ".join(
                        units(item["product_name"] or item["product_id"], item["quantity"]) for item in plan["items"]
                    ),
                    "end": _date(plan["end_date"]),
                    "cancels": _date(plan["cancel_at"]) if plan["cancel_at"] else None,
                    "grace": _date(plan["grace_ends_at"]) if plan["grace_ends_at"] else None,
                }
                for plan in state["plans"]
            ],
        }


def _payment_state(charge: Json) -> str:
    if charge["disputed"]:
        return "disputed"
    if charge["refunded"]:
        return "refunded"
    return "partly refunded" if charge["amount_refunded"] else str(charge["status"])


def _comparable(subscription: Json) -> tuple[str, int, int]:
    return subscription["status"], period_end(subscription), subscription["cancel_at"] or 0


def _compared(plans: list[Json]) -> list[tuple[str, int, int]]:
    return sorted(
        (plan["status"], _unix(plan["end_date"]), _unix(plan["cancel_at"]) if plan["cancel_at"] else 0)
        for plan in plans
    )


def _unix(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


def _date(moment: str) -> str:
    return day(_unix(moment))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
