"""Features of users as subscriptions, products and Stripe's entitlements change."""

from datetime import timedelta
from typing import Any

from services.billing.catalog.models import ProductRecord
from services.billing.entitlements.handlers import SUBSCRIPTIONS_PER_STEP
from services.billing.entitlements.sync import REFRESH
from services.billing.stripe_api.catalog_models import StripeProduct
from services.stripe_double import Settings
from shared.documents import document_of
from shared.messages.billing.entitlements import EntitlementsChanged, RefreshEntitlements
from shared.messages.billing.plans import FollowProduct
from shared.messages.billing.subscriptions import CheckSubscriptionAccess
from tests.billing.conftest import ADA, MONTH, Shop, post

Row = dict[str, Any]


def product_of(shop: Shop) -> str:
    """The product of the price."""
    product: str = shop.double.object("price", shop.price)["product"]
    return product


async def give(shop: Shop, features: str) -> None:
    """Record the features of the product in the catalog, without any consequence."""
    record = ProductRecord.first_seen(
        StripeProduct(
            id=product_of(shop),
            name="Beak",
            description=None,
            active=True,
            marketing_features=(),
            unit_label=None,
            default_price_id=None,
            metadata={"features": features},
            created=shop.harness.now,
            livemode=False,
        ),
        at=shop.harness.now,
    )
    products = shop.harness.database["stripe_products"]
    await products.replace_one({"_id": record.id}, document_of(record), upsert=True)


async def row(shop: Shop, user_id: str = "user_ada") -> tuple[list[str], int]:
    """The stored features of a user and their number."""
    found: Row | None = await shop.harness.database["entitlements"].find_one({"_id": user_id})
    assert found is not None
    return found["features"], found["entV"]


def events(shop: Shop, user_id: str = "user_ada") -> list[tuple[tuple[str, ...], int]]:
    """The features and numbers that were announced for a user."""
    announced = shop.harness.published_of(EntitlementsChanged)
    return [(event.features, event.version) for event in announced if event.user_id == user_id]


async def subscribed(shop: Shop, **options: Any) -> dict[str, Any]:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, **options)
    await shop.deliver_types("customer.subscription.created", "customer.subscription.updated")
    return made


async def follow(shop: Shop) -> None:
    """Deliver the events of subscriptions."""
    await shop.deliver_types(*(f"customer.subscription.{name}" for name in ("created", "updated", "deleted")))


async def test_features_begin_and_end_with_the_subscription(shop: Shop) -> None:
    await give(shop, "sso, api")
    made = await subscribed(shop)
    assert await row(shop) == (["api", "sso"], 1)
    shop.double.simulate.cancel(made["id"], at="now")
    await follow(shop)
    assert await row(shop) == ([], 2)
    assert events(shop) == [(("api", "sso"), 1), ((), 2)]


async def test_a_renewal_and_repeated_events_change_nothing(shop: Shop) -> None:
    await give(shop, "api")
    await subscribed(shop)
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    for _ in range(2):
        await follow(shop)
    assert (await row(shop), events(shop)) == ((["api"], 1), [(("api",), 1)])


async def test_features_end_at_the_moment_at_which_access_lapses(shop: Shop) -> None:
    await give(shop, "api")
    await subscribed(shop)
    # Nothing is known of a renewal, because Stripe is away.
    [(due, check)] = [each for each in await shop.harness.delayed() if isinstance(each[1], CheckSubscriptionAccess)]
    shop.harness.now = due
    async with shop.double.outage():
        await shop.harness.deliver(check)
    assert (await row(shop), events(shop)) == (([], 2), [(("api",), 1), ((), 2)])


async def test_features_last_through_the_grace_period_and_end_with_it(shop: Shop) -> None:
    shop.double.account.settings = Settings(after_retries="past_due")
    await give(shop, "api")
    made = await subscribed(shop)
    shop.double.simulate.decline(made["customer"])
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    await follow(shop)
    assert await row(shop) == (["api"], 1)
    checks = [each for each in await shop.harness.delayed() if isinstance(each[1], CheckSubscriptionAccess)]
    for due, check in sorted(checks, key=lambda each: each[0]):
        shop.harness.now = max(shop.harness.now, due)
        await shop.harness.deliver(check)
    assert (await row(shop), events(shop)[-1]) == (([], 2), ((), 2))


