"""Queries about subscriptions, of clients and of operators."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.billing.stripe_api.calls import Timeouts
from services.billing.subscriptions.portal import MAX_USERS, SESSIONS, WINDOW, PortalLimit
from services.stripe_double import FaultKind, Settings, StripeDouble
from shared.ids import new_message_id
from shared.messages.billing.subscriptions import (
    CreatePortalSession,
    FollowSubscription,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionState,
    GetSubscriptionStatus,
    ReconcileUser,
)
from tests.billing.conftest import ADA, Shop, post
from tests.service_harness import Refused

STATUS = GetSubscriptionStatus(user_id="user_ada")
PORTAL = CreatePortalSession(user_id="user_ada", client_id="client_1")
HEARTBEAT = GetSubscriptionHeartbeat(user_id="user_ada")


def portal_calls(shop: Shop) -> list[Any]:
    return [call for call in shop.double.log if call.path == "/v1/billing_portal/sessions"]


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def test_the_status_of_an_active_subscription_needs_no_call_to_stripe(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    calls = len(shop.double.log)
    item = made["items"]["data"][0]
    assert await shop.harness.deliver(STATUS) == {
        "status": "active",
        "billing_portal_url": None,
        "start_date": iso(item["current_period_start"]),
        "end_date": iso(item["current_period_end"]),
        "cancel_at": None,
        "cancel_type": None,
        "cancelled_at": None,
    }
    assert len(shop.double.log) == calls


async def test_a_portal_session_is_created_for_the_customer_of_the_active_subscription(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(first["id"], at="now")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    await shop.deliver_all()
    session = await shop.harness.deliver(PORTAL)
    assert session["url"].startswith(f"{shop.double.url}/p/session/")
    (call,) = portal_calls(shop)
    assert call.params == {"customer": made["customer"], "return_url": "https://getbeak.app/account"}


async def test_the_portal_opens_after_the_end_of_the_subscription(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    assert (await shop.harness.deliver(PORTAL))["url"]


@pytest.mark.parametrize("moved", ["subscription", "customer"])
@pytest.mark.parametrize("then", ["", "it ends"])
@pytest.mark.parametrize("before", ["", "another customer"])
async def test_a_moved_subscription_opens_the_portal_for_its_new_user_only(
    moved: str, then: str, before: str, shop: Shop
) -> None:
    if before:
        own = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
        shop.double.simulate.cancel(own["id"], at="now")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    user = "" if moved == "customer" else "user_eve"
    await post(shop.double, f"/v1/subscriptions/{made['id']}", **{"metadata[user_id]": user})
    if moved == "customer":
        await post(shop.double, f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_eve"})
    if then:
        shop.double.simulate.cancel(made["id"], at="now")
    for _ in range(2):
        await shop.deliver_all()
    opened = {}
    for user in ("user_eve", "user_ada"):
        state = await shop.harness.deliver(GetSubscriptionState(user_id=user))
        query = PORTAL.model_copy(update={"user_id": user})
        if state["billing_portal_url"] is None:
            with pytest.raises(Refused, match="not_found"):
                await shop.harness.deliver(query)
            continue
        await shop.harness.deliver(query)
        opened[user] = portal_calls(shop)[-1].params["customer"]
    assert opened == {"user_eve": made["customer"], **({"user_ada": own["customer"]} if before else {})}


async def test_a_user_without_subscription_has_no_portal(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(PORTAL)
    assert (refused.value.kind, refused.value.code) == ("not_found", "not_found")


async def test_a_user_opens_the_portal_ten_times_in_ten_minutes(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    began = shop.harness.now
    for _ in range(SESSIONS):
        await shop.harness.deliver(PORTAL)
        shop.harness.now += timedelta(seconds=1)
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(PORTAL)
    assert (refused.value.kind, refused.value.code) == ("throttled", "too_many_portal_sessions")
    assert refused.value.meta == {"retry_after": 600 - SESSIONS}
    assert len(portal_calls(shop)) == SESSIONS
    shop.harness.now = began + WINDOW
    assert (await shop.harness.deliver(PORTAL))["url"]


def test_the_portal_limit_remembers_a_bounded_number_of_users() -> None:
    limit, at = PortalLimit(), datetime(2026, 12, 1, tzinfo=UTC)
    for number in range(MAX_USERS + 10):
        assert limit.open(f"user_{number}", at=at) == 0
    assert len(limit._opened) == MAX_USERS


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.SERVER_ERROR, FaultKind.RESET])
async def test_during_a_failure_of_stripe_no_session_is_created(kind: FaultKind, shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.context.stripe.calls.timeouts = Timeouts(portal=0.2, retry_pause=0.01)
    shop.double.faults.add(kind, times=2)
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(PORTAL)
    assert (refused.value.kind, refused.value.code) == ("unavailable", "unavailable")


async def test_a_setting_puts_a_session_of_stripe_into_each_status(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_portal_in_status=True)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    links = {(await shop.harness.deliver(STATUS))["billing_portal_url"] for _ in range(2)}
    assert len(links) == 2
    assert all(link.startswith(f"{shop.double.url}/p/session/") for link in links)
    async with shop.double.outage():
        assert (await shop.harness.deliver(STATUS))["billing_portal_url"] is None
    assert {call.params["customer"] for call in portal_calls(shop)} == {made["customer"]}


async def test_a_planned_end_shows_in_the_status(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    made = shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    status = await shop.harness.deliver(STATUS)
    assert status["cancel_type"] == "period_end"
    assert status["cancel_at"] == status["end_date"]
    assert status["cancelled_at"] == iso(made["canceled_at"])


async def test_each_session_is_new_and_stored_nowhere(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    links = {(await shop.harness.deliver(PORTAL))["url"] for _ in range(2)}
    assert len(links) == 2
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            assert "billing.stripe.com" not in repr(document)


async def test_a_user_without_subscription_has_no_status_and_no_heartbeat(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(STATUS)
    assert (refused.value.kind, refused.value.code) == ("not_found", "no_active_subscription")
    with pytest.raises(Refused) as expired:
        await shop.harness.deliver(HEARTBEAT)
    assert (expired.value.kind, expired.value.code) == ("payment_required", "subscription_expired")


@pytest.mark.parametrize(("planned_end", "leeway"), [(False, timedelta(hours=2)), (True, timedelta(0))])
async def test_the_heartbeat_expires_after_the_leeway_or_at_a_planned_end(
    planned_end: bool,  # noqa: FBT001
    leeway: timedelta,
    shop: Shop,
) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    if planned_end:
        shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    assert await shop.harness.deliver(HEARTBEAT) is None
    end = datetime.fromtimestamp(made["items"]["data"][0]["current_period_end"], UTC) + leeway
    shop.harness.now = end - timedelta(milliseconds=1)
    assert await shop.harness.deliver(HEARTBEAT) is None
    shop.harness.now = end
    with pytest.raises(Refused):
        await shop.harness.deliver(HEARTBEAT)


async def test_the_status_is_that_of_the_live_subscription(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(first["id"], at="now")
    shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, trial_days=7)
    await shop.deliver_all()
    assert (await shop.harness.deliver(STATUS))["status"] == "trialing"


async def test_a_past_due_subscription_is_still_active(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.decline(made["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    await shop.deliver_all()
    shop.harness.now = shop.double.clock.time
    assert (await shop.harness.deliver(STATUS))["status"] == "past_due"


async def test_operators_find_a_subscription_by_either_id_or_by_its_user(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    record = await shop.record(made["id"])
    for query in (
        GetSubscription(subscription_id=record["_id"]),
        GetSubscription(subscription_id=made["id"]),
        GetSubscription(user_id="user_ada"),
    ):
        view = await shop.harness.deliver(query)
        assert (view["id"], view["stp_subscription_id"], view["status"]) == (record["_id"], made["id"], "active")
    assert (view["active"], view["entitled"], view["will_renew"]) == (True, True, True)
    assert (view["other_subscription_ids"], view["overdue_since"], view["grace_ends_at"]) == ([], None, None)
    assert not portal_calls(shop)


async def test_operators_find_the_latest_subscription_if_none_is_active(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(first["id"], at="now")
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    shop.double.simulate.cancel(second["id"], at="now")
    await shop.deliver_all()
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert (view["stp_subscription_id"], view["active"], view["entitled"]) == (second["id"], False, False)
    assert view["other_subscription_ids"] == [(await shop.record(first["id"]))["_id"]]


async def test_an_unknown_subscription_is_not_found(shop: Shop) -> None:
    for query in (GetSubscription(subscription_id="sub_none"), GetSubscription(user_id="user_none")):
        with pytest.raises(Refused) as refused:
            await shop.harness.deliver(query)
        assert (refused.value.kind, refused.value.code) == ("not_found", "not_found")


def test_a_query_without_ids_is_invalid() -> None:
    with pytest.raises(ValidationError, match="is needed"):
        GetSubscription()


async def test_the_grace_period_ends_for_a_subscription_that_stays_past_due(
    open_shop: Callable[..., Any], double: StripeDouble
) -> None:
    double.account.settings = Settings(after_retries="past_due")
    shop: Shop = await open_shop(stripe_grace_days=20)
    made = double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    double.simulate.decline(made["customer"])
    await double.clock.advance(timedelta(days=32))
    await shop.deliver_all()
    shop.harness.now = double.clock.time
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert (view["status"], view["active"], view["entitled"]) == ("past_due", True, True)
    overdue_since = datetime.fromisoformat(view["overdue_since"])
    assert datetime.fromisoformat(view["grace_ends_at"]) - overdue_since == timedelta(days=20)
    # Stripe begins new periods and creates new invoices that stay unpaid.
    await double.clock.advance(timedelta(days=40))
    await shop.deliver_all()
    shop.harness.now = double.clock.time
    assert double.object("subscription", made["id"])["status"] == "past_due"
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert datetime.fromisoformat(view["overdue_since"]) == overdue_since
    assert (view["active"], view["entitled"]) == (False, False)
    with pytest.raises(Refused):
        await shop.harness.deliver(HEARTBEAT)


async def test_voided_invoices_suspend_the_service_but_not_the_status(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.pause_collection(made["id"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(STATUS))["status"] == "active"
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert (view["collection_paused"], view["entitled"]) == ("void", False)
    shop.double.simulate.resume_collection(made["id"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(GetSubscription(user_id="user_ada")))["entitled"]


async def test_reconciliation_of_one_user_reads_all_subscriptions(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.harness.database["subscriptions"].update_one({}, {"$set": {"status": "unpaid"}})

    assert await shop.harness.deliver(ReconcileUser(user_id="user_ada")) == {"subscriptions": 1}
    await shop.deliver_all()

    stored = await shop.harness.database["subscriptions"].find_one({"stpSubscriptionId": made["id"]})
    assert stored["status"] == "active"
    assert await shop.harness.deliver(ReconcileUser(user_id="user_unknown")) == {"subscriptions": 0}


async def test_reconciliation_delivered_twice_orders_one_reading(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.clear()
    message_id = new_message_id()
    for _ in range(2):
        await shop.harness.deliver(ReconcileUser(user_id="user_ada"), id=message_id)
    assert len(shop.harness.published_of(FollowSubscription)) == 1
