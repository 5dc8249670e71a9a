"""The table of lives: what customers, merchants, banks and time do to subscriptions, step by step.

`test_life_table.py` plays each life on the Stripe double and compares what Stripe and Nest say after each step with
`docs/subscription-lives.md`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.stripe_double import Settings
from shared.messages import Event
from shared.messages.billing.customer_state import GetCustomerState
from shared.messages.billing.disputes import DisputeEvent
from shared.messages.billing.payments import PaymentEvent, PaymentRefunded
from shared.messages.billing.subscriptions import GetSubscription, GetSubscriptionHeartbeat, GetSubscriptionState
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import ADA, Shop, metered_price
from tests.service_harness import Refused

DAY: Final = timedelta(days=1)
SECOND: Final = timedelta(seconds=1)
USER: Final = "user_ada"
ZERO_DECIMAL: Final = ("jpy",)


@dataclass
class Player:
    """The world of one life: Ada, her customer in Stripe, and her subscriptions in the order of their beginning.

    Attributes:
        shop: The billing service and the Stripe account.
        customer: ID of Ada's customer; empty before the first step.
        subscriptions: IDs of her subscriptions.
        made: Other objects of Stripe that a step made for a later one, by name.
    """

    shop: Shop
    customer: str = ""
    subscriptions: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    _delivered: int = 0
    _reported: int = 0

    async def settle(self) -> None:
        """Deliver the events that Stripe has made since the last time, and all that follows from them."""
        events = self.shop.double.objects("event")
        for event in events[self._delivered :]:
            await self.shop.deliver(event)
        self._delivered = len(events)
        await self.shop.settle()
        await self._deliver_timers()

    async def pass_time(self, time: timedelta) -> None:
        """Advance the clocks of Stripe and Nest to each change and timer on the way, and deliver what follows."""
        double, harness = self.shop.double, self.shop.harness
        end = double.clock.time + time
        while (now := double.clock.time) < end:
            changes = [at for at in (await self._next_timer(), self._next_change()) if at is not None and at > now]
            await double.clock.advance(min([end, *changes]) - now)
            harness.now = max(harness.now, double.clock.time)
            await self.settle()

    def _next_change(self) -> datetime | None:
        """When Stripe changes something by time alone."""
        upcoming = self.shop.double._scheduler.next()
        return None if upcoming is None else datetime.fromtimestamp(upcoming[0], UTC) + SECOND

    async def _next_timer(self) -> datetime | None:
        """When a timer of Nest is due."""
        return min((at for at, _ in await self.shop.harness.delayed()), default=None)

    async def _deliver_timers(self) -> None:
        harness = self.shop.harness
        due = [message for at, message in await harness.delayed() if at <= harness.now and message.service == "billing"]
        if due:
            await harness.database["timers"].delete_many({"at": {"$lte": harness.now}})
            for message in due:
                await harness.deliver(message)
            await self.shop.settle()

    async def price(self, name: str) -> str:
        """The ID of a price of `PRICES`, created on first use."""
        if name == "monthly":
            return self.shop.price
        if name == "metered":
            self.made.setdefault(name, await metered_price(self.shop))
        elif name not in self.made:
            form = dict(PRICES[name])
            if form.pop("product", None):
                form["product"] = self.shop.double.object("price", self.shop.price)["product"]
            self.made[name] = (await self.shop.post("/v1/prices", **form))["id"]
        return str(self.made[name])

    async def row(self) -> list[str]:
        """What Stripe and Nest say now, and what Nest has mailed and published since the last row."""
        harness = self.shop.harness
        in_stripe = [self.shop.double.object("subscription", each)["status"] for each in self.subscriptions]
        state = await harness.deliver(GetSubscriptionState(user_id=USER))
        _agrees(state, await harness.deliver(GetCustomerState(user_id=USER)))
        try:
            await harness.deliver(GetSubscriptionHeartbeat(user_id=USER))
            heartbeat = "204"
        except Refused:
            heartbeat = "402"
        try:
            renews = _yes((await harness.deliver(GetSubscription(user_id=USER)))["will_renew"])
        except Refused:
            renews = ""
        published = harness.published[self._reported :]
        self._reported = len(harness.published)
        mails = [each.template for each in published if isinstance(each, SendMail)]
        events = [_event(each) for each in published if isinstance(each, Event)]
        return [
            ", ".join(in_stripe),
            state["status"],
            _yes(state["entitled"]),
            renews,
            state["required_action"] or "",
            heartbeat,
            ", ".join(mails),
            ", ".join(_counted(events)),
        ]


def _agrees(state: dict[str, Any], customer: dict[str, Any]) -> None:
    """Assert that `get_customer_state` says the same, of its first plan and of all together."""
    names = ("status", "entitled", "required_action", "grace_ends_at", "cancel_at", "payment_url")
    none = {"status": "none", "entitled": False, **dict.fromkeys(names[2:])}
    plan = customer["plans"][0] if customer["plans"] else none
    assert {name: plan[name] for name in names} == {name: state[name] for name in names}
    assert customer["status"] == state["status"]
    assert customer["entitled"] == any(each["entitled"] for each in customer["plans"])


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _event(event: Event) -> str:
    """The name of an event, with its amount of money."""
    name = event.wire.removeprefix("billing.")
    if not isinstance(event, PaymentEvent | DisputeEvent):
        return name
    amount = event.amount_refunded if isinstance(event, PaymentRefunded) else event.amount
    text = str(amount) if event.currency in ZERO_DECIMAL else f"{amount / 100:.2f}"
    return f"{name} {text} {event.currency.upper()}"


def _counted(names: list[str]) -> list[str]:
    counts = dict.fromkeys(names, 0)
    for name in names:
        counts[name] += 1
    return [name if count == 1 else f"{count} x {name}" for name, count in counts.items()]


Action = Callable[[Player], Awaitable[object]]

PRICES: Final[dict[str, dict[str, str]]] = {
    "yearly": {"currency": "usd", "unit_amount": "5000", "recurring[interval]": "year", "product": "same"},
    "better": {"currency": "usd", "unit_amount": "900", "recurring[interval]": "month", "product": "same"},
    "other product": {
        "currency": "usd",
        "unit_amount": "700",
        "recurring[interval]": "month",
        "product_data[name]": "Nest",
    },
    "free": {"currency": "usd", "unit_amount": "0", "recurring[interval]": "month", "product_data[name]": "Free"},
    "yen": {"currency": "jpy", "unit_amount": "500", "recurring[interval]": "month", "product_data[name]": "Yen"},
}
"""Prices beside `monthly`, 5.00 USD, and `metered`, 0.01 USD for a call; `product: same` is that of `monthly`."""


def buys(price: str = "monthly", **options: Any) -> Action:
    """A purchase on a Checkout page, with a good card by default."""

    async def play(player: Player) -> None:
        identity = {"customer": player.customer} if player.customer else {"email": "ada@example.com"}
        made = player.shop.double.simulate.checkout(await player.price(price), metadata=ADA, **identity, **options)
        player.customer = made["customer"]
        player.subscriptions.append(made["id"])

    return play


def begins(price: str = "monthly", *, card: str | None = None, **form: str) -> Action:
    """A subscription that the API creates, by default for a customer without a card."""

    async def play(player: Player) -> None:
        if not player.customer:
            customer = await player.shop.post("/v1/customers", email="ada@example.com", **{"metadata[user_id]": USER})
            player.customer = customer["id"]
        if card is not None:
            player.shop.double.simulate.change_card(player.customer, card)
        item = {"items[0][price]": await player.price(price), "metadata[user_id]": USER}
        made = await player.shop.post("/v1/subscriptions", customer=player.customer, **item, **form)
        player.subscriptions.append(made["id"])

    return play


def trial(end_behavior: str, *, card: str | None = None) -> Action:
    """A trial of 14 days."""
    end = {"trial_settings[end_behavior][missing_payment_method]": end_behavior}
    return begins(card=card, trial_period_days="14", **end)


def days(count: float) -> Action:
    """Time that passes."""
    return lambda player: player.pass_time(count * DAY)


def simulate(action: str, *arguments: Any, on: int = -1, **options: Any) -> Action:
    """An action of the double on the customer's last subscription, or another one by its position."""

    async def play(player: Player) -> None:
        made = getattr(player.shop.double.simulate, action)(player.subscriptions[on], *arguments, **options)
        player.made[made["object"]] = made["id"]

    return play


