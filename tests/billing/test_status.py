import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.calls import Patience
from services.embedded.stripe import Trouble
from shared.messages.billing import GetSubscriptionHeartbeat, GetSubscriptionStatus
from tests.billing.conftest import Shop
from tests.desk import Refused

ADA = {"user_id": "user_ada"}
STATUS = GetSubscriptionStatus(user_id="user_ada")
HEARTBEAT = GetSubscriptionHeartbeat(user_id="user_ada")


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def test_the_status_of_an_active_subscription_comes_with_a_portal_link(shop: Shop) -> None:
    made = shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    answer = await shop.desk.perform(STATUS)
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
    made = shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    made = shop.double.play.cancel(made["id"])
    await shop.deliver_all()
    answer = await shop.desk.perform(STATUS)
    assert answer["cancel_type"] == "period_end"
    assert answer["cancel_at"] == answer["end_date"]
    assert answer["cancelled_at"] == iso(made["canceled_at"])


@pytest.mark.parametrize("trouble", [Trouble.HANG, Trouble.SERVER_ERROR, Trouble.RESET])
async def test_without_stripe_the_status_is_answered_in_time_without_a_link(trouble: Trouble, shop: Shop) -> None:
    shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.desk.context.stripe.calls.patience = Patience(portal=0.2, pause=0.01)
    shop.double.faults.add(trouble)
    async with asyncio.timeout(1):
        answer = await shop.desk.perform(STATUS)
    assert (answer["status"], answer["billing_portal_url"]) == ("active", None)


async def test_while_nothing_listens_at_stripes_the_status_is_answered_soon_and_then_at_once(shop: Shop) -> None:
    shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    async with shop.double.outage():
        for seconds in (2.5, 2.5, 2.5, 0.5, 0.5):
            async with asyncio.timeout(seconds):
                assert (await shop.desk.perform(STATUS))["billing_portal_url"] is None


async def test_a_link_is_made_anew_each_time_and_kept_nowhere(shop: Shop) -> None:
    shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    links = {(await shop.desk.perform(STATUS))["billing_portal_url"] for _ in range(2)}
    assert len(links) == 2
    for name in await shop.desk.database.list_collection_names():
        async for document in shop.desk.database[name].find():
            assert "billing.stripe.com" not in repr(document)


async def test_who_never_subscribed_has_no_active_subscription(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await shop.desk.perform(STATUS)
    assert (refused.value.kind, refused.value.code) == ("not_found", "no_active_subscription")
    with pytest.raises(Refused) as expired:
        await shop.desk.perform(HEARTBEAT)
    assert (expired.value.kind, expired.value.code) == ("payment_required", "subscription_expired")


async def test_the_heart_beats_while_a_subscription_is_active_and_its_period_lasts(shop: Shop) -> None:
    made = shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    assert await shop.desk.perform(HEARTBEAT) is None
    end = datetime.fromtimestamp(made["items"]["data"][0]["current_period_end"], UTC)
    shop.desk.now = end - timedelta(milliseconds=1)
    assert await shop.desk.perform(HEARTBEAT) is None
    shop.desk.now = end
    with pytest.raises(Refused):
        await shop.desk.perform(HEARTBEAT)


async def test_of_an_ended_and_a_live_subscription_the_live_one_is_told(shop: Shop) -> None:
    first = shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.play.cancel(first["id"], at="now")
    shop.double.play.checkout(shop.price, customer=first["customer"], metadata=ADA, trial_days=7)
    await shop.deliver_all()
    assert (await shop.desk.perform(STATUS))["status"] == "trialing"


async def test_a_subscription_that_is_paid_late_is_still_active(shop: Shop) -> None:
    made = shop.double.play.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.play.decline(made["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    await shop.deliver_all()
    shop.desk.now = shop.double.clock.time
    assert (await shop.desk.perform(STATUS))["status"] == "past_due"
