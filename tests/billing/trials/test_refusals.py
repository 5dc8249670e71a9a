"""Trials that Stripe refuses for good (https://docs.stripe.com/error-codes)."""

from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.auth.magic_links import SendTrialMagicLink
from shared.messages.billing.trials import FinishTrial
from tests.billing.conftest import Shop, counter
from tests.billing.trials.test_handlers import command, created, start
from tests.service_harness import Refused

REFUSALS = [
    # Real refusals of the double, as an operator causes them; see docs.stripe.com/error-codes for the others.
    pytest.param({"code": None, "param": None}, id="currency mismatch"),
    pytest.param({"code": None, "param": "items[0][price]"}, id="price archived"),
    pytest.param({"code": "resource_missing", "param": "items[0][price]"}, id="price missing"),
    pytest.param({"code": "resource_missing", "param": "customer"}, id="customer deleted"),
    pytest.param({"code": "customer_tax_location_invalid", "param": None}, id="tax address missing"),
    pytest.param({"code": "customer_max_subscriptions", "param": None}, id="too many subscriptions"),
    pytest.param({"code": "parameter_unknown", "param": "trial_settings"}, id="parameter unknown"),
    pytest.param({"code": "email_invalid", "param": "email"}, id="customer's address"),
    pytest.param({"code": "account_invalid", "param": None, "status": 404}, id="account closed"),
    pytest.param({"code": "card_declined", "param": None, "status": 402, "type": "card_error"}, id="card declined"),
    pytest.param({"code": None, "param": None, "status": 422}, id="unknown 4xx"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_trial_is_answered_at_once_and_may_be_tried_again(refusal: dict[str, Any], shop: Shop) -> None:
    labels = {"call": "create_trial", "code": refusal["code"] or "none"}
    before = counter("nest_stripe_refusals", **labels)
    fault = shop.double.faults.add(FaultKind.REFUSED, method="POST", path="/v1/subscriptions", **refusal)
    for attempt in (1, 2):
        with pytest.raises(Refused) as refused:
            await start(shop)
        assert (refused.value.kind, refused.value.code) == ("conflict", "trial_refused_by_stripe")
        assert counter("nest_stripe_refusals", **labels) == before + attempt
        assert (fault.hits, await shop.count("trials")) == (attempt, 0)
    shop.double.faults.clear()
    await start(shop)
    # The customer of the first attempt is used again.
    assert created(shop) == (1, 1)
    assert len(shop.harness.published_of(SendTrialMagicLink)) == 1


async def test_a_trial_of_an_archived_price_is_refused(shop: Shop) -> None:
    await shop.post(f"/v1/prices/{shop.price}", active="false")
    for number in range(12):
        with pytest.raises(Refused) as refused:
            await start(shop, key=f"u{number}", user_id=f"u{number}", beak_id=f"b{number}", fingerprint=f"f{number}")
        assert refused.value.code == "trial_refused_by_stripe"
    assert await shop.count("trials") == 0


async def test_a_trial_in_another_currency_than_the_customers_is_refused(shop: Shop) -> None:
    form = {"currency": "eur", "unit_amount": "500", "recurring[interval]": "month", "product_data[name]": "Other"}
    euro = (await shop.post("/v1/prices", **form))["id"]
    made = shop.double.simulate.checkout(euro, email="ada@example.com", metadata={"user_id": "user_ada"})
    await shop.deliver_all()
    subscription = await shop.harness.context.subscriptions.find_by_stripe_id(made["id"])
    # No longer active for Nest, but still in Stripe.
    await shop.harness.database["subscriptions"].update_one({"_id": subscription.id}, {"$set": {"status": "unpaid"}})
    with pytest.raises(Refused) as refused:
        await start(shop)
    assert (refused.value.code, await shop.count("trials")) == ("trial_refused_by_stripe", 0)


async def test_a_customer_that_stripe_refuses_leaves_no_reservation(shop: Shop) -> None:
    shop.double.faults.add(FaultKind.REFUSED, method="POST", path="/v1/customers", code="country_unsupported")
    with pytest.raises(Refused) as refused:
        await start(shop)
    assert (refused.value.code, await shop.count("trials"), created(shop)) == ("trial_refused_by_stripe", 0, (0, 0))


async def test_a_trial_that_exists_and_cannot_be_read_is_continued_by_a_repeat(shop: Shop) -> None:
    shop.double.faults.add(FaultKind.REFUSED, method="GET", path="/v1/subscriptions/*")
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await start(shop)
        assert (refused.value.code, await shop.count("trials")) == ("trial_refused_by_stripe", 1)
    shop.double.faults.clear()
    await start(shop)
    assert created(shop) == (1, 1)


async def test_of_two_commands_for_a_refused_trial_both_are_refused(shop: Shop) -> None:
    shop.double.faults.add(FaultKind.REFUSED, method="POST", path="/v1/subscriptions")
    await shop.harness.deliver(command())
    await shop.harness.deliver(command(state="second"))
    for finish in shop.harness.published_of(FinishTrial):
        with pytest.raises(Refused) as refused:
            await shop.harness.deliver(finish)
        assert refused.value.code == "trial_refused_by_stripe"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_key_is_alarmed_and_keeps_the_reservation(status: int, shop: Shop) -> None:
    labels = {"call": "create_trial", "code": f"http_{status}"}
    before = counter("nest_stripe_refusals", **labels)
    shop.double.faults.add(FaultKind.REFUSED, method="POST", path="/v1/subscriptions", status=status, times=1)
    with pytest.raises(Refused, match="unavailable"):
        await start(shop)
    assert (counter("nest_stripe_refusals", **labels), await shop.count("trials")) == (before + 1, 1)
    await start(shop)
    assert created(shop) == (1, 1)
