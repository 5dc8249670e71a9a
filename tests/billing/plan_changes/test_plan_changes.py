"""Changes of plan: what a preview shows, what an order costs, and when it takes effect."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.billing.catalog.offers import offer_of
from services.billing.plan_changes.rules import PlanChange, plan_change
from services.stripe_double.faults import FaultKind
from shared.messages import Query
from shared.messages.billing.customer_state import GetCustomerState
from shared.messages.billing.errors import QuantityNotAllowed, SubscriptionNotChangeable
from shared.messages.billing.plan_changes import (
    CancelSubscription,
    ChangePlan,
    PreviewPlanChange,
    WithdrawCancellation,
)
from shared.messages.billing.subscriptions import GetSubscriptionState, PlanChanged
from tests.billing.conftest import ADA, MONTH, Shop, metered_price, post
from tests.service_harness import Refused

DAY = timedelta(days=1)
ADA_ID = {"user_id": "user_ada"}
STATES: tuple[Query, ...] = (GetSubscriptionState(**ADA_ID), GetCustomerState(**ADA_ID))
HALF = pytest.approx(250, abs=1)


class Plans:
    """A shop whose subscription of Ada is halfway through a month of 5.00 USD, and other prices."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.prices: dict[str, str] = {"basic": shop.price}
        self.subscription = ""

    async def open(self, *, subscribe: bool = True, **checkout: Any) -> "Plans":
        """Create the prices and, half a month ago, the subscription."""
        amounts = {
            "pro": (1000, "month"),
            "lite": (200, "month"),
            "yearly": (5000, "year"),
            "daily": (100, "day"),
        }
        for name, (amount, interval) in amounts.items():
            self.prices[name] = await self.price(amount, interval)
        if subscribe:
            made = self.shop.double.simulate.checkout(
                checkout.pop("price", self.shop.price), email="ada@example.com", metadata=ADA, **checkout
            )
            self.subscription = str(made["id"])
            period = self.item()["current_period_end"] - self.item()["current_period_start"]
            await self.shop.double.clock.advance(timedelta(seconds=period // 2))
        await self.settle()
        return self

    async def price(self, amount: int, interval: str = "month", currency: str = "usd", **form: str) -> str:
        """Create a price; of a product of its own unless the form names one."""
        product = {} if "product" in form else {"product_data[name]": "Other"}
        recurring = {"recurring[interval]": interval}
        fields = {"currency": currency, "unit_amount": str(amount), **recurring, **product, **form}
        fields = {name: value for name, value in fields.items() if value}
        return str((await post(self.shop.double, "/v1/prices", **fields))["id"])

    async def settle(self) -> None:
        """Deliver all events."""
        self.shop.harness.now = self.shop.double.clock.time
        await self.shop.deliver_all()
        self.shop.harness.published.clear()
        self.shop._settled = 0

    def in_stripe(self) -> dict[str, Any]:
        return self.shop.double.object("subscription", self.subscription)

    def item(self) -> dict[str, Any]:
        return dict(self.in_stripe()["items"]["data"][0])

    def present(self) -> tuple[str, int]:
        """Name of the price and quantity in Stripe."""
        names = {identifier: name for name, identifier in self.prices.items()}
        return names[self.item()["price"]["id"]], self.item()["quantity"]

    async def preview(self, name: str, **fields: Any) -> dict[str, Any]:
        query = PreviewPlanChange(**ADA_ID, price_id=self.prices.get(name, name), **fields)
        view: dict[str, Any] = await self.shop.harness.deliver(query)
        return view

    async def change(self, name: str, *, id: str | None = None, **fields: Any) -> dict[str, Any]:  # noqa: A002
        command = ChangePlan(**ADA_ID, price_id=self.prices.get(name, name), **fields)
        view: dict[str, Any] = await self.shop.harness.deliver(command, id=id)
        return view

    async def refused(self, name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        with pytest.raises(Refused) as refusal:
            await self.change(name, **fields)
        return refusal.value.code, refusal.value.meta

    async def special_price(self, name: str) -> None:
        """Create a price that may not be ordered so."""
        if name == "archived":
            self.prices[name] = await self.price(700)
            await post(self.shop.double, f"/v1/prices/{self.prices[name]}", active="false")
        if name == "euro":
            self.prices[name] = await self.price(700, currency="eur")
        if name == "hidden":
            self.prices[name] = await self.price(700, **{"metadata[nest]": "false"})
        if name == "once":
            self.prices[name] = await self.price(700, **{"recurring[interval]": ""})
        if name.startswith("metered"):
            self.prices[name] = await metered_price(self.shop)
        if name == "limited":
            self.prices[name] = await self.price(700, **{"metadata[nest_max_quantity]": "2"})

    async def bring_to(self, state: str) -> None:
        """Bring the subscription to a state in which its plan can't be changed."""
        if state == "past_due":
            self.shop.double.simulate.decline(self.in_stripe()["customer"])
            await self.shop.double.clock.advance(MONTH / 2 + DAY)
        if state == "paused":
            self.shop.double.simulate.pause(self.subscription)
        if state == "cancelled":
            await self.shop.harness.deliver(CancelSubscription(**ADA_ID))
        if state == "ended":
            self.shop.double.simulate.cancel(self.subscription, at="now")
        if state == "scheduled":
            schedule = await post(self.shop.double, "/v1/subscription_schedules", from_subscription=self.subscription)
            (phase,) = schedule["phases"]
            phases = {
                "phases[0][items][0][price]": self.shop.price,
                "phases[0][start_date]": str(phase["start_date"]),
                "phases[0][end_date]": str(phase["end_date"]),
                "phases[1][items][0][price]": self.prices["pro"],
                "phases[1][iterations]": "1",
            }
            await post(self.shop.double, f"/v1/subscription_schedules/{schedule['id']}", **phases)

    def paid(self) -> list[int]:
        """Amounts of the charges that succeeded."""
        return [charge["amount"] for charge in self.shop.double.objects("charge") if charge["status"] == "succeeded"]


@pytest.mark.parametrize(
    ("name", "quantity", "effect", "due", "credit", "following"),
    [
        # Half of 10.00 less half of 5.00.
        ("pro", None, "now", 250, 250, 1000),
        ("basic", 3, "now", 500, 250, 1500),
        # A new period of a year begins.
        ("yearly", None, "now", 4750, 250, 5000),
        ("lite", None, "period_end", 0, 0, 200),
        ("daily", None, "period_end", 0, 0, 100),
        ("basic", None, "none", 0, 0, 500),
    ],
)
async def test_an_order_costs_what_its_preview_shows(  # noqa: PLR0917
    name: str, quantity: int | None, effect: str, due: int, credit: int, following: int, shop: Shop
) -> None:
    plans = await Plans(shop).open()
    view = await plans.preview(name, quantity=quantity)
    assert (view["effect"], view["currency"], view["decimals"]) == (effect, "usd", 2)
    assert (view["due_now"], view["credit"]) == (pytest.approx(due, abs=1), pytest.approx(credit, abs=1))
    assert view["next_invoice_amount"] == following
    before = len(plans.paid())
    # Time passes between preview and order; the prorations are those of the preview.
    await shop.double.clock.advance(timedelta(minutes=20))
    shop.harness.now = shop.double.clock.time
    ordered = await plans.change(name, quantity=quantity, preview=view["preview"])
    assert ordered["outcome"] == {"now": "done", "period_end": "planned", "none": "unchanged"}[effect]
    assert sum(plans.paid()[before:]) == view["due_now"]
    # The next query shows it, the event is published once, and a repeat changes nothing.
    changed = len(shop.harness.published_of(PlanChanged))
    assert changed == (effect == "now")
    await shop.deliver_all()
    assert len(shop.harness.published_of(PlanChanged)) == changed
    charges = len(plans.paid())
    assert (await plans.change(name, quantity=quantity, preview=view["preview"]))["outcome"] == "unchanged"
    assert len(plans.paid()) == charges
    if effect == "now":
        assert plans.present() == (name, quantity or 1)


@pytest.mark.parametrize("name", ["lite", "daily"])
async def test_a_downgrade_takes_effect_at_the_end_of_the_period(name: str, shop: Shop) -> None:
    plans = await Plans(shop).open()
    ordered = await plans.change(name)
    assert (ordered["outcome"], ordered["items"][0]["price_id"]) == ("planned", shop.price)
    assert ordered["planned_change"]["items"] == [{"price_id": plans.prices[name], "quantity": 1}]
    assert ordered["planned_change"]["at"] == ordered["end_date"]
    assert plans.present() == ("basic", 1)
    assert ordered["will_renew"] is True
    await shop.double.clock.advance(MONTH / 2 + DAY)
    assert plans.present() == (name, 1)
    assert plans.paid()[-1] == {"lite": 200, "daily": 100}[name]


async def test_a_planned_downgrade_is_replaced_or_dropped(shop: Shop) -> None:
    plans = await Plans(shop).open()
    await plans.change("lite")
    replaced = await plans.change("daily")
    assert replaced["planned_change"]["items"] == [{"price_id": plans.prices["daily"], "quantity": 1}]
    kept = await plans.change("basic")
    assert (kept["outcome"], kept["planned_change"]) == ("done", None)
    await plans.change("lite")
    upgraded = await plans.change("pro")
    assert (upgraded["outcome"], upgraded["planned_change"], plans.present()) == ("done", None, ("pro", 1))


@pytest.mark.parametrize(("proration", "due"), [("always_invoice", 0), ("create_prorations", 0), ("none", 0)])
async def test_a_downgrade_is_made_at_once_by_a_setting(
    proration: str, due: int, open_shop: Callable[..., Any]
) -> None:
    plans = await Plans(await open_shop(stripe_downgrade="now", stripe_proration=proration)).open()
    view = await plans.preview("lite")
    assert (view["effect"], view["due_now"]) == ("now", due)
    assert (await plans.change("lite", preview=view["preview"]))["outcome"] == "done"
    assert plans.present() == ("lite", 1)
    balance = plans.shop.double.object("customer", plans.in_stripe()["customer"])["balance"]
    # Half of 5.00 less half of 2.00.
    assert balance == (pytest.approx(-150, abs=1) if proration == "always_invoice" else 0)


@pytest.mark.parametrize(("proration", "due", "following"), [("create_prorations", 0, 1250), ("none", 0, 1000)])
async def test_an_upgrade_is_charged_by_the_setting(
    proration: str, due: int, following: int, open_shop: Callable[..., Any]
) -> None:
    plans = await Plans(await open_shop(stripe_proration=proration)).open()
    view = await plans.preview("pro")
    assert (view["due_now"], view["next_invoice_amount"]) == (due, pytest.approx(following, abs=1))
    before = plans.paid()
    assert (await plans.change("pro", preview=view["preview"]))["outcome"] == "done"
    assert plans.paid() == before


async def test_a_trial_stays_a_trial(shop: Shop) -> None:
    plans = await Plans(shop).open(trial_days=14)
    trial_end = plans.in_stripe()["trial_end"]
    for name in ("pro", "lite", "yearly"):
        view = await plans.preview(name)
        assert (view["effect"], view["due_now"], view["credit"]) == ("now", 0, 0)
        ordered = await plans.change(name, preview=view["preview"])
        assert (ordered["outcome"], ordered["status"]) == ("done", "trialing")
        assert (plans.in_stripe()["trial_end"], plans.present()) == (trial_end, (name, 1))
    assert plans.paid() == []


@pytest.mark.parametrize(
    ("card", "action"),
    [("pm_card_chargeCustomerFail", "payment"), ("pm_card_authenticationRequired", "authentication")],
)
async def test_an_upgrade_that_the_bank_does_not_pay_entitles_to_nothing(card: str, action: str, shop: Shop) -> None:
    plans = await Plans(shop).open()
    customer = plans.in_stripe()["customer"]
    shop.double.simulate.change_card(customer, card)
    ordered = await plans.change("pro")
    assert (ordered["outcome"], ordered["required_action"]) == ("action_required", action)
    assert ordered["payment_url"] == f"link:payment:{plans.subscription}"
    assert (ordered["status"], ordered["entitled"], plans.present()) == ("active", True, ("basic", 1))
    await shop.deliver_all()
    shown = ("active", True, action, ordered["payment_url"])
    assert [await shown_action(shop, query) for query in STATES] == [shown] * 2
    invoices = len(shop.double.objects("invoice"))
    assert (await plans.change("pro"))["outcome"] == "action_required"
    assert len(shop.double.objects("invoice")) == invoices
    await shop.deliver_all()
    assert shop.harness.published_of(PlanChanged) == []
    if action == "authentication":
        shop.double.simulate.authenticate(plans.subscription)
    else:
        shop.double.simulate.recover(customer)
    await shop.deliver_all()
    (event,) = shop.harness.published_of(PlanChanged)
    assert event.after[0].price_id == plans.prices["pro"]
    assert plans.present() == ("pro", 1)
    assert [await shown_action(shop, query) for query in STATES] == [("active", True, None, None)] * 2


async def shown_action(shop: Shop, query: Query) -> tuple[Any, ...]:
    """What an app that was opened again learns: status, access, what the person has to do, and where."""
    state = await shop.harness.deliver(query)
    shown = state["plans"][0] if "plans" in state else state
    return shown["status"], shown["entitled"], shown["required_action"], shown["payment_url"]


async def test_an_upgrade_that_nobody_pays_is_dropped(shop: Shop) -> None:
    plans = await Plans(shop).open()
    shop.double.simulate.decline(plans.in_stripe()["customer"])
    await plans.change("pro")
    # Also while the event about it is late.
    shop.harness.now += DAY
    assert [await shown_action(shop, query) for query in STATES] == [("active", True, None, None)] * 2
    await shop.double.clock.advance(DAY)
    await plans.settle()
    assert (plans.in_stripe()["pending_update"], plans.present()) == (None, ("basic", 1))
    assert (await shop.harness.deliver(GetSubscriptionState(**ADA_ID)))["status"] == "active"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("later", "preview_outdated"),
        ("another price", "preview_outdated"),
        ("another quantity", "preview_outdated"),
        ("another amount", "preview_outdated"),
        ("next period", "preview_outdated"),
        ("another token", "preview_outdated"),
    ],
)
async def test_an_outdated_preview_is_refused(change: str, code: str, shop: Shop) -> None:
    plans = await Plans(shop).open()
    name, fields = "pro", {"preview": (await plans.preview("pro"))["preview"]}
    if change == "later":
        shop.harness.now += timedelta(minutes=31)
    if change == "another price":
        name = "yearly"
    if change == "another quantity":
        fields["quantity"] = 2
    if change == "another amount":
        path = f"/v1/customers/{plans.in_stripe()['customer']}/balance_transactions"
        await post(shop.double, path, amount="-100", currency="usd")
    if change == "next period":
        await shop.double.clock.advance(MONTH)
    if change == "another token":
        fields["preview"] = shop.harness.context.seal("[]")
    assert (await plans.refused(name, **fields))[0] == code
    assert plans.present() == ("basic", 1)


@pytest.mark.parametrize(
    ("state", "name", "code", "meta"),
    [
        ("active", "price_unknown", "price_not_found", {"price_id": "price_unknown"}),
        ("active", "archived", "price_inactive", {}),
        ("active", "hidden", "price_not_sold", {}),
        ("active", "once", "subscription_not_changeable", {"reason": "one_time"}),
        ("active", "metered", "subscription_not_changeable", {"reason": "usage_type"}),
        ("active", "euro", "currency_not_offered", {"currency": "usd"}),
        ("active", "limited", "quantity_not_allowed", {"max_quantity": 2}),
        ("active", "metered with a quantity", "quantity_not_allowed", {"max_quantity": None}),
        ("past_due", "pro", "subscription_not_changeable", {"reason": "status", "status": "past_due"}),
        ("paused", "pro", "subscription_not_changeable", {"reason": "status", "status": "paused"}),
        ("cancelled", "pro", "subscription_not_changeable", {"reason": "cancellation_planned"}),
        ("scheduled", "pro", "subscription_not_changeable", {"reason": "schedule"}),
        ("ended", "pro", "subscription_ended", {}),
    ],
)
async def test_a_change_that_is_not_possible_is_refused(
    state: str, name: str, code: str, meta: dict[str, Any], shop: Shop
) -> None:
    plans = await Plans(shop).open()
    await plans.special_price(name)
    await plans.bring_to(state)
    await plans.settle()
    # The catalog in memory is a second old at most.
    shop.harness.context.catalog._fresh_until = float("-inf")
    if code in ("price_inactive", "price_not_sold", "quantity_not_allowed"):
        meta = {"price_id": plans.prices[name], **meta}
    quantity = {"limited": 3, "metered with a quantity": 1}.get(name)
    assert await plans.refused(name, quantity=quantity) == (code, meta)
    if state != "ended":
        assert plans.present() == ("basic", 1)


async def test_the_replaced_price_says_which_of_several_items_changes(shop: Shop) -> None:
    plans = await Plans(shop).open()
    storage = await plans.price(100)
    await post(
        shop.double,
        f"/v1/subscriptions/{plans.subscription}",
        **{"items[0][price]": storage, "proration_behavior": "none"},
    )
    await plans.settle()
    assert await plans.refused("pro") == ("subscription_not_changeable", {"reason": "item"})
    assert await plans.refused(storage, replaces=shop.price) == (
        "subscription_not_changeable",
        {"reason": "price_in_use"},
    )
    ordered = await plans.change("pro", replaces=shop.price)
    assert [item["price_id"] for item in ordered["items"]] == [plans.prices["pro"], storage]
    ordered = await plans.change("lite", replaces=plans.prices["pro"])
    assert ordered["planned_change"]["items"] == [
        {"price_id": plans.prices["lite"], "quantity": 1},
        {"price_id": storage, "quantity": 1},
    ]


async def test_a_product_of_another_live_subscription_is_excluded(shop: Shop) -> None:
    plans = await Plans(shop).open()
    other = shop.double.simulate.checkout(plans.prices["pro"], customer=plans.in_stripe()["customer"], metadata=ADA)
    await plans.settle()
    record = await shop.record(plans.subscription)
    code, meta = await plans.refused("pro", subscription_id=record["_id"])
    assert (code, meta["subscription_id"]) == ("subscription_excluded", (await shop.record(other["id"]))["_id"])


async def test_setting_allows_a_change_to_the_product_of_another_subscription(open_shop: Callable[..., Any]) -> None:
    plans = await Plans(await open_shop(stripe_several_subscriptions=True)).open()
    plans.shop.double.simulate.checkout(plans.prices["pro"], customer=plans.in_stripe()["customer"], metadata=ADA)
    await plans.settle()
    record = await plans.shop.record(plans.subscription)
    assert (await plans.change("pro", subscription_id=record["_id"]))["outcome"] == "done"
    assert plans.present() == ("pro", 1)


async def test_a_metered_price_is_not_replaced_by_one_with_a_quantity(shop: Shop) -> None:
    plans, stripe = await Plans(shop).open(), shop.harness.context.stripe
    metered = await metered_price(shop)
    reading = await stripe.subscription(plans.subscription)
    assert reading is not None
    item, terms = (
        replace(reading.items[0], stp_price_id=metered, quantity=None),
        replace(reading.terms[0], metered=True),
    )
    reading = replace(reading, items=(item,), terms=(terms,))

    async def change(price_id: str, quantity: int | None) -> PlanChange:
        target = ChangePlan(**ADA_ID, price_id=price_id, quantity=quantity)
        offer = await offer_of(price_id, stripe, shop.harness.context)
        return plan_change(reading, target, offer, downgrade="now")

    for quantity in (None, 2):
        with pytest.raises(SubscriptionNotChangeable) as refused:
            await change(plans.prices["pro"], quantity)
        assert refused.value.meta == {"reason": "usage_type"}
    with pytest.raises(QuantityNotAllowed):
        await change(metered, 1)
    assert (await change(metered, None)).effect == "none"


@pytest.mark.parametrize("after_work", [False, True])
@pytest.mark.parametrize("name", ["pro", "lite"])
async def test_a_failure_of_stripe_changes_a_plan_once(
    name: str,
    after_work: bool,  # noqa: FBT001
    shop: Shop,
) -> None:
    plans = await Plans(shop).open()
    path = "/v1/subscription*"
    shop.double.faults.add(
        FaultKind.SERVER_ERROR, times=1, method="POST", path=path, after_work=after_work, stored=not after_work
    )
    before = len(plans.paid())
    assert (await plans.change(name))["outcome"] == ("done" if name == "pro" else "planned")
    assert len(plans.paid()) == before + (name == "pro")


async def test_a_second_delivery_charges_once(shop: Shop) -> None:
    plans = await Plans(shop).open()
    before = len(plans.paid())
    views = [await plans.change("pro", id="m1") for _ in range(2)]
    assert views[0] == views[1]
    assert len(plans.paid()) == before + 1


async def test_a_cancellation_drops_a_planned_downgrade(shop: Shop) -> None:
    plans = await Plans(shop).open()
    await plans.change("lite")
    cancelled = await shop.harness.deliver(CancelSubscription(**ADA_ID))
    assert (cancelled["outcome"], cancelled["planned_change"]) == ("planned", None)
    resumed = await shop.harness.deliver(WithdrawCancellation(**ADA_ID))
    assert (resumed["outcome"], resumed["planned_change"], resumed["will_renew"]) == ("done", None, True)


async def test_a_currency_without_decimals_is_previewed_in_whole_units(shop: Shop) -> None:
    plans = Plans(shop)
    yen = await plans.price(1000, currency="jpy")
    plans.prices["more"] = await plans.price(3000, currency="jpy")
    await plans.open(price=yen)
    view = await plans.preview("more")
    assert (view["currency"], view["decimals"], view["next_invoice_amount"]) == ("jpy", 0, 3000)
    assert view["due_now"] == pytest.approx(1000, abs=1)