async def test_a_moved_subscription_moves_its_features(shop: Shop) -> None:
    await give(shop, "api")
    made = await subscribed(shop)
    await post(shop.double, f"/v1/subscriptions/{made['id']}", **{"metadata[user_id]": "user_bob"})
    await follow(shop)
    assert (await row(shop), await row(shop, "user_bob")) == (([], 2), (["api"], 1))
    assert (events(shop)[-1], events(shop, "user_bob")) == (((), 2), [(("api",), 1)])


async def test_a_person_without_features_has_no_number(shop: Shop) -> None:
    await subscribed(shop)
    assert (await row(shop), events(shop)) == (([], 0), [])


async def test_users_of_before_the_upgrade_get_features_with_the_first_reading_of_the_product(shop: Shop) -> None:
    await subscribed(shop)
    await shop.harness.database["entitlements"].delete_many({})
    await give(shop, "api")
    await shop.harness.deliver(RefreshEntitlements(key=REFRESH, product_id=product_of(shop)))
    assert (await row(shop), events(shop)) == ((["api"], 1), [(("api",), 1)])


async def test_a_refresh_covers_all_users_of_a_product_in_bounded_steps(shop: Shop) -> None:
    made = await subscribed(shop)
    stored = await shop.record(made["id"])
    number = SUBSCRIPTIONS_PER_STEP + 5
    await shop.harness.database["subscriptions"].insert_many(
        [
            {**stored, "_id": f"sub_{n:05}", "stpSubscriptionId": f"sub_{n}", "userId": f"user_{n}", "version": 1}
            for n in range(number)
        ]
    )
    await give(shop, "api")
    first = RefreshEntitlements(key=REFRESH, product_id=product_of(shop))
    await shop.harness.deliver(first)
    (second,) = shop.harness.published_of(RefreshEntitlements)
    await shop.harness.deliver(second)
    assert len(shop.harness.published_of(RefreshEntitlements)) == 1
    assert await shop.harness.database["entitlements"].count_documents({"features": ["api"], "entV": 1}) == number + 1


async def test_a_refresh_of_one_user_follows_the_time(shop: Shop) -> None:
    await give(shop, "api")
    await subscribed(shop)
    shop.harness.now += timedelta(days=60)
    await shop.harness.deliver(RefreshEntitlements(key="user_ada", user_id="user_ada"))
    assert await row(shop) == ([], 2)


async def attach(shop: Shop, key: str) -> None:
    """Attach a new feature of Stripe Entitlements to the product."""
    feature = await post(shop.double, "/v1/entitlements/features", name=key, lookup_key=key)
    await post(shop.double, f"/v1/products/{product_of(shop)}/features", entitlement_feature=feature["id"])


async def test_features_of_stripe_entitlements_follow_the_product_and_stripes_readings(shop: Shop) -> None:
    await attach(shop, "api")
    await shop.harness.deliver(FollowProduct(key="x", product_id=product_of(shop)))
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    assert await row(shop) == (["api"], 1)
    assert shop.reads("/v1/entitlements/active_entitlements") == 1
    # Stripe gives a new feature of the product to existing subscriptions at their renewal.
    await attach(shop, "sso")
    await shop.harness.deliver(FollowProduct(key="x", product_id=product_of(shop)))
    await shop.settle()
    assert await row(shop) == (["api"], 1)
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert (await row(shop), events(shop)) == ((["api", "sso"], 2), [(("api",), 1), (("api", "sso"), 2)])
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    assert await row(shop) == ([], 3)
    assert all(each["outcome"] != "not_followed" for each in await shop.event_rows() if "entitle" in each["type"])


async def test_changed_metadata_of_a_product_reaches_its_users(shop: Shop) -> None:
    await subscribed(shop)
    for number, features in enumerate(("api", "api,sso", ""), start=1):
        await post(shop.double, f"/v1/products/{product_of(shop)}", **{"metadata[features]": features})
        await shop.harness.deliver(FollowProduct(key="x", product_id=product_of(shop)))
        await shop.settle()
        assert await row(shop) == ([each for each in features.split(",") if each], number)
