import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.billing.stripe_api.calls import Patience
from services.stripe_double import FaultKind, Settings, StripeDouble
from shared.messages.billing.subscriptions import GetSubscription, GetSubscriptionHeartbeat, GetSubscriptionStatus
from tests.billing.conftest import Shop
from tests.service_harness import Refused

ADA = {"user_id": "user_ada"}
STATUS = GetSubscriptionStatus(user_id="user_ada")
HEARTBEAT = GetSubscriptionHeartbeat(user_id="user_ada")


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def test_the_status_of_an_active_subscription_comes_with_a_portal_link(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    answer = await shop.harness.deliver(STATUS)
    item = made["items"]["data"][0]
    assert answer.pop("billing_portal_url").startswith("https://billing.stripe.com/")
    assert answer == {
        "status": "active",
        "start_date": iso(item["current_period_start"]),
        "end_date": iso(item["current_period_end"]),
        "cancel_at": None,
        "cancel_type": None,
        "cancelled_at": None,
    }
    (asked,) = [call for call in shop.double.log if call.path == "/v1/billing_portal/sessions"]
    assert asked.params == {"customer": made["customer"], "return_url": "https://getbeak.app/account"}


async def test_a_planned_end_shows_in_the_status(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    made = shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    answer = await shop.harness.deliver(STATUS)
    assert answer["cancel_type"] == "period_end"
    assert answer["cancel_at"] == answer["end_date"]
    assert answer["cancelled_at"] == iso(made["canceled_at"])


@pytest.mark.parametrize("trouble", [FaultKind.HANG, FaultKind.SERVER_ERROR, FaultKind.RESET])
async def test_without_stripe_the_status_is_answered_in_time_without_a_link(trouble: FaultKind, shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.context.stripe.calls.patience = Patience(portal=0.2, pause=0.01)
    shop.double.faults.add(trouble)
    async with asyncio.timeout(1):
        answer = await shop.harness.deliver(STATUS)
    assert (answer["status"], answer["billing_portal_url"]) == ("active", None)


async def test_while_nothing_listens_at_stripes_the_status_is_answered_soon_and_then_at_once(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    async with shop.double.outage():
        for seconds in (2.5, 2.5, 2.5, 0.5, 0.5):
            async with asyncio.timeout(seconds):
                assert (await shop.harness.deliver(STATUS))["billing_portal_url"] is None


async def test_a_link_is_made_anew_each_time_and_kept_nowhere(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    links = {(await shop.harness.deliver(STATUS))["billing_portal_url"] for _ in range(2)}
    assert len(links) == 2
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            assert "billing.stripe.com" not in repr(document)


async def test_who_never_subscribed_has_no_active_subscription(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(STATUS)
    assert (refused.value.kind, refused.value.code) == ("not_found", "no_active_subscription")
    with pytest.raises(Refused) as expired:
        await shop.harness.deliver(HEARTBEAT)
    assert (expired.value.kind, expired.value.code) == ("payment_required", "subscription_expired")


async def test_the_heart_beats_while_a_subscription_is_active_and_its_period_lasts(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    assert await shop.harness.deliver(HEARTBEAT) is None
    end = datetime.fromtimestamp(made["items"]["data"][0]["current_period_end"], UTC)
    shop.harness.now = end - timedelta(milliseconds=1)
    assert await shop.harness.deliver(HEARTBEAT) is None
    shop.harness.now = end
    with pytest.raises(Refused):
        await shop.harness.deliver(HEARTBEAT)


async def test_of_an_ended_and_a_live_subscription_the_live_one_is_told(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(first["id"], at="now")
    shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, trial_days=7)
    await shop.deliver_all()
    assert (await shop.harness.deliver(STATUS))["status"] == "trialing"


async def test_a_subscription_that_is_paid_late_is_still_active(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.decline(made["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    await shop.deliver_all()
    shop.harness.now = shop.double.clock.time
    assert (await shop.harness.deliver(STATUS))["status"] == "past_due"


async def test_operators_read_the_whole_record_by_any_of_its_names(shop: Shop) -> None:
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
    assert not [call for call in shop.double.log if "portal" in call.path]


async def test_operators_read_the_latest_one_of_a_user_who_has_no_active_one(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(first["id"], at="now")
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    shop.double.simulate.cancel(second["id"], at="now")
    await shop.deliver_all()
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert (view["stp_subscription_id"], view["active"], view["entitled"]) == (second["id"], False, False)
    assert view["other_subscription_ids"] == [(await shop.record(first["id"]))["_id"]]


async def test_a_subscription_that_nobody_has_is_not_found(shop: Shop) -> None:
    for query in (GetSubscription(subscription_id="sub_nobody"), GetSubscription(user_id="user_nobody")):
        with pytest.raises(Refused) as refused:
            await shop.harness.deliver(query)
        assert (refused.value.kind, refused.value.code) == ("not_found", "not_found")


def test_a_question_about_no_subscription_is_none() -> None:
    with pytest.raises(ValidationError, match="is needed"):
        GetSubscription()


async def test_grace_ends_for_what_stays_overdue_for_ever(open_shop: Callable[..., Any], double: StripeDouble) -> None:
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
    # Stripe goes on with new periods, and new invoices that nobody pays.
    await double.clock.advance(timedelta(days=40))
    await shop.deliver_all()
    shop.harness.now = double.clock.time
    assert double.object("subscription", made["id"])["status"] == "past_due"
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert datetime.fromisoformat(view["overdue_since"]) == overdue_since
    assert (view["active"], view["entitled"]) == (False, False)
    with pytest.raises(Refused):
        await shop.harness.deliver(HEARTBEAT)


async def test_paused_payments_leave_the_status_and_hold_the_service_while_invoices_are_voided(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.pause_collection(made["id"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(STATUS))["status"] == "active"
    view = await shop.harness.deliver(GetSubscription(user_id="user_ada"))
    assert (view["collection_paused"], view["entitled"]) == ("void", False)
    shop.double.simulate.resume_collection(made["id"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(GetSubscription(user_id="user_ada")))["entitled"]
