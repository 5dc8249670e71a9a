"""One circuit breaker and one bound on concurrent calls for each endpoint family."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from services.billing.stripe_api import account, families
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import Timeouts
from services.billing.stripe_api.families import FAMILIES, OTHER, family_of
from services.stripe_double import FaultKind, StripeDouble
from shared.messages.billing.errors import StripeUnavailable
from tests.billing.conftest import API_KEY
from tests.stack import eventually

SOURCES = Path(account.__file__).parents[1]


@pytest.fixture
async def stripe(double: StripeDouble) -> AsyncIterator[Stripe]:
    async with account.open_account(
        api_key=SecretStr(API_KEY),
        api_base=double.url,
        rate=2000,
        portal_return_url="https://getbeak.app/",
        timeouts=Timeouts(attempt=0.3, call=2.0, portal=0.3, retry_pause=0.01),
    ) as opened:
        yield opened


def is_open(family: str) -> float | None:
    return REGISTRY.get_sample_value("nest_breaker_open", {"dependency": f"stripe_{family}"})


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/subscriptions", "subscriptions"),
        ("/v1/subscriptions/sub_1/resume", "subscriptions"),
        ("/v1/subscription_schedules/sub_sched_1", "subscriptions"),
        ("/v1/customers/cus_1", "customers"),
        ("/v1/invoices/in_1/lines", "invoices"),
        ("/v1/payment_intents/pi_1", "payments"),
        ("/v1/refunds", "payments"),
        ("/v1/disputes/du_1", "disputes"),
        ("/v1/billing_portal/sessions", "billing_portal"),
        ("/v1/checkout/sessions", "checkout"),
        ("/v1/prices", "catalog"),
        ("/v1/billing/meter_events", "usage"),
        ("/v2/billing/meter_event_stream", "usage"),
        ("/v1/entitlements/active_entitlements", "entitlements"),
        ("/v1/events/evt_1", "events"),
        ("/v1/nothing_that_nest_knows", OTHER),
        ("/v1", OTHER),
        ("", OTHER),
    ],
)
def test_family_follows_from_the_path(path: str, family: str) -> None:
    assert family_of(path) == family


def test_every_path_that_billing_calls_has_a_family() -> None:
    # The table of rights has paths of operators' commands too.
    sources = "".join(file.read_text() for file in SOURCES.rglob("*.py") if file.name != "rights.py")
    paths = set(re.findall(r'"(/v[12]/[a-z_]+)', sources))
    assert len(paths) > 10
    assert [path for path in paths if family_of(path) == OTHER] == []


async def test_hanging_portal_opens_no_other_circuit(stripe: Stripe, double: StripeDouble, price: str) -> None:
    fault = double.faults.add(FaultKind.HANG, path="/v1/billing_portal/*")
    hits = 0
    while not is_open("billing_portal"):
        assert await stripe.portal_url("cus_1") is None
        hits = fault.hits
        assert hits <= 5
    assert await stripe.portal_url("cus_1") is None
    assert fault.hits == hits
    customer = await stripe.create_customer(email="ada@example.com", user_id="user_1", key="1")
    await stripe.create_trial(customer_id=customer, price=price, user_id="user_1", trial_id="trial_1", key="2")
    assert {is_open(family) for family in FAMILIES} - {is_open("billing_portal")} == {0}


async def test_hanging_family_holds_a_bounded_number_of_calls(
    stripe: Stripe, double: StripeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "CONCURRENT_CALLS", 3)
    stripe.calls.breaker = families.FamilyBreakers()
    stripe.calls.timeouts = Timeouts(attempt=5.0, call=5.0, portal=5.0)
    fault = double.faults.add(FaultKind.HANG, path="/v1/customers/*")
    hanging = [asyncio.create_task(stripe.customer("cus_1")) for _ in range(20)]
    await eventually(lambda: fault.hits == 3, what="three hanging calls")
    assert await stripe.subscription_ids("cus_1") == []
    # Callers have calls of their own.
    with pytest.raises(StripeUnavailable):
        await stripe.within(0.2).customer("cus_1")
    assert fault.hits == 4
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
