"""Checkouts: one page and one customer for each user, the trial, the portal instead, refusals, and outages."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.billing.checkout import (
    CheckoutCompleted,
    FinishCheckout,
    FollowCheckout,
    OpenCheckout,
    OrderedItem,
)
from shared.messages.billing.subscriptions import GetSubscriptionStatus
from shared.messages.billing.trials import StartTrial, TrialStarted
from tests.billing.conftest import FAST, Shop, metered_price
from tests.billing.trials.test_handlers import command as trial_order
from tests.service_harness import Refused

SUCCESS = "https://getbeak.app/paid?session={CHECKOUT_SESSION_ID}"


def order(shop: Shop, *items: tuple[str, int | None], **changed: Any) -> OpenCheckout:
    """The order of a user, by default Ada's of one seat of the shop's price."""
    defaults: dict[str, Any] = {
        "key": "user_ada",
        "user_id": "user_ada",
        "client_id": "client_1",
        "email": "ada@example.com",
        "items": tuple(OrderedItem(price_id=price, quantity=count) for price, count in items or ((shop.price, None),)),
        "success_url": SUCCESS,
        "cancel_url": "https://getbeak.app/plans",
        "beak_id": "beak_ada",
        "fingerprint": "print_ada",
    }
    return OpenCheckout(**{**defaults, **changed})


async def answer_to(shop: Shop, command: OpenCheckout) -> dict[str, Any]:
    """Deliver an order and the commands to which it is forwarded, and return the reply."""
    message: Any = command
    for _ in range(5):
        known = len(shop.harness.published)
        reply: dict[str, Any] | None = await shop.harness.deliver(message)
        if reply is not None:
            return reply
        sent = [each for each in shop.harness.published[known:] if isinstance(each, OpenCheckout | FinishCheckout)]
        message = sent[-1]
        # Delivered here, and not by `settle` again.
        shop.harness.published.remove(message)
    raise AssertionError("the order is forwarded for ever")


async def check_out(shop: Shop, *items: tuple[str, int | None], **changed: Any) -> dict[str, Any]:
    """Order a checkout and return the reply."""
    return await answer_to(shop, order(shop, *items, **changed))


def sessions(shop: Shop) -> list[dict[str, Any]]:
    """The Checkout Sessions in Stripe, oldest first."""
    return shop.double.objects("checkout.session")


async def pay(shop: Shop, **options: Any) -> dict[str, Any]:
    """Pay the newest session, deliver all events, and return the session."""
    paid = shop.double.simulate.pay_checkout(sessions(shop)[-1]["id"], **options)
    await shop.deliver_all()
    return paid


async def price(shop: Shop, **changed: str) -> str:
    """The ID of another price."""
    form = {"currency": "usd", "unit_amount": "900", "recurring[interval]": "month", "product_data[name]": "Beak Pro"}
    form = {name: value for name, value in {**form, **changed}.items() if value}
    return str((await shop.post("/v1/prices", **form))["id"])


async def row(shop: Shop, **query: Any) -> dict[str, Any]:
    """The document of a checkout."""
    found = await shop.harness.database["checkouts"].find_one(query)
    assert found is not None
    return found


async def test_order_opens_a_session_for_the_users_customer(shop: Shop) -> None:
    reply = await check_out(shop, (shop.price, 3), locale="de-AT", trial=False)
    (session,), (customer,) = sessions(shop), shop.double.objects("customer")
    assert reply == {"kind": "checkout", "url": session["url"], "expires_at": reply["expires_at"]}
    assert (customer["email"], customer["metadata"]) == ("ada@example.com", {"user_id": "user_ada"})
    made = await row(shop)
    assert session["metadata"] == {"user_id": "user_ada", "checkout_id": made["_id"]}
    assert (session["client_reference_id"], session["customer"]) == ("user_ada", customer["id"])
    assert (session["mode"], session["locale"], session["success_url"]) == ("subscription", "de", SUCCESS)
    assert (session["allow_promotion_codes"], session["automatic_tax"]["enabled"]) == (None, False)
    assert session["amount_total"] == 1500
    assert (made["status"], made["stpSessionId"], made["openFor"]) == ("open", session["id"], "user_ada")
    assert session["url"] not in str(made)
    mapping = await shop.harness.database["provider_mappings"].find_one({"userId": "user_ada"})
    assert mapping is not None
    assert mapping["providerValue"] == customer["id"]


async def test_settings_add_promotion_codes_and_tax(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_promotion_codes=True, stripe_automatic_tax=True)
    await check_out(shop)
    (session,) = sessions(shop)
    assert (session["allow_promotion_codes"], session["automatic_tax"]["enabled"]) == (True, True)


async def test_same_order_returns_the_open_page_and_another_replaces_it(shop: Shop) -> None:
    first = await check_out(shop)
    assert await check_out(shop) == first
    assert len(sessions(shop)) == 1
    other = await check_out(shop, (shop.price, 2))
    assert other["url"] != first["url"]
    assert [each["status"] for each in sessions(shop)] == ["expired", "open"]
    assert len(shop.double.objects("customer")) == 1
    await shop.deliver_all()
    assert [(await row(shop, stpSessionId=each["id"]))["status"] for each in sessions(shop)] == ["replaced", "open"]


async def test_paid_checkout_makes_its_user_a_subscriber_at_once(shop: Shop) -> None:
    await check_out(shop, trial=False)
    paid = shop.double.simulate.pay_checkout(sessions(shop)[-1]["id"])
    await shop.deliver_types("checkout.session.completed")
    assert (await shop.harness.deliver(GetSubscriptionStatus(user_id="user_ada")))["status"] == "active"
    made = await row(shop)
    assert (made["status"], made["paymentStatus"], made["openFor"]) == ("complete", "paid", None)
    assert made["stpSubscriptionId"] == paid["subscription"]
    await shop.deliver_all()
    assert [each.mode for each in shop.harness.published_of(CheckoutCompleted)] == ["subscription"]
    assert await shop.count("trials") == 0


async def test_one_time_prices_are_paid_once(shop: Shop) -> None:
    book = await price(shop, **{"recurring[interval]": ""})
    await check_out(shop, (book, 2))
    paid = await pay(shop)
    assert (paid["mode"], paid["amount_total"]) == ("payment", 1800)
    assert (await shop.payment(paid["payment_intent"]))["userId"] == "user_ada"
    # A payment excludes nothing, so the next order opens another page.
    assert (await check_out(shop, (book, 2)))["kind"] == "checkout"


@pytest.mark.parametrize(
    ("method", "payment_status"),
    [("pm_usBankAccount_success", "paid"), ("pm_usBankAccount_insufficientFunds", "unpaid")],
)
async def test_bank_debit_brings_the_record_up_to_date(shop: Shop, method: str, payment_status: str) -> None:
    await check_out(shop, (await price(shop, **{"recurring[interval]": ""}), 1))
    await pay(shop, payment_method=method)
    assert (await row(shop))["paymentStatus"] == "unpaid"
    await shop.double.clock.advance(timedelta(days=5))
    await shop.deliver_all()
    assert (await row(shop))["paymentStatus"] == payment_status
    assert len(shop.harness.published_of(CheckoutCompleted)) == 1


async def test_abandoned_page_expires_and_the_next_order_opens_another(shop: Shop) -> None:
    await check_out(shop)
    await shop.double.clock.advance(timedelta(days=1, minutes=1))
    await shop.deliver_all()
    assert (await row(shop))["status"] == "expired"
    assert (await check_out(shop))["kind"] == "checkout"
    assert [each["status"] for each in sessions(shop)] == ["expired", "open"]


async def test_page_that_was_paid_a_moment_ago_is_not_sold_twice(shop: Shop) -> None:
    await check_out(shop, trial=False)
    # No event has arrived yet.
    shop.double.simulate.pay_checkout(sessions(shop)[-1]["id"])
    assert (await check_out(shop, trial=False))["kind"] == "portal"
    assert len(sessions(shop)) == 1


@pytest.mark.parametrize(("quantity", "flow"), [(4, "subscription_update_confirm"), (1, "subscription_update")])
async def test_live_subscription_is_changed_in_the_portal(shop: Shop, quantity: int, flow: str) -> None:
    await check_out(shop, trial=False)
    await pay(shop)
    reply = await check_out(shop, (shop.price, quantity))
    assert (reply["kind"], reply["expires_at"]) == ("portal", None)
    call = [each for each in shop.double.log if each.path == "/v1/billing_portal/sessions"][-1]
    assert (call.status, call.params["flow_data"]["type"]) == (200, flow)
    assert call.params["flow_data"]["after_completion"]["redirect"]["return_url"] == "https://getbeak.app/plans"


async def test_portal_without_the_flow_still_opens(shop: Shop) -> None:
    await check_out(shop, trial=False)
    await pay(shop)
    shop.double.faults.add(FaultKind.REFUSED, path="/v1/billing_portal/sessions", times=2)
    assert (await check_out(shop, (shop.price, 2)))["kind"] == "portal"


async def test_other_product_is_sold_beside_a_live_subscription(shop: Shop) -> None:
    await check_out(shop, trial=False)
    await pay(shop)
    assert (await check_out(shop, (await price(shop), None)))["kind"] == "checkout"


async def test_setting_allows_a_second_subscription(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_several_subscriptions=True)
    for _ in range(2):
        assert (await check_out(shop, trial=False))["kind"] == "checkout"
        await pay(shop)
    assert [each["status"] for each in shop.double.objects("subscription")] == ["active", "active"]


@pytest.mark.parametrize(
    ("named", "code", "kind"),
    [
        ({"price_unknown": {}}, "price_not_found", "not_found"),
        ({"../price_unknown": {}}, "price_not_found", "not_found"),
        ({"old": {"active": "false"}}, "price_inactive", "conflict"),
        ({"foreign": {"product_data[name]": "Coffee"}}, "price_not_sold", "forbidden"),
        ({"hidden": {"metadata[nest]": "false"}}, "price_not_sold", "forbidden"),
        ({"month": {}, "year": {"recurring[interval]": "year"}}, "mixed_intervals", "invalid"),
        ({"month": {}, "quarter": {"recurring[interval_count]": "3"}}, "mixed_intervals", "invalid"),
        ({"dollar": {}, "euro": {"currency": "eur"}}, "mixed_currencies", "invalid"),
    ],
)
async def test_order_that_cannot_be_sold_is_refused(
    open_shop: Callable[..., Any], named: dict[str, dict[str, str]], code: str, kind: str
) -> None:
    shop: Shop = await open_shop(stripe_products=("prod_sold",))
    await shop.post("/v1/products", id="prod_sold", name="Sold")
    items: list[tuple[str, int | None]] = []
    for name, changed in named.items():
        sold = {} if "product_data[name]" in changed else {"product_data[name]": "", "product": "prod_sold"}
        items.append((name if name.endswith("price_unknown") else await price(shop, **{**sold, **changed}), None))
    with pytest.raises(Refused) as refused:
        await check_out(shop, *items)
    assert (refused.value.code, refused.value.kind) == (code, kind)
    assert (sessions(shop), await shop.count("checkouts")) == ([], 0)


async def test_a_metered_price_is_sold_without_a_quantity(shop: Shop) -> None:
    metered = await metered_price(shop)
    with pytest.raises(Refused) as refused:
        await check_out(shop, (metered, 1))
    assert (refused.value.code, refused.value.meta) == (
        "quantity_not_allowed",
        {"price_id": metered, "max_quantity": None},
    )
    assert (await check_out(shop, (metered, None)))["kind"] == "checkout"


async def test_quantity_over_the_limit_of_the_product_is_refused(shop: Shop) -> None:
    product = await shop.post("/v1/products", name="Seats", **{"metadata[nest_max_quantity]": "2"})
    seats = await price(shop, **{"product_data[name]": "", "product": product["id"]})
    with pytest.raises(Refused) as refused:
        await check_out(shop, (seats, 3))
    assert (refused.value.code, refused.value.meta) == ("quantity_not_allowed", {"price_id": seats, "max_quantity": 2})
    assert (await check_out(shop, (seats, 2)))["kind"] == "checkout"


async def test_refusal_of_stripe_ends_the_checkout(shop: Shop) -> None:
    await check_out(shop, trial=False)
    await pay(shop)
    euro = await price(shop, currency="eur")
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await check_out(shop, (euro, None))
        assert refused.value.code == "checkout_refused_by_stripe"
    assert await shop.harness.database["checkouts"].count_documents({"status": "refused", "openFor": None}) == 2


async def test_too_many_orders_are_throttled(shop: Shop) -> None:
    for _ in range(30):
        await shop.harness.deliver(order(shop))
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(order(shop))
    assert refused.value.code == "too_many_checkouts"
    assert 0 < refused.value.meta["retry_after"] <= 600


async def test_parallel_orders_and_a_trial_make_one_customer(open_shop: Callable[..., Any]) -> None:
    shops: list[Shop] = [await open_shop(), await open_shop()]
    await asyncio.gather(
        *(check_out(shop) for shop in shops),
        _start_trial(shops[1]),
        return_exceptions=True,
    )
    assert len(shops[0].double.objects("customer")) == 1
    assert len([each for each in sessions(shops[0]) if each["status"] == "open"]) <= 1


async def _start_trial(shop: Shop) -> None:
    await shop.harness.deliver(trial_order())
    await shop.settle()


async def test_customer_of_a_trial_is_the_customer_of_the_checkout(shop: Shop) -> None:
    await _start_trial(shop)
    await check_out(shop, (await price(shop), None))
    (session,), (customer,) = sessions(shop), shop.double.objects("customer")
    assert session["customer"] == customer["id"]


async def test_customer_is_never_found_by_its_address_alone(shop: Shop) -> None:
    await shop.post("/v1/customers", email="ada@example.com")
    await shop.post("/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_eve"})
    own = await shop.post("/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_ada"})
    await check_out(shop)
    await check_out(shop, key="user_bob", user_id="user_bob")
    ada, bob = sessions(shop)
    assert ada["customer"] == own["id"]
    assert shop.double.object("customer", bob["customer"])["metadata"] == {"user_id": "user_bob"}


async def test_deleted_customer_is_replaced(shop: Shop) -> None:
    await check_out(shop)
    shop.double.simulate.delete_customer(sessions(shop)[0]["customer"])
    await check_out(shop, (shop.price, 2))
    assert sessions(shop)[-1]["customer"] != sessions(shop)[0]["customer"]


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/checkout/sessions", "/v1/checkout/sessions/*"])
@pytest.mark.parametrize("kind", [FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.RATE_LIMIT])
async def test_outage_is_reported_and_the_repeat_makes_nothing_twice(shop: Shop, path: str, kind: FaultKind) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(kind, path=path, after_work=kind is not FaultKind.RATE_LIMIT)
    with pytest.raises(Refused) as refused:
        await check_out(shop)
    assert (refused.value.code, refused.value.kind) == ("unavailable", "unavailable")
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    assert (await check_out(shop))["kind"] == "checkout"
    assert (len(shop.double.objects("customer")), len(sessions(shop))) == (1, 1)


async def test_spent_keys_delay_the_session_by_minutes_at_most(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    spent = {"path": "/v1/checkout/sessions", "method": "POST", "stored": True}
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=1, **spent)
    # The next key of the same attempt.
    assert (await check_out(shop))["kind"] == "checkout"
    shop.double.faults.add(FaultKind.SERVER_ERROR, **spent)
    with pytest.raises(Refused):
        await check_out(shop, (shop.price, 2))
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    shop.harness.now += timedelta(minutes=11)
    assert (await check_out(shop, (shop.price, 2)))["kind"] == "checkout"
    assert [each["status"] for each in sessions(shop)] == ["expired", "open"]


async def test_second_delivery_returns_the_same_page(shop: Shop) -> None:
    await shop.harness.deliver(order(shop))
    (finish,) = shop.harness.published_of(FinishCheckout)
    first = await shop.harness.deliver(finish, id="message_1")
    calls = len(shop.double.log)
    assert await shop.harness.deliver(finish, id="message_1") == first
    assert len(shop.double.log) == calls


async def test_trial_begins_once_for_user_person_and_device(shop: Shop) -> None:
    await check_out(shop)
    paid = await pay(shop)
    subscription = shop.double.object("subscription", paid["subscription"])
    assert (subscription["status"], paid["amount_total"]) == ("trialing", 0)
    (started,) = shop.harness.published_of(TrialStarted)
    assert started.user_id == "user_ada"
    trial = await shop.harness.database["trials"].find_one({"userId": "user_ada"})
    assert trial is not None
    assert (trial["stpSubscriptionId"], trial["device"]["beakId"]) == (subscription["id"], "beak_ada")
    fingerprint = shop.double.object("payment_method", subscription["default_payment_method"])["card"]["fingerprint"]
    assert trial["card"]
    assert fingerprint not in str(trial)
    for changed in (
        {"user_id": "user_bob", "email": "bob@example.com", "beak_id": "beak_ada"},
        {"user_id": "user_eve", "email": "ada+2@example.com", "beak_id": "other"},
    ):
        await check_out(shop, key=changed["user_id"], fingerprint=f"of {changed['user_id']}", **changed)
        assert sessions(shop)[-1]["amount_total"] == 500
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(trial_order(user_id="user_new", email="new@example.com"))
    assert refused.value.code == "trial_already_used"


async def test_client_may_sell_without_a_trial(shop: Shop) -> None:
    await check_out(shop, trial=False)
    assert sessions(shop)[0]["amount_total"] == 500


BOB = {"key": "user_bob", "user_id": "user_bob", "email": "bob@example.com", "beak_id": "b", "fingerprint": "b"}


@pytest.mark.parametrize(
    ("setting", "method", "status"),
    [(True, "pm_card_visa", "active"), (True, "pm_card_mastercard", "trialing"), (False, "pm_card_visa", "trialing")],
)
async def test_card_has_one_trial_if_the_setting_says_so(
    open_shop: Callable[..., Any], method: str, status: str, *, setting: bool
) -> None:
    shop: Shop = await open_shop(trial_once_per_card=setting)
    await check_out(shop)
    await pay(shop, payment_method="pm_card_visa")
    await check_out(shop, **BOB)
    paid = await pay(shop, payment_method=method)
    assert shop.double.object("subscription", paid["subscription"])["status"] == status
    assert (await shop.record(paid["subscription"]))["status"] == status
    # Either way Bob has had a trial.
    assert await shop.count("trials") == 2
    await shop.deliver_all()
    ended = [each for each in shop.double.log if each.params.get("trial_end") == "now"]
    assert len(ended) == (status == "active")


async def test_device_that_two_people_used_at_once_has_one_trial(shop: Shop) -> None:
    await check_out(shop)
    await check_out(shop, **{**BOB, "beak_id": "beak_ada"})
    first, second = (each["id"] for each in sessions(shop))
    shop.double.simulate.pay_checkout(first)
    shop.double.simulate.pay_checkout(second, payment_method="pm_card_mastercard")
    await shop.deliver_all()
    assert sorted(each["status"] for each in shop.double.objects("subscription")) == ["active", "trialing"]


async def test_session_of_another_system_is_left_alone(shop: Shop) -> None:
    form = {"mode": "subscription", "success_url": "https://x.example", "line_items[0][price]": shop.price}
    made = await shop.post("/v1/checkout/sessions", **form, **{"line_items[0][quantity]": "1"})
    shop.double.simulate.pay_checkout(made["id"])
    await shop.deliver_types("checkout.session.completed")
    assert [each["outcome"] for each in await shop.event_rows()] == ["not_followed"]


async def test_lost_webhook_of_an_outage_is_read_later(shop: Shop) -> None:
    await check_out(shop, trial=False)
    shop.double.simulate.pay_checkout(sessions(shop)[-1]["id"])
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR, path="/v1/checkout/sessions/*")
    (completed,) = [each for each in shop.double.objects("event") if each["type"] == "checkout.session.completed"]
    await shop.deliver(completed)
    assert (await row(shop))["status"] == "open"
    (again,) = [each for _, each in await shop.harness.delayed() if isinstance(each, FollowCheckout)]
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    await shop.harness.deliver(again)
    assert (await row(shop))["status"] == "complete"


async def test_erased_user_orders_nothing(shop: Shop) -> None:
    await shop.harness.database["erased"].insert_one({"_id": "user_ada"})
    with pytest.raises(Refused) as refused:
        await check_out(shop)
    assert refused.value.code == "not_found"
    assert StartTrial.topic == OpenCheckout.topic
