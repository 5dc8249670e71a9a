"""Cancellation of duplicates and of subscriptions without the required coupon."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind, StripeDouble
from shared.messages.billing.runs import ImportStripeAccount
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    DuplicateSubscriptionCancelled,
    DuplicateSubscriptionFound,
    GetSubscriptionStatus,
    SubscriptionEnded,
    SubscriptionMoved,
)
from shared.messages.mailer.mails import DuplicateVariables, SendMail
from tests.billing.conftest import ADA, FAST, Shop, counter, post
from tests.billing.stripe_runs import finish


async def test_a_duplicate_is_cancelled_with_one_mail_and_one_event(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    kept, cancelled_record = await shop.record(first["id"]), await shop.record(second["id"])
    assert (kept["status"], cancelled_record["status"], cancelled_record["duplicateOf"]) == (
        "active",
        "canceled",
        kept["_id"],
    )
    assert shop.double.object("subscription", first["id"])["status"] == "active"
    assert shop.double.object("subscription", second["id"])["status"] == "canceled"
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    (event,) = shop.harness.published_of(DuplicateSubscriptionCancelled)
    assert (event.user_id, event.subscription_id, event.kept_subscription_id) == (
        "user_ada",
        cancelled_record["_id"],
        kept["_id"],
    )
    (call,) = [call for call in shop.double.log if call.method == "DELETE"]
    assert (call.params["prorate"], call.params["invoice_now"]) == ("true", "true")


async def test_a_duplicate_through_another_customer_is_cancelled(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    await shop.deliver_all()
    assert (await shop.record(second["id"]))["duplicateOf"] == (await shop.record(first["id"]))["_id"]
    assert await shop.count("provider_mappings") == 2


async def test_a_checkout_is_not_cancelled_as_a_duplicate(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, payment_method=None)
    await shop.deliver_all()
    assert shop.harness.published_of(CancelDuplicateSubscription) == []
    assert (await shop.record(second["id"]))["status"] == "incomplete"


async def test_if_the_older_one_has_ended_the_newer_one_is_kept(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    # The webhook about its end is lost.
    shop.double.simulate.cancel(first["id"], at="now")
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in shop.events_of(second["id"]):
        await shop.deliver(event)
    await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    assert (await shop.record(first["id"]))["status"] == "canceled"
    assert [template for template, _ in shop.mails()] == ["welcome", "subscription-ended", "welcome"]
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []


async def test_a_missing_older_one_causes_one_cancellation_command(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    with shop.double.account.change():
        shop.double.account.remove("subscription", first["id"])
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA, trial_days=7)
    await shop.deliver(shop.events_of(second["id"])[0])
    async with asyncio.timeout(30):
        await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "trialing"
    assert len(shop.harness.published_of(CancelDuplicateSubscription)) == 1


async def test_a_cancellation_before_a_crash_is_announced_after_it(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    kept = await shop.record(first["id"])
    # Another process called Stripe and crashed before its commit.
    await shop.harness.context.stripe.cancel_duplicate(second["id"], kept_subscription_id=kept["_id"], key="k")
    await shop.settle()
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    assert len(shop.harness.published_of(DuplicateSubscriptionCancelled)) == 1
    assert len([call for call in shop.double.log if call.method == "DELETE"]) == 1


async def test_a_cancellation_is_retried_after_an_outage_of_stripe(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    command = shop.harness.published_of(CancelDuplicateSubscription)[0]
    shop.harness.context.stripe.calls.timeouts = FAST
    async with shop.double.outage():
        await shop.harness.deliver(command)
    (retry,) = [each for _, each in await shop.harness.delayed() if isinstance(each, CancelDuplicateSubscription)]
    assert retry.attempt == 2


async def test_two_subscriptions_that_become_live_at_once_are_serialized(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    other: Shop = await open_shop()
    subscriptions = shop.harness.context.subscriptions
    read = subscriptions.of_user
    delivered = False

    async def read_and_deliver_the_other(user_id: str) -> Any:
        nonlocal delivered
        found = await read(user_id)
        if not delivered:
            delivered = True
            await other.deliver(shop.events_of(second["id"])[0])
        return found

    object.__setattr__(shop.harness.context, "subscriptions", subscriptions)
    subscriptions.of_user = read_and_deliver_the_other
    await shop.deliver(shop.events_of(first["id"])[0])
    commands = [
        *shop.harness.published_of(CancelDuplicateSubscription),
        *other.harness.published_of(CancelDuplicateSubscription),
    ]
    kept, duplicate = sorted([first, second], key=lambda made: (made["created"], made["id"]))
    assert [(command.subscription_id, command.kept_subscription_id) for command in commands] == [
        ((await shop.record(duplicate["id"]))["_id"], (await shop.record(kept["id"]))["_id"])
    ]


async def test_without_cancelling_each_duplicate_is_announced_once(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_cancel_duplicates=False)
    before = counter("nest_stripe_duplicate_subscriptions", done="told")
    first, second = await shop.subscribe_twice()
    await shop.deliver_all()
    shop.double.simulate.cancel(second["id"])
    await shop.deliver_all()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    (found,) = shop.harness.published_of(DuplicateSubscriptionFound)
    kept, duplicate = await shop.record(first["id"]), await shop.record(second["id"])
    assert (found.subscription_id, found.kept_subscription_id) == (duplicate["_id"], kept["_id"])
    assert counter("nest_stripe_duplicate_subscriptions", done="told") > before
    assert not [call for call in shop.double.log if call.method in ("POST", "DELETE") and call.path != "/v1/prices"]


async def test_after_the_grace_period_a_newer_subscription_is_no_duplicate(shop: Shop) -> None:
    overdue = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.decline(overdue["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", overdue["id"]), status="past_due")
    newer = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    shop.harness.now = shop.double.clock.time + timedelta(days=31)
    await shop.deliver_all()
    assert shop.double.object("subscription", newer["id"])["status"] == "active"
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []


async def test_a_subscription_without_the_required_coupon_is_cancelled(
    open_shop: Callable[..., Any],
) -> None:
    shop: Shop = await open_shop(stripe_required_coupon="staff")
    await post(shop.double, "/v1/coupons", id="staff", percent_off="50", duration="forever")
    without = shop.double.simulate.checkout(shop.price, email="eve@example.com", metadata={"user_id": "user_eve"})
    coupon = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, coupon="staff")
    trial = shop.double.simulate.checkout(
        shop.price, email="bob@example.com", metadata={"user_id": "user_bob"}, trial_days=3
    )
    await shop.deliver_all()
    await shop.deliver_all()
    assert (await shop.record(without["id"]))["status"] == "canceled"
    assert (await shop.record(coupon["id"]))["status"] == "active"
    assert (await shop.record(trial["id"]))["status"] == "trialing"
    assert sorted(shop.mails()) == [("welcome", "ada@example.com"), ("welcome-trial", "bob@example.com")]
    assert len([call for call in shop.double.log if call.method == "DELETE"]) == 1


def duplicate_mails(shop: Shop) -> list[DuplicateVariables]:
    """What the mails about duplicates say."""
    return [
        DuplicateVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables))
        for mail in shop.harness.published_of(SendMail)
        if mail.template == "duplicate-subscription"
    ]


async def cardless_trial(shop: Shop) -> dict[str, Any]:
    customer = await post(shop.double, "/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_ada"})
    return await post(
        shop.double,
        "/v1/subscriptions",
        customer=customer["id"],
        trial_period_days="14",
        **{"items[0][price]": shop.price},
    )


async def test_a_trial_ends_when_its_user_subscribes_and_its_days_are_carried_over(shop: Shop) -> None:
    trial = await cardless_trial(shop)
    await shop.deliver_all()
    await shop.next_second()
    bought = shop.double.simulate.checkout(shop.price, customer=trial["customer"])
    await shop.deliver_all()
    period_end = bought["items"]["data"][0]["current_period_end"]
    kept, ended = shop.double.object("subscription", bought["id"]), shop.double.object("subscription", trial["id"])
    assert (kept["status"], ended["status"]) == ("trialing", "canceled")
    # Stripe moves the next payment by a trial. It was paid for, so it stays the one to keep, and no trial ends soon.
    assert kept["trial_end"] == period_end + 14 * 24 * 60 * 60
    assert (await shop.record(bought["id"]))["standing"] == "paid"
    (event,) = shop.harness.published_of(SubscriptionEnded)
    assert event.reason == "trial_converted"
    assert shop.double.objects("refund") == shop.harness.published_of(DuplicateSubscriptionCancelled) == []
    (mail,) = [mail for mail in shop.harness.published_of(SendMail) if mail.template == "trial-replaced"]
    assert shop.harness.variables_of(mail)["days"] == 14
    assert (await shop.harness.deliver(GetSubscriptionStatus(user_id="user_ada")))["status"] == "trialing"
    await shop.double.clock.advance(timedelta(days=44))
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert "trial-ending" not in [template for template, _ in shop.mails()]


async def test_days_are_added_once_whatever_fails(shop: Shop) -> None:
    trial = await cardless_trial(shop)
    await shop.deliver_all()
    await shop.next_second()
    bought = shop.double.simulate.checkout(shop.price, customer=trial["customer"])
    fault = shop.double.faults.add(
        FaultKind.SERVER_ERROR, after_work=True, times=3, method="DELETE", path=f"/v1/subscriptions/{trial['id']}"
    )
    await shop.deliver_all()
    assert fault.hits == 3
    for _, message in await shop.harness.delayed():
        if isinstance(message, CancelDuplicateSubscription):
            await shop.harness.deliver(message)
    await shop.deliver_all()
    kept = shop.double.object("subscription", bought["id"])
    assert kept["trial_end"] == bought["items"]["data"][0]["current_period_end"] + 14 * 24 * 60 * 60
    assert shop.double.object("subscription", trial["id"])["status"] == "canceled"


async def test_a_subscription_that_is_to_end_gets_no_days_of_a_trial(shop: Shop) -> None:
    trial = await cardless_trial(shop)
    await shop.deliver_all()
    await shop.next_second()
    bought = shop.double.simulate.checkout(shop.price, customer=trial["customer"])
    shop.double.simulate.cancel(bought["id"])
    await shop.deliver_all()
    assert shop.double.object("subscription", bought["id"])["status"] == "active"
    assert shop.double.object("subscription", trial["id"])["status"] == "canceled"
    assert "trial-replaced" in [template for template, _ in shop.mails()]


@pytest.mark.parametrize("exclusive", [False, True])
async def test_another_product_is_no_duplicate_unless_a_setting_says_so(
    exclusive: bool,  # noqa: FBT001
    open_shop: Callable[..., Any],
    double: StripeDouble,
    price: str,
) -> None:
    other = str(
        (
            await post(
                double,
                "/v1/prices",
                **{
                    "currency": "usd",
                    "unit_amount": "900",
                    "recurring[interval]": "month",
                    "product_data[name]": "Two",
                },
            )
        )["id"]
    )
    products = [double.object("price", each)["product"] for each in (price, other)]
    shop: Shop = await open_shop(stripe_exclusive_products=",".join(products) if exclusive else "")
    first = double.simulate.checkout(price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    second = double.simulate.checkout(other, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    statuses = [double.object("subscription", each["id"])["status"] for each in (first, second)]
    assert statuses == ["active", "canceled" if exclusive else "active"]
    assert [mail.money for mail in duplicate_mails(shop)] == (["refunded"] if exclusive else [])


async def test_a_payment_beats_a_free_price(shop: Shop) -> None:
    product = shop.double.object("price", shop.price)["product"]
    form = {"currency": "usd", "unit_amount": "0", "recurring[interval]": "month", "product": product}
    free = (await post(shop.double, "/v1/prices", **form))["id"]
    customer = await post(shop.double, "/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_ada"})
    first = await post(shop.double, "/v1/subscriptions", customer=customer["id"], **{"items[0][price]": free})
    await shop.deliver_all()
    await shop.next_second()
    paid = shop.double.simulate.checkout(shop.price, customer=customer["id"])
    await shop.deliver_all()
    assert shop.double.object("subscription", first["id"])["status"] == "canceled"
    assert shop.double.object("subscription", paid["id"])["status"] == "active"
    assert [mail.money for mail in duplicate_mails(shop)] == ["nothing_paid"]
    assert shop.double.objects("refund") == []


async def test_an_overdue_subscription_gives_way_and_its_earlier_payments_are_kept(shop: Shop) -> None:
    overdue = await shop.declined_renewal()
    await shop.deliver_all()
    await shop.next_second()
    paid = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    await shop.deliver_all()
    assert shop.double.object("subscription", overdue["id"])["status"] == "canceled"
    assert shop.double.object("subscription", paid["id"])["status"] == "active"
    # What was paid a month ago was used.
    assert shop.double.objects("refund") == []
    assert shop.double.object("customer", overdue["customer"])["balance"] == 0
    assert [mail.money for mail in duplicate_mails(shop)] == ["nothing_paid"]


@pytest.mark.parametrize(
    ("second", "balance", "expected"),
    [
        pytest.param({}, "0", ("refunded", "5.00 USD", None), id="paid by card"),
        pytest.param({}, "-200", ("refunded", "3.00 USD", "2.00 USD"), id="paid in part from the balance"),
        pytest.param({}, "-500", ("credited", None, "5.00 USD"), id="paid from the balance"),
        pytest.param({"trial_days": 14}, "0", ("nothing_paid", None, None), id="a trial"),
        pytest.param(
            {"payment_method": "pm_usBankAccount_success"}, "0", ("refund_pending", None, None), id="still in progress"
        ),
    ],
)
async def test_the_mail_says_what_happened_to_the_money(
    second: dict[str, Any], balance: str, expected: tuple[str, str | None, str | None], shop: Shop
) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    await post(shop.double, f"/v1/customers/{first['customer']}", balance=balance)
    shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, **second)
    await shop.deliver_all()
    assert [(mail.money, mail.refunded, mail.credited) for mail in duplicate_mails(shop)] == [expected]
    assert shop.double.object("customer", first["customer"])["balance"] == int(balance)


@pytest.mark.parametrize(("setting", "cancelled"), [(None, False), (True, True), (False, False)])
async def test_in_an_imported_account_duplicates_are_announced_by_default(
    setting: bool | None,  # noqa: FBT001
    cancelled: bool,  # noqa: FBT001
    open_shop: Callable[..., Any],
) -> None:
    shop: Shop = await open_shop(stripe_cancel_duplicates=setting)
    await finish(shop, ImportStripeAccount())
    await shop.next_second()
    _, second = await shop.subscribe_twice()
    await shop.deliver_all()
    assert (shop.double.object("subscription", second["id"])["status"] == "canceled") is cancelled
    assert bool(shop.harness.published_of(DuplicateSubscriptionFound)) is not cancelled


async def test_a_moved_subscription_cancels_nothing_and_its_former_user_is_announced(shop: Shop) -> None:
    of_ada = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    of_eve = shop.double.simulate.checkout(shop.price, email="eve@example.com", metadata={"user_id": "user_eve"})
    await shop.deliver_all()
    await post(shop.double, f"/v1/subscriptions/{of_ada['id']}", **{"metadata[user_id]": "user_eve"})
    await shop.deliver_all()
    await shop.deliver_all()
    assert {shop.double.object("subscription", each["id"])["status"] for each in (of_ada, of_eve)} == {"active"}
    (moved,) = shop.harness.published_of(SubscriptionMoved)
    assert (moved.user_id, moved.new_user_id, moved.entitled) == ("user_ada", "user_eve", False)
    assert shop.harness.published_of(CancelDuplicateSubscription) == []
    (found,) = shop.harness.published_of(DuplicateSubscriptionFound)
    assert found.user_id == "user_eve"
