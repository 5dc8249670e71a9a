"""Cancellations that a person orders, and their withdrawal: what Stripe has, Nest answers and publishes afterwards."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api.calls import Timeouts
from services.billing.subscriptions.models import ENDED
from services.stripe_double import Settings, StripeDouble
from services.stripe_double.faults import FaultKind
from shared.messages import Caller, Sealed
from shared.messages.billing.plan_changes import CancelSubscription, WithdrawCancellation
from shared.messages.billing.subscriptions import (
    CancellationPlanned,
    CancellationWithdrawn,
    DuplicateSubscriptionCancelled,
    GetSubscriptionState,
    SubscriptionEnded,
    SubscriptionResumed,
)
from tests.billing.conftest import ADA, FAST, MONTH, Shop, post
from tests.service_harness import Refused

CANCEL = CancelSubscription(user_id="user_ada")
CANCEL_NOW = CancelSubscription(user_id="user_ada", at="now")
RESUME = WithdrawCancellation(user_id="user_ada")
STATE = GetSubscriptionState(user_id="user_ada")
DAY = timedelta(days=1)
PERSON = Caller(kind="user", user_id="user_ada", client_id="client_1")


async def subscribed(shop: Shop, state: str = "active") -> str:
    """A subscription of Ada in a state; returns its ID in Stripe."""
    options: dict[str, Any] = {"email": "ada@example.com", "metadata": ADA}
    if state == "trialing":
        options["trial_days"] = 14
    if state == "incomplete":
        options["payment_method"] = None
    made = shop.double.simulate.checkout(shop.price, **options)
    if state in ("past_due", "unpaid"):
        shop.double.account.settings = Settings(after_retries=state)
        shop.double.simulate.decline(made["customer"])
        await shop.double.clock.advance(MONTH if state == "past_due" else 60 * DAY)
        shop.harness.now = shop.double.clock.time
    if state == "paused":
        shop.double.simulate.pause(made["id"])
    if state == "collection_paused":
        shop.double.simulate.pause_collection(made["id"])
    if state == "ended":
        shop.double.simulate.cancel(made["id"], at="now")
    if state == "flag":
        shop.double.simulate.cancel(made["id"])
    if state == "date":
        shop.double.simulate.cancel(made["id"], at="date")
    if state in ("scheduled", "scheduled_end"):
        schedule = await post(shop.double, "/v1/subscription_schedules", from_subscription=made["id"])
        behavior = "cancel" if state == "scheduled_end" else "release"
        await post(shop.double, f"/v1/subscription_schedules/{schedule['id']}", end_behavior=behavior)
    await shop.deliver_all()
    shop.harness.clear()
    shop._settled = 0  # The list that it counts was emptied.
    return str(made["id"])


async def refused(shop: Shop, order: Any) -> Refused:
    with pytest.raises(Refused) as refusal:
        await shop.harness.deliver(order)
    return refusal.value


def calls(shop: Shop) -> list[str]:
    """The requests that changed something in Stripe."""
    return [f"{call.method} {call.path}" for call in shop.double.log if call.method != "GET"]


@pytest.mark.parametrize(
    ("state", "order", "outcome", "status"),
    [
        ("active", CANCEL, "planned", "active"),
        ("trialing", CANCEL, "planned", "trialing"),
        ("past_due", CANCEL, "planned", "past_due"),
        ("collection_paused", CANCEL, "planned", "active"),
        ("scheduled", CANCEL, "planned", "active"),
        ("active", CANCEL_NOW, "done", "canceled"),
        ("trialing", CANCEL_NOW, "done", "canceled"),
        ("past_due", CANCEL_NOW, "done", "canceled"),
        ("scheduled", CANCEL_NOW, "done", "canceled"),
        ("flag", CANCEL_NOW, "done", "canceled"),
        # Without access there is nothing to keep until the end of a period.
        ("unpaid", CANCEL, "done", "canceled"),
        ("paused", CANCEL, "done", "canceled"),
        ("incomplete", CANCEL, "done", "incomplete_expired"),
        ("flag", CANCEL, "unchanged", "active"),
        ("date", CANCEL, "unchanged", "active"),
        ("scheduled_end", CANCEL, "unchanged", "active"),
        ("ended", CANCEL, "unchanged", "canceled"),
        ("ended", CANCEL_NOW, "unchanged", "canceled"),
    ],
)
async def test_a_cancellation_by_state(
    state: str, order: CancelSubscription, outcome: str, status: str, shop: Shop
) -> None:
    stripe_id = await subscribed(shop, state)
    view = await shop.harness.deliver(order)
    assert (view["outcome"], view["status"], view["will_renew"]) == (outcome, status, False)
    in_stripe = shop.double.object("subscription", stripe_id)
    assert in_stripe["status"] == status
    if status not in ENDED:
        assert view["entitled"] is (state != "collection_paused")
        # The grace period may end before the period.
        assert view["access_ends_at"] == view["end_date"] or state == "past_due"
        assert in_stripe["cancel_at"] is not None or state == "scheduled_end"
    else:
        assert (view["entitled"], view["access_ends_at"]) == (False, view["end_date"])
    # The caller's next query shows it, and the webhooks find nothing new.
    state_view = await shop.harness.deliver(STATE)
    assert state_view["status"] == ("none" if status in ENDED else status)
    planned, ended = (len(shop.harness.published_of(kind)) for kind in (CancellationPlanned, SubscriptionEnded))
    assert (planned, ended) == (outcome == "planned", outcome == "done")
    await shop.deliver_all()
    assert len(shop.harness.published_of(CancellationPlanned)) == planned
    assert len(shop.harness.published_of(SubscriptionEnded)) == ended


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("flag", "done"),
        ("date", "done"),
        ("scheduled_end", "done"),
        ("paused", "done"),
        ("collection_paused", "done"),
        ("active", "unchanged"),
        ("trialing", "unchanged"),
        ("scheduled", "unchanged"),
        ("past_due", "unchanged"),
        ("unpaid", "unchanged"),
    ],
)
async def test_a_withdrawal_by_state(state: str, outcome: str, shop: Shop) -> None:
    stripe_id = await subscribed(shop, state)
    view = await shop.harness.deliver(RESUME)
    assert (view["outcome"], view["will_renew"], view["access_ends_at"] is None) == (outcome, True, True)
    in_stripe = shop.double.object("subscription", stripe_id)
    assert (in_stripe["cancel_at"], in_stripe["cancel_at_period_end"], in_stripe["pause_collection"]) == (
        None,
        False,
        None,
    )
    assert in_stripe["status"] == (state if state in ("trialing", "past_due", "unpaid") else "active")
    assert (view["payment_url"] is not None) is (state in ("past_due", "unpaid"))
    withdrawn = len(shop.harness.published_of(CancellationWithdrawn))
    resumed = len(shop.harness.published_of(SubscriptionResumed))
    assert (withdrawn, resumed) == (
        state in ("flag", "date", "scheduled_end"),
        state in ("paused", "collection_paused"),
    )
    assert (await shop.harness.deliver(STATE))["cancel_at"] is None
    await shop.deliver_all()
    assert len(shop.harness.published_of(CancellationWithdrawn)) == withdrawn
    assert len(shop.harness.published_of(SubscriptionResumed)) == resumed


@pytest.mark.parametrize("state", ["ended", "incomplete_expired"])
async def test_an_ended_subscription_is_not_resumed(state: str, shop: Shop) -> None:
    await subscribed(shop, "ended" if state == "ended" else "incomplete")
    if state != "ended":
        await shop.harness.deliver(CANCEL)
    refusal = await refused(shop, RESUME)
    assert (refusal.kind, refusal.code) == ("conflict", "subscription_ended")


@pytest.mark.parametrize("order", [CANCEL, RESUME])
async def test_a_person_without_a_subscription_is_refused(order: Any, shop: Shop) -> None:
    assert (await refused(shop, order)).code == "not_found"


async def test_a_subscription_of_another_user_is_not_found(shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    order = CancelSubscription(user_id="user_bob", subscription_id=stripe_id)
    assert (await refused(shop, order)).code == "not_found"
    assert not shop.double.object("subscription", stripe_id)["cancel_at_period_end"]


async def test_a_subscription_that_was_moved_in_stripe_is_not_found(shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    await post(shop.double, f"/v1/subscriptions/{stripe_id}", **{"metadata[user_id]": "user_bob"})
    assert (await refused(shop, CANCEL)).code == "not_found"
    assert not shop.double.object("subscription", stripe_id)["cancel_at_period_end"]


async def test_the_id_says_which_of_several_subscriptions_is_cancelled(shop: Shop) -> None:
    first = await subscribed(shop)
    other = {"currency": "usd", "unit_amount": "100", "recurring[interval]": "month", "product_data[name]": "Storage"}
    price = (await post(shop.double, "/v1/prices", **other))["id"]
    customer = shop.double.object("subscription", first)["customer"]
    second = shop.double.simulate.checkout(price, customer=customer, metadata=ADA)["id"]
    await shop.deliver_all()
    record = await shop.record(second)
    order = CancelSubscription(user_id="user_ada", subscription_id=record["_id"])
    assert (await shop.harness.deliver(order))["subscription_id"] == record["_id"]
    flags = [shop.double.object("subscription", each)["cancel_at_period_end"] for each in (first, second)]
    assert flags == [False, True]


@pytest.mark.parametrize(
    ("setting", "state", "credit"), [("no_credit", "active", 0), ("credit", "active", -500), ("credit", "past_due", 0)]
)
async def test_unused_time_is_credited_by_the_setting(
    setting: str, state: str, credit: int, open_shop: Callable[..., Any]
) -> None:
    shop: Shop = await open_shop(stripe_cancel_now=setting)
    stripe_id = await subscribed(shop, state)
    await shop.harness.deliver(CANCEL_NOW)
    customer = shop.double.object("subscription", stripe_id)["customer"]
    assert shop.double.object("customer", customer)["balance"] == pytest.approx(credit, abs=1)
    assert shop.double.objects("refund") == []


@pytest.mark.parametrize(("state", "allowed"), [("active", False), ("trialing", False), ("unpaid", True)])
async def test_a_cancellation_at_once_is_refused_by_the_setting(
    state: str,
    allowed: bool,  # noqa: FBT001
    open_shop: Callable[..., Any],
) -> None:
    shop: Shop = await open_shop(stripe_cancel_now="refused")
    await subscribed(shop, state)
    if allowed:
        assert (await shop.harness.deliver(CANCEL_NOW))["status"] == "canceled"
    else:
        assert (await refused(shop, CANCEL_NOW)).code == "immediate_cancellation_not_allowed"
        assert (await shop.harness.deliver(CANCEL))["outcome"] == "planned"


async def test_feedback_reaches_stripe_and_is_withdrawn_with_the_cancellation(shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    order = CancelSubscription(user_id="user_ada", feedback="too_expensive", comment=Sealed.of(" No budget. "))
    await shop.harness.deliver(order)
    details = shop.double.object("subscription", stripe_id)["cancellation_details"]
    assert (details["feedback"], details["comment"]) == ("too_expensive", "No budget.")
    await shop.harness.deliver(RESUME)
    details = shop.double.object("subscription", stripe_id)["cancellation_details"]
    assert (details["feedback"], details["comment"], details["reason"]) == (None, None, None)


async def test_a_typed_comment_of_nest_refunds_nothing(shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    kept = (await shop.record(stripe_id))["_id"]
    order = CancelSubscription(user_id="user_ada", at="now", comment=Sealed.of(f"Nest: duplicate of {kept}"))
    await shop.harness.deliver(order)
    await shop.deliver_all()
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []
    assert shop.double.objects("refund") == []
    (ended,) = shop.harness.published_of(SubscriptionEnded)
    assert ended.reason == "cancellation_requested"


async def test_a_second_delivery_cancels_once(shop: Shop) -> None:
    await subscribed(shop)
    before = len(calls(shop))
    views = [await shop.harness.deliver(CANCEL, id="m1") for _ in range(2)]
    assert views[0] == views[1]
    assert len(calls(shop)) == before + 1


async def test_a_person_who_subscribed_anew_does_not_resume_the_paused_one(shop: Shop) -> None:
    paused = await subscribed(shop, "paused")
    customer = shop.double.object("subscription", paused)["customer"]
    other = shop.double.simulate.checkout(shop.price, customer=customer, metadata=ADA)["id"]
    await shop.deliver_all()
    refusal = await refused(shop, WithdrawCancellation(user_id="user_ada", subscription_id=paused))
    assert (refusal.code, refusal.meta) == (
        "subscription_excluded",
        {"subscription_id": (await shop.record(other))["_id"]},
    )


async def test_a_declined_resumption_asks_for_the_payment(shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    # Without a credit for the unused time there is something to pay.
    unused = {"bill_for[unused_time_from][type]": "none"}
    await post(shop.double, f"/v1/subscriptions/{stripe_id}/pause", type="subscription", **unused)
    await shop.deliver_all()
    shop.double.simulate.decline(shop.double.object("subscription", stripe_id)["customer"])
    view = await shop.harness.deliver(RESUME)
    assert (view["outcome"], view["required_action"], view["payment_url"]) == (
        "action_required",
        "payment",
        f"link:payment:{stripe_id}",
    )


async def test_a_cancellation_during_an_outage_is_refused_and_repeated_once(shop: Shop, double: StripeDouble) -> None:
    stripe_id = await subscribed(shop)
    shop.harness.context.stripe.calls.timeouts = FAST
    async with double.outage():
        with pytest.raises(Refused) as refusal:
            await shop.harness.deliver(CANCEL, id="m1")
    assert refusal.value.kind == "unavailable"
    shop.harness.context.stripe.calls.timeouts = Timeouts()
    shop.harness.context.stripe.calls.breaker.succeeded()
    assert (await shop.harness.deliver(CANCEL, id="m1"))["outcome"] == "planned"
    assert double.object("subscription", stripe_id)["cancel_at_period_end"]


@pytest.mark.parametrize("after_work", [False, True])
@pytest.mark.parametrize(("order", "state"), [(CANCEL, "active"), (CANCEL_NOW, "active"), (RESUME, "paused")])
async def test_a_spent_key_changes_once(
    order: Any,
    state: str,
    after_work: bool,  # noqa: FBT001
    shop: Shop,
    double: StripeDouble,
) -> None:
    stripe_id = await subscribed(shop, state)
    invoices = len(double.objects("invoice"))
    path = f"/v1/subscriptions/{stripe_id}*"
    method = "DELETE" if order is CANCEL_NOW else "POST"
    double.faults.add(
        FaultKind.SERVER_ERROR, times=1, method=method, path=path, after_work=after_work, stored=not after_work
    )
    view = await shop.harness.deliver(order)
    assert view["outcome"] in ("planned", "done")
    await shop.deliver_all()
    assert len(double.objects("invoice")) == invoices + (order is RESUME)


@pytest.mark.parametrize(("order", "action"), [(CANCEL, "cancel_subscription"), (RESUME, "resume_subscription")])
@pytest.mark.parametrize("caller", [PERSON, Caller(kind="internal", key_name="shop")])
async def test_orders_are_audited_for_users_and_operators(order: Any, action: str, caller: Caller, shop: Shop) -> None:
    stripe_id = await subscribed(shop)
    await shop.harness.deliver(order, caller=caller)
    entries = [(each.action, each.refused_as, each.user_id, each.resource_id) for each in shop.harness.recorded]
    assert entries == [(action, None, "user_ada", (await shop.record(stripe_id))["_id"])]
