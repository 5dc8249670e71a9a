"""Active entitlements of the Stripe double."""

from datetime import timedelta

import stripe

from tests.stripe_double.shop import Shop

UPDATED = "entitlements.active_entitlement_summary.updated"


async def attach(shop: Shop, subscription: stripe.Subscription, key: str) -> None:
    """Attach a new feature to the product of a subscription."""
    feature = await shop.api.entitlements.features.create_async({"name": key, "lookup_key": key})
    product = subscription["items"]["data"][0]["price"]["product"]
    await shop.api.products.features.create_async(product, {"entitlement_feature": feature.id})


async def keys(shop: Shop, customer: str) -> list[str]:
    found = await shop.api.entitlements.active_entitlements.list_async({"customer": customer})
    return sorted(each.lookup_key for each in found.data)


async def test_a_feature_counts_from_the_next_period_until_the_end_of_the_subscription(shop: Shop) -> None:
    subscription = await shop.subscription()
    customer = str(subscription.customer)
    await attach(shop, subscription, "api")
    assert (await keys(shop, customer), UPDATED in shop.types()) == ([], False)
    await shop.double.clock.advance(timedelta(days=32))
    assert await keys(shop, customer) == ["api"]
    (summary,) = [each["data"]["object"] for each in shop.double.objects("event") if each["type"] == UPDATED]
    assert (summary["customer"], "id" in summary) == (customer, False)
    assert [each["lookup_key"] for each in summary["entitlements"]["data"]] == ["api"]
    await shop.api.subscriptions.cancel_async(subscription.id)
    assert (await keys(shop, customer), shop.types().count(UPDATED)) == ([], 2)


async def test_a_new_subscription_has_the_features_of_its_product_at_once(shop: Shop) -> None:
    await attach(shop, await shop.subscription(), "api")
    later = await shop.subscription()
    assert await keys(shop, str(later.customer)) == ["api"]
