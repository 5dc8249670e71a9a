"""Payments and disputes, from Stripe's signed webhook to the operators' lists and the mails."""

from __future__ import annotations

from typing import Any

from tests.end_to_end.flows import operator_call
from tests.stack import OPERATORS_ADDRESS, Stack, eventually


async def listed(nest: Stack, method: str, count: int, **filters: Any) -> list[dict[str, Any]]:
    """Wait until an operator's list has so many entries, and return them."""

    async def found() -> list[dict[str, Any]]:
        response = await nest.call(method, filters, **nest.internal)
        assert response.status_code == 200, response.text
        entries: list[dict[str, Any]] = response.json()[method.removeprefix("list_")]
        return entries if len(entries) == count else []

    entries: list[dict[str, Any]] = await eventually(found, what=f"{count} of {method}")
    return entries


def price(nest: Stack) -> str:
    return nest.environment["NEST_STRIPE_TRIAL_PRICE"]


async def test_payment_belongs_to_the_user_with_the_customers_address(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(price(nest), email=email)
    user_id = (await nest.log_in(email))["user_id"]

    (payment,) = await listed(nest, "list_payments", 1, user_id=user_id, status="succeeded")

    assert (payment["user_id"], payment["stp_subscription_id"]) == (user_id, made["id"])
    assert (payment["amount_received"], payment["amount_refunded"]) == (payment["amount"], 0)
    nest.stripe.simulate.refund(made["id"])

    async def refunded() -> bool:
        (now,) = await listed(nest, "list_payments", 1, user_id=user_id)
        return bool(now["amount_refunded"] == now["amount"])

    await eventually(refunded, what="the refund")


async def test_declined_payment_sends_one_mail_with_the_payment_link(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(price(nest), email=email, payment_method="pm_card_chargeCustomerFail")
    nest.stripe.simulate.retry_payment(made["id"])

    mail = await nest.mail(email, subject="did not go through")

    invoice = nest.stripe.object("invoice", made["latest_invoice"])
    assert invoice["hosted_invoice_url"] in mail.links
    nest.stripe.simulate.retry_payment(made["id"])
    await nest.stripe.webhooks.drain(30)
    nest.stripe.simulate.recover(made["customer"])
    user_id = (await nest.log_in(email))["user_id"]
    await listed(nest, "list_payments", 1, user_id=user_id, status="succeeded")
    failures = [each for each in nest.inbox.arrivals(email) if "did not go through" in each.subject]
    assert len(failures) == 1


async def test_customers_with_invalid_addresses_stop_no_other_events(nest: Stack, email: str) -> None:
    """Some mobile carriers assigned addresses with dots where RFC 5321 section 4.1.2 allows none."""
    letters = (await operator_call(nest, "list_dead_letters"))["letters"]
    addresses = ("taro.@docomo.ne.jp", "ta..ro@ezweb.ne.jp", f" {email} ")
    for address in addresses:
        made = nest.stripe.simulate.checkout(price(nest), email=address, payment_method="pm_card_chargeCustomerFail")
        nest.stripe.simulate.retry_payment(made["id"])

    # The white space around the last address is dropped.
    await nest.mail(email, subject="did not go through")

    async def unusable() -> bool:
        failed = [await operator_call(nest, "list_deliveries", recipient=address) for address in addresses[:2]]
        return all([each["state"] for each in found["deliveries"]] == ["failed"] for found in failed)

    await eventually(unusable, what="the failed mails")
    await nest.stripe.webhooks.drain(30)
    assert (await operator_call(nest, "list_dead_letters"))["letters"] == letters


async def test_dispute_is_assigned_to_its_user_and_mailed_to_operators(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(price(nest), email=email)
    dispute = nest.stripe.simulate.dispute(made["id"])
    user_id = (await nest.log_in(email))["user_id"]
    nest.stripe.simulate.close_dispute(dispute["id"], "lost")

    (found,) = await listed(nest, "list_disputes", 1, user_id=user_id, status="lost")

    assert (found["stp_dispute_id"], found["stp_subscription_id"]) == (dispute["id"], made["id"])

    def both_mails() -> list[Any]:
        mails = [each for each in nest.inbox.arrivals(OPERATORS_ADDRESS) if dispute["id"] in each.text]
        return mails if len(mails) == 2 else []

    mails = await eventually(both_mails, what="two mails to the operators")
    assert sorted(mail.subject.startswith("lost: ") for mail in mails) == [False, True]


async def test_thin_events_record_the_payment_too(nest: Stack, email: str) -> None:
    nest.stripe.webhooks.thin = True
    try:
        made = nest.stripe.simulate.checkout(price(nest), email=email)
        await nest.stripe.webhooks.drain(30)
    finally:
        nest.stripe.webhooks.thin = False
    user_id = (await nest.log_in(email))["user_id"]

    (payment,) = await listed(nest, "list_payments", 1, user_id=user_id, status="succeeded")

    assert payment["stp_subscription_id"] == made["id"]


async def test_lists_need_the_internal_key_and_the_newest_version(nest: Stack, email: str) -> None:
    bearer = {"authorization": f"bearer {(await nest.log_in(email))['access_token']}"}
    for method in ("list_payments", "list_disputes"):
        for headers in ({}, bearer):
            response = await nest.call(method, {}, **headers)
            assert (response.status_code, response.json()["code"]) == (403, "access_denied")
        response = await nest.call(method, {}, version="2020-12-14", **nest.internal)
        assert response.status_code == 404
