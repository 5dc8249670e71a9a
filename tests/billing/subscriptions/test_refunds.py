"""Refund of a duplicate's payments, exactly once, whatever fails on the way."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.subscriptions.refunds import refund_payments
from services.stripe_double import FaultKind
from shared.messages.billing.subscriptions import (
    DuplicateSubscriptionCancelled,
    RefundDuplicateSubscription,
    SubscriptionEnded,
)
from tests.billing.conftest import ADA, FAST, Shop, counter, post


def refunded(shop: Shop) -> list[int]:
    return [refund["amount"] for refund in shop.double.objects("refund")]


async def test_payments_of_a_duplicate_are_refunded_and_its_credit_reversed(shop: Shop) -> None:
    first, second = await shop.subscribe_twice()
    await shop.deliver_all()
    (refund,) = shop.double.objects("refund")
    duplicate = await shop.record(second["id"])
    assert (refund["amount"], refund["reason"]) == (500, "duplicate")
    assert refund["metadata"] == {"subscription_id": duplicate["_id"]}
    paid = {charge["id"]: charge["payment_intent"] for charge in shop.double.objects("charge")}
    invoice_payments = shop.double.objects("invoice_payment")
    invoice_payment = next(each for each in invoice_payments if each["invoice"] == second["latest_invoice"])
    assert paid[refund["charge"]] == invoice_payment["payment"]["payment_intent"]
    assert shop.double.object("customer", first["customer"])["balance"] == 0
    (cancelled,) = shop.harness.published_of(DuplicateSubscriptionCancelled)
    (ended,) = shop.harness.published_of(SubscriptionEnded)
    assert (cancelled.reason, ended.reason) == ("duplicate", "duplicate")
    assert [template for template, _ in shop.mails()].count("duplicate-subscription") == 1


async def test_credit_that_a_duplicate_used_is_returned_to_the_balance(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    await post(shop.double, f"/v1/customers/{first['customer']}", balance="-200")
    shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    assert refunded(shop) == [300]
    assert shop.double.object("customer", first["customer"])["balance"] == -200


async def test_a_duplicate_without_payment_is_not_refunded(shop: Shop) -> None:
    await shop.subscribe_twice(trial_days=14)
    await shop.deliver_all()
    assert len(shop.harness.published_of(RefundDuplicateSubscription)) == 1
    assert refunded(shop) == []


async def test_a_payment_that_an_operator_refunded_is_not_refunded_again(shop: Shop) -> None:
    _, second = await shop.subscribe_twice()
    shop.double.simulate.refund(second["id"])
    before = counter("nest_stripe_not_refunded")
    await shop.deliver_all()
    assert refunded(shop) == [500]
    assert counter("nest_stripe_not_refunded") == before


async def test_a_disputed_payment_is_not_refunded_and_counted(shop: Shop) -> None:
    _, second = await shop.subscribe_twice()
    shop.double.simulate.dispute(second["id"])
    before = counter("nest_stripe_not_refunded")
    await shop.deliver_all()
    assert refunded(shop) == []
    assert counter("nest_stripe_not_refunded") == before + 1


async def test_a_processing_payment_is_refunded_once_it_has_succeeded(shop: Shop) -> None:
    await shop.subscribe_twice(payment_method="pm_usBankAccount_success")
    await shop.deliver_all()
    assert refunded(shop) == []
    delayed = await shop.harness.delayed()
    (retry,) = [message for _, message in delayed if isinstance(message, RefundDuplicateSubscription)]
    assert retry.awaited == 1
    await shop.double.clock.advance(timedelta(days=5))
    await shop.harness.deliver(retry)
    assert refunded(shop) == [500]


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.SERVER_ERROR, FaultKind.HANG])
@pytest.mark.parametrize("path", ["/v1/refunds", "*balance_transactions"])
async def test_a_refund_whose_response_was_lost_is_created_once(path: str, kind: FaultKind, shop: Shop) -> None:
    first, _ = await shop.subscribe_twice()
    shop.harness.context.stripe.calls.timeouts = FAST
    fault = shop.double.faults.add(kind, after_work=True, times=3, method="POST", path=path)
    await shop.deliver_all()
    assert fault.hits == 3
    shop.harness.context.stripe.calls.breaker.succeeded()
    for _, retry in await shop.harness.delayed():
        await shop.harness.deliver(retry)
    assert refunded(shop) == [500]
    assert len(shop.double.objects("customer_balance_transaction")) == 1
    assert shop.double.object("customer", first["customer"])["balance"] == 0


@pytest.mark.parametrize("path", ["/v1/refunds", "*balance_transactions"])
async def test_after_a_stored_failure_the_refund_is_looked_up_first(path: str, shop: Shop) -> None:
    await shop.subscribe_twice()
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, stored=True, times=1, method="POST", path=path)
    await shop.deliver_all()
    assert fault.hits == 1
    assert refunded(shop) == [500]
    assert len(shop.double.objects("customer_balance_transaction")) == 1


async def test_a_repeat_after_days_refunds_nothing_twice(shop: Shop) -> None:
    first, second = await shop.subscribe_twice()
    await shop.deliver_all()
    for call in shop.double.log:
        if call.idempotency_key:
            shop.double.idempotency.forget(call.idempotency_key)
    duplicate = await shop.harness.context.subscriptions.find(second["id"])
    money = await refund_payments(duplicate, shop.harness.context.stripe.calls)
    assert (money.refunded, money.processing, money.unresolved) == (500, False, False)
    assert refunded(shop) == [500]
    assert shop.double.object("customer", first["customer"])["balance"] == 0


async def test_a_crash_after_each_call_leaves_one_refund_and_one_reversal(
    shop: Shop, open_shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await shop.subscribe_twice()

    class Crashed(BaseException):
        pass

    crashes = 0

    def crash_three_times(_: str) -> None:
        nonlocal crashes
        if crashes < 3:
            crashes += 1
            raise Crashed

    monkeypatch.setattr("services.billing.subscriptions.refunds.fault_point", crash_three_times)
    monkeypatch.setattr("services.billing.subscriptions.handlers.fault_point", crash_three_times)
    for _ in range(6):
        try:
            await shop.deliver_all()
        except Crashed:
            # The command is delivered again.
            shop._settled -= 1
    assert crashes == 3
    assert refunded(shop) == [500]
    assert shop.double.object("customer", first["customer"])["balance"] == 0
    assert (await shop.record(second["id"]))["status"] == "canceled"
    assert len([call for call in shop.double.log if call.method == "DELETE" and call.status == 200]) == 1
    assert len(shop.harness.published_of(DuplicateSubscriptionCancelled)) == 1
    assert [template for template, _ in shop.mails()].count("duplicate-subscription") == 1