def changes_card(action: str, *arguments: str) -> Action:
    """An action of the double on the customer."""

    async def play(player: Player) -> None:
        getattr(player.shop.double.simulate, action)(player.customer, *arguments)

    return play


def update(*, on: int = -1, item: dict[str, str] | None = None, **form: str) -> Action:
    """An update of a subscription by the API; `item` changes its first item, a price by its name."""

    async def play(player: Player) -> None:
        values = dict(form)
        if item is not None:
            first = player.shop.double.object("subscription", player.subscriptions[on])["items"]["data"][0]
            values["items[0][id]"] = first["id"]
            for name, value in item.items():
                values[f"items[0][{name}]"] = await player.price(value) if name == "price" else value
        await player.shop.post(f"/v1/subscriptions/{player.subscriptions[on]}", **values)

    return play


def adds(price: str, quantity: str = "1") -> Action:
    """Another item on the subscription."""

    async def play(player: Player) -> None:
        form = {"items[0][price]": await player.price(price), "items[0][quantity]": quantity}
        await player.shop.post(f"/v1/subscriptions/{player.subscriptions[-1]}", **form)

    return play


def taxed(display_name: str, percentage: str, *, inclusive: bool) -> Action:
    """A subscription with a good card to the monthly price, and a tax rate."""

    async def play(player: Player) -> None:
        form = {"display_name": display_name, "percentage": percentage, "inclusive": str(inclusive).lower()}
        rate = await player.shop.post("/v1/tax_rates", **form)
        await begins(card="pm_card_visa", **{"default_tax_rates[0]": rate["id"]})(player)

    return play


