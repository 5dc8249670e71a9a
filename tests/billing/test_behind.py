"""Work that has time takes only the places that nobody else wants."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.billing.stripe_api import account as adapter
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import Patience
from services.stripe_double import StripeDouble
from shared.messages.billing.errors import StripeUnavailable
from tests.billing.conftest import API_KEY

RATE = 80.0


@pytest.fixture
async def stripe(double: StripeDouble) -> AsyncIterator[Stripe]:
    patience = Patience(attempt=2.0, call=5.0, pause=0.01)
    async with adapter.opened(
        api_key=API_KEY, api_base=double.url, rate=RATE, portal_return_url="https://getbeak.app/", patience=patience
    ) as account:
        yield account


async def test_webhooks_that_wait_go_first(stripe: Stripe) -> None:
    order: list[str] = []

    async def ask(account: Stripe, name: str) -> None:
        await account.customer("cus_none")
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(90):
            group.create_task(ask(stripe, "webhook"))
        await asyncio.sleep(0.1)
        group.create_task(ask(stripe.behind(), "comparison"))
    assert order.index("comparison") >= 85


async def test_alone_it_takes_a_quarter_at_most(stripe: Stripe) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(stripe.behind().customer("cus_none") for _ in range(30)))
    # A quarter of a second's worth may leave at once.
    assert loop.time() - began >= 30 / (RATE / 4) - 0.3


async def test_who_finds_no_place_in_time_comes_back_later(stripe: Stripe) -> None:
    stripe.calls.patience = Patience(attempt=2.0, call=0.3, pause=0.01)
    patient = stripe.behind()
    stripe.calls.patience = Patience(attempt=2.0, call=5.0, pause=0.01)
    storm = [asyncio.create_task(stripe.customer("cus_none")) for _ in range(90)]
    await asyncio.sleep(0.05)
    with pytest.raises(StripeUnavailable):
        await patient.customer("cus_none")
    await asyncio.gather(*storm)
