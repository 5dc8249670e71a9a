"""Mails about changes of a subscription: its cancellation, another plan, and the price after a trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.messages.billing.subscriptions import FollowSubscription
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import ADA, Shop


def mails(shop: Shop, template: str) -> list[dict[str, Any]]:
    """The variables of all mails of a template."""
    ordered = [mail for mail in shop.harness.published_of(SendMail) if mail.template == template]
    return [shop.harness.variables_of(mail) for mail in ordered]


async def subscription(shop: Shop, **options: Any) -> dict[str, Any]:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, **options)
    await shop.deliver_all()
    return made


async def test_a_cancellation_is_mailed_once_with_the_last_day(shop: Shop) -> None:
    made = await subscription(shop)
    shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    for _ in range(2):
        await shop.harness.deliver(FollowSubscription(key=made["id"], subscription_id=made["id"]))
    [mail] = mails(shop, "subscription-cancelled")
    end = shop.double.object("subscription", made["id"])["cancel_at"]
    assert datetime.fromisoformat(mail["ends_at"]) == datetime.fromtimestamp(end, UTC)
    assert mail["link"] == shop.settings.stripe_portal_return_url


async def test_each_cancellation_is_mailed(shop: Shop) -> None:
    made = await subscription(shop)
    for _ in range(2):
        shop.double.simulate.cancel(made["id"])
        await shop.deliver_all()
        shop.double.simulate.reactivate(made["id"])
        await shop.deliver_all()
    assert len(mails(shop, "subscription-cancelled")) == 2


async def test_a_plan_change_is_mailed_once_with_the_new_price(shop: Shop) -> None:
    made = await subscription(shop)
    item = made["items"]["data"][0]["id"] if isinstance(made["items"], dict) else made["items"][0]["id"]
    await shop.post(f"/v1/subscriptions/{made['id']}", **{"items[0][id]": item, "items[0][quantity]": 9})
    await shop.deliver_all()
    await shop.harness.deliver(FollowSubscription(key=made["id"], subscription_id=made["id"]))
    [mail] = mails(shop, "plan-changed")
    assert (mail["price"], mail["interval"]) == ("45.00 USD", "month")


async def test_the_end_of_a_trial_is_mailed_with_its_price(shop: Shop) -> None:
    await subscription(shop, trial_days=14)
    await shop.double.clock.advance(timedelta(days=12))
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert [(mail["price"], mail["interval"]) for mail in mails(shop, "trial-ending")] == [("5.00 USD", "month")]
