import pytest
import stripe

from services.stripe_double import StripeApiError
from tests.stripe_double.shop import Shop


async def test_an_outage_refuses_connections_and_keeps_the_port(shop: Shop) -> None:
    await shop.customer(None)
    url = shop.double.url
    async with shop.double.outage():
        with pytest.raises(stripe.APIConnectionError):  # The client's open connection is aborted.
            await shop.customer(None)
        with pytest.raises(stripe.APIConnectionError, match="ConnectError"):
            await shop.customer(None)
    await shop.customer(None)
    assert (shop.double.url, len(shop.double.objects("customer"))) == (url, 2)


async def test_objects_are_read_as_the_api_returns_them(shop: Shop) -> None:
    subscription = await shop.subscription()
    assert shop.double.objects("subscription") == [shop.double.object("subscription", subscription.id)]
    assert shop.double.object("subscription", subscription.id)["customer"] == subscription.customer
    with pytest.raises(StripeApiError):
        shop.double.object("subscription", "sub_none")
