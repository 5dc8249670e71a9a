"""Attribution of subscriptions and payments to users."""

from __future__ import annotations

from shared.ids import derived_message_id
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.subscriptions import (
    FollowCustomer,
    FollowSubscription,
)
from tests.billing.conftest import Shop, counter


async def test_the_user_of_an_unmapped_customer_comes_from_its_address(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    (request,) = shop.harness.published_of(EnsureUser)
    assert (request.reference, request.email) == (made["customer"], "ada@example.com")
    assert await shop.count("subscriptions") == 0
    await shop.settle()
    assert (await shop.record(made["id"]))["userId"] == shop.users["ada@example.com"]
    mapping = await shop.harness.database["provider_mappings"].find_one({})
    assert mapping is not None
    assert {key: mapping[key] for key in ("userId", "providerType", "providerValue", "removedAt")} == {
        "userId": shop.users["ada@example.com"],
        "providerType": "stripe",
        "providerValue": made["customer"],
        "removedAt": None,
    }


async def test_metadata_precedes_the_mapping_and_that_the_address(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata={"user_id": "user_bob"})
    third = shop.double.simulate.checkout(shop.price, customer=first["customer"])
    await shop.deliver_all()
    assert (await shop.record(second["id"]))["userId"] == "user_bob"
    assert (await shop.record(third["id"]))["userId"] == shop.users["ada@example.com"]
    # Users of payments are requested separately, by the payments' IDs.
    assert [
        request.reference for request in shop.harness.published_of(EnsureUser) if request.reference.startswith("cus_")
    ] == [first["customer"]]


async def test_metadata_of_a_customer_moves_its_mapping(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    await shop.post(f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_new"})
    await shop.harness.deliver(FollowSubscription(subscription_id=made["id"]))
    assert (await shop.record(made["id"]))["userId"] == "user_new"
    mappings = [mapping async for mapping in shop.harness.database["provider_mappings"].find()]
    assert [mapping["userId"] for mapping in mappings] == ["user_new"]


async def test_a_subscription_without_user_is_counted(shop: Shop) -> None:
    before = counter("nest_stripe_subscriptions_of_nobody")
    customer = await shop.post("/v1/customers", name="No address")
    made = shop.double.simulate.checkout(shop.price, customer=customer["id"])
    await shop.deliver(shop.events_of(made["id"])[0])
    assert counter("nest_stripe_subscriptions_of_nobody") == before + 1
    assert [type(message) for message in shop.harness.published] == [FollowSubscription]
    assert (await shop.event_rows())[0]["outcome"] == "nobody"


async def test_a_user_that_another_service_requested_is_ignored(shop: Shop) -> None:
    await shop.harness.deliver(UserEnsured(reference="import_7", user_id="user_ada"))
    assert (await shop.count("provider_mappings"), shop.harness.published) == (0, [])


async def test_the_id_of_a_user_request_reveals_no_address(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    rows = await shop.harness.database["inbox"].find().to_list()
    ids = {message["id"] for row in rows for message in row["messages"] if message["type"] == EnsureUser.wire}
    email = b"ada@example.com"
    digest = shop.harness.sealer.keyed_hash("ensure-user", made["customer"].encode(), email)
    # One request, however many events cause it.
    assert ids == {derived_message_id("ensure-user", digest)}


async def test_a_corrected_address_is_requested_anew(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.invalid")
    await shop.deliver(shop.events_of(made["id"])[0])
    await shop.post(f"/v1/customers/{made['customer']}", email="ada@example.com")
    (at, retry) = (await shop.harness.delayed())[-1]
    shop.harness.now = at
    await shop.harness.deliver(retry)
    assert [request.email for request in shop.harness.published_of(EnsureUser)] == [
        "ada@example.invalid",
        "ada@example.com",
    ]
    request = shop.harness.published_of(EnsureUser)[-1]
    await shop.harness.deliver(UserEnsured(key=request.reference, reference=request.reference, user_id="user_ada"))
    await shop.harness.deliver(shop.harness.published_of(FollowCustomer)[-1])
    await shop.harness.deliver(shop.harness.published_of(FollowSubscription)[-1])
    assert (await shop.record(made["id"]))["userId"] == "user_ada"
    assert [row["outcome"] for row in await shop.event_rows()] == ["read"]


async def test_a_user_for_an_unknown_payment_is_ignored(shop: Shop) -> None:
    await shop.harness.deliver(UserEnsured(reference="pi_elsewhere", user_id="user_ada"))
    assert (await shop.count("provider_mappings"), shop.harness.published) == (0, [])
