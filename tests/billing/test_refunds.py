"""What is paid on a subscription that was bought twice goes back, once, whatever breaks on the way."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.billing.stripe_api.calls import Patience
from services.billing.subscriptions.refunds import give_back
from services.stripe_double import FaultKind
from shared.messages.billing.subscriptions import (
    DuplicateSubscriptionCancelled,
    DuplicateSubscriptionFound,
    RefundDuplicateSubscription,
    SubscriptionEnded,
)
from tests.billing.conftest import Shop, post

FAST = Patience(attempt=0.3, call=1.0, portal=0.4, pause=0.01)
ADA = {"user_id": "user_ada"}


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


async def twice(shop: Shop, **second: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let Ada subscribe twice; all but the second one's consequences are done."""
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.a_second_later()
    return first, shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, **second)


def given_back(shop: Shop) -> list[int]:
    return [refund["amount"] for refund in shop.double.objects("refund")]


async def test_what_was_paid_on_a_duplicate_is_refunded_and_the_credit_of_its_end_taken_back(shop: Shop) -> None:
    first, second = await twice(shop)
    await shop.deliver_all()
    (refund,) = shop.double.objects("refund")
    gone = await shop.record(second["id"])
    assert (refund["amount"], refund["reason"]) == (500, "duplicate")
    assert refund["metadata"] == {"subscription_id": gone["_id"]}
    paid = {charge["id"]: charge["payment_intent"] for charge in shop.double.objects("charge")}
    tie = next(tie for tie in shop.double.objects("invoice_payment") if tie["invoice"] == second["latest_invoice"])
    assert paid[refund["charge"]] == tie["payment"]["payment_intent"]
    assert shop.double.object("customer", first["customer"])["balance"] == 0
    (cancelled,) = shop.harness.published_of(DuplicateSubscriptionCancelled)
    (ended,) = shop.harness.published_of(SubscriptionEnded)
    assert (cancelled.reason, ended.reason) == ("duplicate", "duplicate")
    assert [template for template, _ in shop.mails()].count("duplicate-subscription") == 1


async def test_credit_that_a_duplicate_used_up_comes_back_to_the_balance(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.a_second_later()
    await post(shop.double, f"/v1/customers/{first['customer']}", balance="-200")
    shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    assert given_back(shop) == [300]
    assert shop.double.object("customer", first["customer"])["balance"] == -200


async def test_a_duplicate_on_which_nothing_was_paid_is_not_refunded(shop: Shop) -> None:
    await twice(shop, trial_days=14)
    await shop.deliver_all()
    assert len(shop.harness.published_of(RefundDuplicateSubscription)) == 1
    assert given_back(shop) == []


async def test_what_an_operator_has_refunded_already_is_not_refunded_again(shop: Shop) -> None:
    _, second = await twice(shop)
    shop.double.simulate.refund(second["id"])
    before = counted("nest_stripe_not_refunded")
    await shop.deliver_all()
    assert given_back(shop) == [500]
    assert counted("nest_stripe_not_refunded") == before


async def test_a_disputed_payment_is_left_to_the_bank_and_an_alarm(shop: Shop) -> None:
    _, second = await twice(shop)
    shop.double.simulate.dispute(second["id"])
    before = counted("nest_stripe_not_refunded")
    await shop.deliver_all()
    assert given_back(shop) == []
    assert counted("nest_stripe_not_refunded") == before + 1


async def test_a_payment_under_way_is_refunded_when_it_has_come(shop: Shop) -> None:
    await twice(shop, payment_method="pm_usBankAccount_success")
    await shop.deliver_all()
    assert given_back(shop) == []
    (again,) = [said for _, said in await shop.harness.delayed() if isinstance(said, RefundDuplicateSubscription)]
    assert again.awaited == 1
    await shop.double.clock.advance(timedelta(days=5))
    await shop.harness.deliver(again)
    assert given_back(shop) == [500]


@pytest.mark.parametrize("trouble", [FaultKind.RESET, FaultKind.SERVER_ERROR, FaultKind.HANG])
@pytest.mark.parametrize("path", ["/v1/refunds", "*balance_transactions"])
async def test_a_refund_that_stripe_made_and_did_not_answer_is_made_once(
    path: str, trouble: FaultKind, shop: Shop
) -> None:
    first, _ = await twice(shop)
    shop.harness.context.stripe.calls.patience = FAST
    fault = shop.double.faults.add(trouble, after_work=True, times=3, method="POST", path=path)
    await shop.deliver_all()
    assert fault.hits == 3
    shop.harness.context.stripe.calls.breaker.succeeded()
    for _, again in await shop.harness.delayed():
        await shop.harness.deliver(again)
    assert given_back(shop) == [500]
    assert len(shop.double.objects("customer_balance_transaction")) == 1
    assert shop.double.object("customer", first["customer"])["balance"] == 0


@pytest.mark.parametrize("path", ["/v1/refunds", "*balance_transactions"])
async def test_a_failure_that_stripe_keeps_is_reconciled_before_another_refund(path: str, shop: Shop) -> None:
    await twice(shop)
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, stored=True, times=1, method="POST", path=path)
    await shop.deliver_all()
    assert fault.hits == 1
    assert given_back(shop) == [500]
    assert len(shop.double.objects("customer_balance_transaction")) == 1