def uses(calls: str) -> Action:
    """Usage that Stripe's meter counts."""

    async def play(player: Player) -> None:
        payload = {"payload[stripe_customer_id]": player.customer, "payload[value]": calls}
        await player.shop.post("/v1/billing/meter_events", event_name="calls", **payload)

    return play


async def removes_the_second_item(player: Player) -> None:
    """An item that leaves the subscription."""
    second = player.shop.double.object("subscription", player.subscriptions[-1])["items"]["data"][1]
    form = {"items[0][id]": second["id"], "items[0][deleted]": "true"}
    await player.shop.post(f"/v1/subscriptions/{player.subscriptions[-1]}", **form)


async def loses_the_card(player: Player) -> None:
    """A card that is detached."""
    for each in player.shop.double.objects("payment_method"):
        if each["customer"] == player.customer:
            await player.shop.post(f"/v1/payment_methods/{each['id']}/detach")


def account(**settings: Any) -> Action:
    """Settings of the account that the merchant chooses."""

    async def play(player: Player) -> None:
        player.shop.double.account.settings = Settings(**settings)

    return play


def both(*actions: Action) -> Action:
    """Several actions before Stripe's events arrive."""

    async def play(player: Player) -> None:
        for action in actions:
            await action(player)

    return play


def coupon(**form: str) -> Action:
    """A coupon, and a purchase with it."""

    async def play(player: Player) -> None:
        made = await player.shop.post("/v1/coupons", **form)
        await buys(coupon=made["id"])(player)

    return play


def schedule(**form: str) -> Action:
    """A schedule of the subscription, or a change of it; `PRICE` is the ID of the price `better`."""

    async def play(player: Player) -> None:
        if "schedule" not in player.made:
            subscription = {"from_subscription": player.subscriptions[-1]}
            player.made["schedule"] = await player.shop.post("/v1/subscription_schedules", **subscription)
        made = player.made["schedule"]
        phase = made["phases"][0]
        known = {
            "START": str(phase["start_date"]),
            "END": str(phase["end_date"]),
            "PRESENT": phase["items"][0]["price"],
            "BETTER": await player.price("better"),
        }
        values = {name: known.get(value, value) for name, value in form.items()}
        if values:
            await player.shop.post(f"/v1/subscription_schedules/{made['id']}", **values)

    return play


async def releases_the_schedule(player: Player) -> None:
    """A schedule that leaves its subscription as it is."""
    await player.shop.post(f"/v1/subscription_schedules/{player.made['schedule']['id']}/release")


async def pays_the_open_invoice(player: Player) -> None:
    """A payment of the latest invoice outside of Stripe."""
    invoice = player.shop.double.object("subscription", player.subscriptions[-1])["latest_invoice"]
    await player.shop.post(f"/v1/invoices/{invoice}/pay", paid_out_of_band="true")


def dispute_ends(status: str) -> Action:
    """A decision of the bank."""

    async def play(player: Player) -> None:
        player.shop.double.simulate.close_dispute(player.made["dispute"], status)

    return play


PAUSE: Final = "pause_collection[behavior]"
NEXT_PHASE: Final = {
    "phases[0][start_date]": "START",
    "phases[0][end_date]": "END",
    "phases[0][items][0][price]": "PRESENT",
    "phases[1][items][0][price]": "BETTER",
    "phases[1][iterations]": "1",
}

LIVES: Final[dict[str, list[tuple[str, Action]]]] = {
    "A subscription that renews": [
        ("buys the monthly plan", buys()),
        ("the first month ends", days(32)),
        ("three more months pass", days(93)),
    ],
    "A cancellation at the end of the period": [
        ("buys the monthly plan", buys()),
        ("cancels in the portal", simulate("cancel")),
        ("the period ends", days(32)),
    ],
    "A cancellation at a date, as the portal sets it with flexible billing": [
        ("buys the monthly plan", buys()),
        ("cancels in the portal", simulate("cancel", at="date")),
        ("the period ends", days(32)),
    ],
    "A cancellation that is withdrawn": [
        ("buys the monthly plan", buys()),
        ("cancels in the portal", simulate("cancel")),
        ("withdraws the cancellation", simulate("reactivate")),
        ("the period ends", days(32)),
    ],
    "A cancellation at once, and a new subscription": [
        ("buys the monthly plan", buys()),
        ("the merchant cancels at once", simulate("cancel", at="now")),
        ("buys again", both(days(1), buys())),
    ],
    "A renewal that is declined and paid later": [
        ("buys the monthly plan", buys()),
        ("the card is replaced by one that declines", changes_card("decline")),
        ("the renewal is declined", days(32)),
        ("changes the card and pays", changes_card("recover")),
    ],
    "A renewal that is never paid, and Stripe cancels": [
        ("buys the monthly plan", buys()),
        ("the renewal is declined", both(changes_card("decline"), days(32))),
        ("all retries are declined", days(20)),
    ],
    "A renewal that is never paid, and Stripe leaves it unpaid": [
        ("the account's setting is unpaid; buys", both(account(after_retries="unpaid"), buys())),
        ("the renewal is declined", both(changes_card("decline"), days(32))),
        ("all retries are declined", days(20)),
        ("changes the card and pays", changes_card("recover")),
    ],
    "A renewal that is never paid, and Stripe leaves it past due": [
        ("the account's setting is past_due; buys", both(account(after_retries="past_due", retry_days=(3,)), buys())),
        ("the renewal is declined", both(changes_card("decline"), days(32))),
        ("27 days later", days(27)),
        ("the grace period of 30 days ends", days(4)),
    ],
    "A renewal without a card": [
        ("buys the monthly plan", buys()),
        ("the card is removed", loses_the_card),
        ("the renewal can't be charged", days(32)),
    ],
    "A first payment that is declined": [
        ("pays with a card that declines", buys(payment_method="pm_card_chargeCustomerFail")),
        ("23 hours pass", days(1)),
    ],
    "A first payment that needs authentication": [
        ("pays with a card that needs authentication", buys(payment_method="pm_card_authenticationRequired")),
        ("authenticates", simulate("authenticate")),
    ],
    "A renewal that needs authentication": [
        ("buys the monthly plan", buys()),
        ("the card is replaced", changes_card("change_card", "pm_card_authenticationRequired")),
        ("the renewal needs authentication", days(32)),
        ("authenticates", simulate("authenticate")),
    ],
    "A purchase that is left before paying": [
        ("leaves the page", buys(payment_method=None)),
        ("23 hours pass", days(1)),
    ],
    "A trial with a card": [
        ("begins a trial of 14 days", trial("cancel", card="pm_card_visa")),
        ("three days before its end", days(11.5)),
        ("the trial ends and is paid", days(3)),
    ],
    "A trial without a card that Stripe cancels": [
        ("begins a trial of 14 days", trial("cancel")),
        ("three days before its end", days(11.5)),
        ("the trial ends", days(3)),
    ],
    "A trial without a card that Stripe bills": [
        ("begins a trial of 14 days", trial("create_invoice")),
        ("the trial ends, and the invoice can't be charged", days(15)),
        ("adds a card and pays", changes_card("recover")),
    ],
    "A trial without a card that Stripe pauses": [
        ("begins a trial of 14 days", trial("pause")),
        ("the trial ends", days(15)),
        ("adds a card", changes_card("change_card", "pm_card_visa")),
    ],
    "A trial that is ended early": [
        ("begins a trial with a card", trial("cancel", card="pm_card_visa")),
        ("the merchant ends it on day 2", both(days(2), update(trial_end="now"))),
        ("the first month ends", days(32)),
    ],
    "A trial that is cancelled by its person": [
        ("begins a trial with a card", trial("cancel", card="pm_card_visa")),
        ("cancels in the portal", simulate("cancel")),
        ("the trial ends", days(15)),
    ],
    "A trial that its person replaces by a purchase": [
        ("begins a trial without a card", trial("cancel")),
        ("buys the same plan on day 2", both(days(2), buys())),
        ("the trial would have ended", days(14)),
    ],
    "Two purchases of one product": [
        ("buys the monthly plan", buys()),
        ("buys it again the next day", both(days(1), buys())),
    ],
    "Two products with a subscription each": [
        ("buys the monthly plan", buys()),
        ("buys another product", both(days(1), buys("other product"))),
        ("cancels the first at once", simulate("cancel", at="now", on=0)),
        ("cancels the second at once", simulate("cancel", at="now", on=1)),
    ],
    "One subscription with several products": [
        ("buys the monthly plan", buys()),
        ("another product is added", adds("other product", "3")),
        ("the period ends", days(32)),
        ("it is removed again", removes_the_second_item),
    ],
    "Seats": [
        ("buys 5 seats", buys(quantity=5)),
        ("adds 3 seats", update(item={"quantity": "8"})),
        ("the period ends", days(32)),
        ("keeps 2 seats", update(item={"quantity": "2"})),
    ],
    "Usage": [
        ("takes the plan that is paid by usage", buys("metered")),
        ("makes 250 calls", uses("250")),
        ("the period ends, and the calls are paid", days(32)),
        ("a month without calls ends", days(31)),
        ("makes 100 calls and cancels in the portal", both(uses("100"), simulate("cancel"))),
        ("the period ends, and the calls are paid", days(31)),
    ],
    "Another price of the same product": [
        ("buys the monthly plan", buys()),
        ("changes to the yearly price", both(days(10), update(item={"price": "yearly"}))),
        ("a year passes", days(366)),
    ],
    "A schedule that changes the price": [
        ("buys the monthly plan", buys()),
        ("the next period is scheduled with a better plan", schedule(**NEXT_PHASE)),
        ("the period ends", days(32)),
        ("the last phase ends, and the plan goes on", days(32)),
    ],
    "A schedule that cancels": [
        ("buys the monthly plan", buys()),
        ("a schedule cancels at the end of the period", schedule(end_behavior="cancel")),
        ("the period ends", days(32)),
    ],
    "A schedule that is released": [
        ("buys the monthly plan", buys()),
        ("a schedule cancels at the end of the period", schedule(end_behavior="cancel")),
        ("the merchant releases the schedule", releases_the_schedule),
        ("the period ends", days(32)),
    ],
    "Collection that is paused, and invoices are void": [
        ("buys the monthly plan", buys()),
        ("the merchant pauses the collection", update(**{PAUSE: "void"})),
        ("the period ends", days(32)),
        ("the merchant resumes it", simulate("resume_collection")),
    ],
    "Collection that is paused, and invoices are kept as drafts": [
        ("buys the monthly plan", buys()),
        ("the merchant pauses the collection", update(**{PAUSE: "keep_as_draft"})),
        ("the period ends", days(32)),
        ("the merchant resumes it", simulate("resume_collection")),
    ],
    "A subscription that is paused": [
        ("buys the monthly plan", buys()),
        ("the merchant pauses it", simulate("pause")),
        ("two months pass", days(62)),
        ("the merchant resumes it", simulate("resume")),
    ],
    "A coupon that makes the first month free": [
        ("buys with a coupon of 100 %, once", coupon(percent_off="100", duration="once")),
        ("the first month ends", days(32)),
    ],
    "A coupon that makes everything free": [
        ("buys with a coupon of 100 %, forever", coupon(percent_off="100", duration="forever")),
        ("the card is removed", loses_the_card),
        ("the period ends", days(32)),
    ],
    "A coupon of half the price for three months": [
        (
            "buys with the coupon",
            coupon(percent_off="50", duration="repeating", duration_in_months="3"),
        ),
        ("four months pass", days(124)),
    ],
    "A tax that is added to the price": [
        ("subscribes with a sales tax of 8.25 %", taxed("Sales tax", "8.25", inclusive=False)),
        ("the period ends", days(32)),
        ("the tax is removed", update(default_tax_rates="")),
        ("the period ends", days(31)),
    ],
    "A tax that the price contains": [
        ("subscribes with a VAT of 19 %", taxed("VAT", "19", inclusive=True)),
        ("the period ends", days(32)),
        ("the merchant refunds the payment", simulate("refund")),
    ],
    "A price of zero": [
        ("takes the free plan without a card", begins("free")),
        ("the period ends", days(32)),
        ("buys the monthly plan", buys()),
    ],
    "A zero-decimal currency": [
        ("buys for 500 JPY", buys("yen")),
        ("the renewal is declined", both(changes_card("decline"), days(32))),
        ("changes the card and pays", changes_card("recover")),
    ],
    "An invoice that is sent": [
        ("the merchant bills by invoice, due in 7 days", begins(collection_method="send_invoice", days_until_due="7")),
        ("the invoice becomes overdue", days(9)),
        ("pays the invoice outside of Stripe", pays_the_open_invoice),
    ],
    "A bank debit": [
        ("buys by bank debit", buys(payment_method="pm_usBankAccount_success")),
        ("the bank pays", days(5)),
    ],
    "A bank debit that is returned": [
        ("buys by bank debit", buys(payment_method="pm_usBankAccount_insufficientFunds")),
        ("the bank returns the debit", days(5)),
    ],
    "A refund": [
        ("buys the monthly plan", buys()),
        ("the merchant refunds a part", simulate("refund", amount=200)),
        ("the merchant refunds the rest", simulate("refund")),
        ("the period ends", days(32)),
    ],
    "A dispute that is lost": [
        ("buys the monthly plan", buys()),
        ("disputes the payment", simulate("dispute")),
        ("the bank decides for the customer", dispute_ends("lost")),
    ],
    "A dispute that is won": [
        ("buys the monthly plan", buys()),
        ("disputes the payment", simulate("dispute")),
        ("the bank decides for the merchant", dispute_ends("won")),
    ],
    "A subscription that is moved to another user": [
        ("buys the monthly plan", buys()),
        ("the merchant moves it by metadata", update(**{"metadata[user_id]": "user_bob"})),
    ],
    "A customer that is deleted": [
        ("buys the monthly plan", buys()),
        ("the merchant deletes the customer", changes_card("delete_customer")),
    ],
}
"""The steps of each life, by its title: what happens, and the action on the double and the clocks."""
