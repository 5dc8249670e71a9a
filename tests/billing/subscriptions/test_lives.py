"""Lives of subscriptions that end, lapse, pause or change: what Nest answers, mails and publishes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api.calls import Timeouts
from services.stripe_double import Settings, StripeDouble
from shared.messages.billing.payments import PaymentFailed
from shared.messages.billing.subscriptions import (
    CheckSubscriptionAccess,
    CreatePortalSession,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    PlanChanged,
    SubscriptionChanged,
    SubscriptionLapsed,
)
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import ADA, MONTH, Shop, post
from tests.service_harness import Refused

STATUS = GetSubscriptionStatus(user_id="user_ada")
PORTAL = CreatePortalSession(user_id="user_ada", client_id="client_1")
HEARTBEAT = GetSubscriptionHeartbeat(user_id="user_ada")
VIEW = GetSubscription(user_id="user_ada")
DAY = timedelta(days=1)


async def trial(shop: Shop, end_behavior: str = "create_invoice", **form: Any) -> dict[str, Any]:
    """A trial of Ada without a card."""
    customer = await post(shop.double, "/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_ada"})
    return await post(
        shop.double,
        "/v1/subscriptions",
        customer=customer["id"],
        trial_period_days="14",
        **{
            "items[0][price]": shop.price,
            "trial_settings[end_behavior][missing_payment_method]": end_behavior,
            **form,
        },
    )


async def advance(shop: Shop, time: timedelta) -> None:
    """Advance the clocks of Stripe and billing, and deliver all events."""
    await shop.double.clock.advance(time)
    shop.harness.now = max(shop.harness.now, shop.double.clock.time)
    await shop.deliver_all()


async def check_access(shop: Shop) -> None:
    """Deliver the checks of access that are due."""
    for due, message in await shop.harness.delayed():
        if isinstance(message, CheckSubscriptionAccess) and due <= shop.harness.now:
            await shop.harness.deliver(message)
    await shop.settle()


def mails(shop: Shop, template: str) -> list[dict[str, Any]]:
    """The variables of the mails with a template."""
    return [
        shop.harness.variables_of(mail) for mail in shop.harness.published_of(SendMail) if mail.template == template
    ]


async def refusal(shop: Shop) -> Refused:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(STATUS)
    return refused.value


async def test_a_renewal_without_a_card_causes_a_mail_an_event_and_a_grace_period(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await post(shop.double, f"/v1/payment_methods/{shop.double.objects('payment_method')[0]['id']}/detach")
    await advance(shop, MONTH)
    assert shop.double.object("subscription", made["id"])["status"] == "past_due"
    (mail,) = mails(shop, "payment-failed")
    assert (
        mail["link"]
        == shop.double.object("invoice", shop.double.object("subscription", made["id"])["latest_invoice"])[
            "hosted_invoice_url"
        ]
    )
    assert (mail["first"], mail["without_method"], mail["retried"], mail["keeps_access"]) == (False, True, True, True)
    (event,) = shop.harness.published_of(PaymentFailed)
    assert (event.user_id, event.failure) == ("user_ada", None)
    # It was paid before, so the grace period applies.
    assert (await shop.harness.deliver(STATUS))["status"] == "past_due"


@pytest.mark.parametrize(("days", "entitled"), [(0, False), (3, True)])
async def test_a_trial_that_ends_without_a_card_has_a_grace_period_of_its_own(
    days: int,
    entitled: bool,  # noqa: FBT001
    open_shop: Callable[..., Any],
) -> None:
    shop: Shop = await open_shop(stripe_unpaid_grace_days=days)
    await trial(shop)
    await shop.deliver_all()
    await advance(shop, 14 * DAY + timedelta(hours=3))
    (mail,) = mails(shop, "payment-failed")
    assert (mail["without_method"], mail["keeps_access"]) == (True, entitled)
    view = await shop.harness.deliver(VIEW)
    assert (view["status"], view["entitled"]) == ("past_due", entitled)


@pytest.mark.parametrize("after_retries", ["unpaid", "past_due"])
async def test_people_who_have_not_paid_are_shown_the_way_back(
    after_retries: str, shop: Shop, double: StripeDouble
) -> None:
    double.account.settings = Settings(after_retries=after_retries)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.decline(made["customer"])
    await advance(shop, 50 * DAY)
    shop.harness.now += 15 * DAY
    await check_access(shop)
    refused = await refusal(shop)
    assert (refused.kind, refused.code) == ("not_found", "no_active_subscription")
    invoices = shop.double.objects("invoice")
    links = [each["hosted_invoice_url"] for each in invoices if each["status"] == "open"]
    assert refused.meta["status"] == after_retries
    # The gateway puts its link there.
    assert refused.meta["billing_portal_url"] is None
    assert refused.meta["payment_url"] in links
    assert (await shop.harness.deliver(PORTAL))["url"].startswith(f"{shop.double.url}/p/session/")
    (mail,) = mails(shop, "subscription-unpaid")
    assert mail["link"] in links
    # Paying the invoices is enough.
    shop.harness.now = shop.double.clock.time
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(STATUS))["status"] == "active"


async def test_the_way_back_is_shown_without_an_invoice_while_stripe_is_unavailable(
    shop: Shop, double: StripeDouble
) -> None:
    double.account.settings = Settings(after_retries="unpaid")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.decline(made["customer"])
    await advance(shop, 50 * DAY)
    shop.harness.context.stripe.calls.timeouts = Timeouts(portal=0.2, retry_pause=0.01)
    async with shop.double.outage():
        refused = await refusal(shop)
    assert refused.meta == {"status": "unpaid", "billing_portal_url": None, "payment_url": None}


async def test_a_setting_puts_a_session_of_stripe_into_the_way_back(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_portal_in_status=True)
    await trial(shop, "pause")
    await shop.deliver_all()
    await advance(shop, 15 * DAY)
    assert (await refusal(shop)).meta["billing_portal_url"].startswith(f"{shop.double.url}/p/session/")


async def test_a_paused_trial_continues_once_it_has_a_card(shop: Shop) -> None:
    made = await trial(shop, "pause")
    await shop.deliver_all()
    await advance(shop, 15 * DAY)
    (mail,) = mails(shop, "trial-ended")
    assert (mail["paused"], mail["link"]) == (True, "https://getbeak.app/account")
    assert (await refusal(shop)).meta == {"status": "paused", "billing_portal_url": None, "payment_url": None}
    assert (await shop.harness.deliver(PORTAL))["url"].startswith(f"{shop.double.url}/p/session/")
    shop.double.simulate.change_card(made["customer"], "pm_card_visa")
    await shop.deliver_all()
    assert shop.double.object("subscription", made["id"])["status"] == "active"
    assert (await shop.harness.deliver(STATUS))["status"] == "active"


async def test_a_card_for_another_subscription_resumes_nothing(shop: Shop) -> None:
    made = await trial(shop, "pause")
    await shop.deliver_all()
    await advance(shop, 15 * DAY)
    bought = shop.double.simulate.checkout(shop.price, customer=made["customer"])
    await shop.deliver_all()
    assert shop.double.object("subscription", made["id"])["status"] == "paused"
    assert shop.double.object("subscription", bought["id"])["status"] == "active"


async def test_a_trial_that_is_over_causes_one_mail(shop: Shop) -> None:
    await trial(shop, "cancel")
    await shop.deliver_all()
    await advance(shop, 15 * DAY)
    await shop.deliver_all()
    (mail,) = mails(shop, "trial-ended")
    assert (mail["paused"], mail["link"]) == (False, "https://getbeak.app/account")
    assert mails(shop, "subscription-ended") == []


@pytest.mark.parametrize("failed", [False, True])
async def test_the_end_of_a_subscription_causes_one_mail_with_its_reason(
    failed: bool,  # noqa: FBT001
    shop: Shop,
) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    if failed:
        shop.double.simulate.decline(made["customer"])
    else:
        shop.double.simulate.cancel(made["id"])
    await advance(shop, (50 if failed else 40) * DAY)
    await shop.deliver_all()
    assert shop.double.object("subscription", made["id"])["status"] == "canceled"
    assert [mail["payment_failed"] for mail in mails(shop, "subscription-ended")] == [failed]
    assert mails(shop, "trial-ended") == mails(shop, "subscription-unpaid") == []


async def test_a_declined_first_payment_promises_no_access(shop: Shop) -> None:
    shop.double.simulate.checkout(
        shop.price, email="ada@example.com", metadata=ADA, payment_method="pm_card_chargeCustomerFail"
    )
    await shop.deliver_all()
    (mail,) = mails(shop, "payment-failed")
    assert (mail["first"], mail["retried"], mail["keeps_access"]) == (True, False, False)
    await advance(shop, 2 * DAY)
    # The checkout expired. Nothing ended that had begun.
    assert [mail.template for mail in shop.harness.published_of(SendMail)] == ["payment-failed"]


async def test_the_end_of_the_grace_period_is_announced_once(
    open_shop: Callable[..., Any], double: StripeDouble
) -> None:
    double.account.settings = Settings(after_retries="past_due", retry_days=())
    shop: Shop = await open_shop(stripe_grace_days=20)
    await shop.declined_renewal()
    await shop.deliver_all()
    shop.harness.now += 17 * DAY
    await check_access(shop)
    assert shop.harness.published_of(SubscriptionLapsed) == []
    shop.harness.now += 3 * DAY
    await check_access(shop)
    await check_access(shop)
    (lapsed,) = shop.harness.published_of(SubscriptionLapsed)
    assert (lapsed.user_id, lapsed.status, lapsed.reason) == ("user_ada", "past_due", "grace_period_ended")
    assert len(mails(shop, "subscription-unpaid")) == 1
    assert not (await shop.harness.deliver(VIEW))["entitled"]


async def test_a_period_that_ended_without_webhooks_is_read_again_before_it_lapses(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    # The webhooks about the renewal are lost.
    await check_access(shop)
    assert shop.harness.published_of(SubscriptionLapsed) == []
    assert (await shop.harness.deliver(STATUS))["status"] == "active"
    assert (await shop.record(made["id"]))["endsAt"] > shop.harness.now


async def test_a_period_that_ended_during_an_outage_lapses_until_it_is_read(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    shop.harness.context.stripe.calls.timeouts = Timeouts(attempt=0.2, call=0.5, retry_pause=0.01)
    async with shop.double.outage():
        await check_access(shop)
    (lapsed,) = shop.harness.published_of(SubscriptionLapsed)
    assert lapsed.reason == "period_ended"
    shop.harness.context.stripe.calls.breaker.succeeded()
    retries = [each for _, each in await shop.harness.delayed() if isinstance(each, CheckSubscriptionAccess)]
    await shop.harness.deliver(max(retries, key=lambda each: each.attempt))
    assert shop.harness.published_of(SubscriptionChanged)[-1].entitled
    assert len(shop.harness.published_of(SubscriptionLapsed)) == 1


@pytest.mark.parametrize(
    ("change", "quantity"), [({"quantity": "9"}, 9), ({"price": "other"}, 1), ({"price": "other", "quantity": "3"}, 3)]
)
async def test_another_price_or_quantity_is_announced(change: dict[str, str], quantity: int, shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    product = shop.double.object("price", shop.price)["product"]
    form = {"currency": "usd", "unit_amount": "900", "recurring[interval]": "month", "product": product}
    other = (await post(shop.double, "/v1/prices", **form))["id"]
    item_id = made["items"]["data"][0]["id"]
    values = {name: other if value == "other" else value for name, value in change.items()}
    await post(
        shop.double,
        f"/v1/subscriptions/{made['id']}",
        **{"items[0][id]": item_id, **{f"items[0][{name}]": value for name, value in values.items()}},
    )
    await shop.deliver_all()
    (event,) = shop.harness.published_of(PlanChanged)
    price = values.get("price", shop.price)
    assert [(item.price_id, item.quantity) for item in event.before] == [(shop.price, 1)]
    assert [(item.product_id, item.price_id, item.quantity) for item in event.after] == [(product, price, quantity)]
    assert shop.harness.published_of(SubscriptionChanged)[-1].changed == ("items",)


async def test_all_products_of_a_subscription_are_recorded(shop: Shop) -> None:
    prices = [shop.price]
    for name in ("Two", "Three"):
        form = {"currency": "usd", "unit_amount": "900", "recurring[interval]": "month", "product_data[name]": name}
        prices.append((await post(shop.double, "/v1/prices", **form))["id"])
    made = await trial(shop, **{"items[1][price]": prices[1], "items[2][price]": prices[2], "items[2][quantity]": "4"})
    await shop.deliver_all()
    items = (await shop.record(made["id"]))["items"]
    assert [(item["stpPriceId"], item["quantity"]) for item in items] == [
        (prices[0], 1),
        (prices[1], 1),
        (prices[2], 4),
    ]
    assert {item["stpProductId"] for item in items} == {shop.double.object("price", each)["product"] for each in prices}


async def test_a_schedule_that_cancels_shows_in_will_renew(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    schedule = await post(shop.double, "/v1/subscription_schedules", from_subscription=made["id"])
    await shop.deliver_all()
    assert (await shop.harness.deliver(VIEW))["will_renew"]
    path = f"/v1/subscription_schedules/{schedule['id']}"
    await post(shop.double, path, end_behavior="cancel")
    await shop.deliver_all()
    assert not (await shop.harness.deliver(VIEW))["will_renew"]
    record = await shop.record(made["id"])
    assert record["scheduleEndsAt"] == record["endsAt"]
    # A planned end has no leeway.
    shop.harness.now = record["endsAt"].astimezone()
    with pytest.raises(Refused):
        await shop.harness.deliver(HEARTBEAT)
    await post(shop.double, f"{path}/release")
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["scheduleEndsAt"] is None


async def test_a_record_of_an_earlier_release_is_read_and_completed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    new = ("items", "scheduleEndsAt", "paid", "standing", "movedAt", "accessCheckedAt", "lapsedAt")
    collection = shop.harness.database["subscriptions"]
    await collection.update_one({"stpSubscriptionId": made["id"]}, {"$unset": dict.fromkeys(new, "")})
    assert (await shop.harness.deliver(STATUS))["status"] == "active"
    before = len(shop.harness.published_of(SubscriptionChanged))
    await post(shop.double, f"/v1/subscriptions/{made['id']}", description="x")
    await shop.deliver_all()
    record = await shop.record(made["id"])
    assert (len(record["items"]), record["standing"]) == (1, "paid")
    assert len(shop.harness.published_of(SubscriptionChanged)) == before