async def test_days_later_when_the_keys_are_forgotten_nothing_is_given_back_twice(shop: Shop) -> None:
    first, second = await twice(shop)
    await shop.deliver_all()
    for call in shop.double.log:
        if call.idempotency_key:
            shop.double.idempotency.forget(call.idempotency_key)
    duplicate = await shop.harness.context.subscriptions.find(second["id"])
    assert not await give_back(duplicate, shop.harness.context.stripe.calls)
    assert given_back(shop) == [500]
    assert shop.double.object("customer", first["customer"])["balance"] == 0


async def test_a_crash_after_each_call_leaves_one_of_everything(
    shop: Shop, open_shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await twice(shop)

    class Killed(BaseException):
        pass

    killed = 0

    def die_once_at_each(_: str) -> None:
        nonlocal killed
        if killed < 3:
            killed += 1
            raise Killed

    monkeypatch.setattr("services.billing.subscriptions.refunds.fault_point", die_once_at_each)
    monkeypatch.setattr("services.billing.subscriptions.handlers.fault_point", die_once_at_each)
    for _ in range(6):
        try:
            await shop.deliver_all()
        except Killed:
            # The order that the process died over comes again.
            shop._settled -= 1
    assert killed == 3
    assert given_back(shop) == [500]
    assert shop.double.object("customer", first["customer"])["balance"] == 0
    assert (await shop.record(second["id"]))["status"] == "canceled"
    assert len([call for call in shop.double.log if call.method == "DELETE" and call.status == 200]) == 1
    assert len(shop.harness.published_of(DuplicateSubscriptionCancelled)) == 1
    assert [template for template, _ in shop.mails()].count("duplicate-subscription") == 1


async def test_where_duplicates_are_left_alone_each_is_told_of_once_and_counted(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_cancel_duplicates=False)
    before = counted("nest_stripe_duplicate_subscriptions", done="told")
    first, second = await twice(shop)
    await shop.deliver_all()
    shop.double.simulate.cancel(second["id"])
    await shop.deliver_all()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    (found,) = shop.harness.published_of(DuplicateSubscriptionFound)
    kept, newcomer = await shop.record(first["id"]), await shop.record(second["id"])
    assert (found.subscription_id, found.kept_subscription_id) == (newcomer["_id"], kept["_id"])
    assert counted("nest_stripe_duplicate_subscriptions", done="told") > before
    assert not [call for call in shop.double.log if call.method in ("POST", "DELETE") and call.path != "/v1/prices"]


async def test_an_overdue_one_past_its_grace_makes_room_for_a_new_one(shop: Shop) -> None:
    overdue = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.decline(overdue["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", overdue["id"]), status="past_due")
    anew = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    shop.harness.now = shop.double.clock.time + timedelta(days=31)
    await shop.deliver_all()
    assert shop.double.object("subscription", anew["id"])["status"] == "active"
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []
