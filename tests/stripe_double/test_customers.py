import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_the_email_filter_is_case_sensitive_and_emails_are_not_unique(shop: Shop) -> None:
    for email in ("ada@example.com", "ada@example.com", "Ada@example.com", " ada@example.com"):
        await shop.api.customers.create_async({"email": email})
    assert len((await shop.api.customers.list_async({"email": "ada@example.com"})).data) == 2


@pytest.mark.parametrize("email", ["not an address", "ada", "ada@", "@example.com", "ada@example", "a@b@example.com"])
async def test_an_invalid_email_address_is_refused(email: str, shop: Shop) -> None:
    customer = await shop.customer(None)
    calls = (
        shop.api.customers.create_async({"email": email}),
        shop.api.customers.update_async(customer.id, {"email": email}),
    )
    for call in calls:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await call
        assert (refused.value.code, refused.value.param) == ("email_invalid", "email")


async def test_addresses_have_all_members(shop: Shop) -> None:
    rest = dict.fromkeys(("city", "line1", "line2", "postal_code", "state"))
    germany, france = {"country": "DE"} | rest, {"country": "FR"} | rest
    customer = await shop.customer(
        None, address={"country": "DE"}, shipping={"name": "Ada", "address": {"country": "FR"}}
    )
    assert customer.address.to_dict() == germany
    assert customer.shipping.to_dict() == {"address": france, "name": "Ada", "phone": None}
    changed = await shop.api.customers.update_async(customer.id, {"address": {"country": "FR"}, "shipping": ""})
    assert (changed.address.to_dict(), changed.shipping) == (france, None)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.customers.update_async(customer.id, {"address": {"planet": "Mars"}})
    assert (refused.value.code, refused.value.param) == ("parameter_unknown", "address[planet]")


async def test_deleting_a_customer_cancels_its_subscriptions(shop: Shop) -> None:
    subscription = await shop.subscription()
    deleted = await shop.api.customers.delete_async(subscription.customer)
    assert deleted.deleted is True
    assert (await shop.read(subscription)).status == "canceled"
    assert shop.types()[-1] == "customer.deleted"
    again = await shop.api.customers.retrieve_async(subscription.customer)
    assert again.to_dict() == {"id": subscription.customer, "object": "customer", "deleted": True}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.customers.update_async(subscription.customer, {"name": "Ada"})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.subscription(subscription.customer)


async def test_a_customers_subscriptions_exclude_ended_ones(shop: Shop) -> None:
    subscription = await shop.subscription()
    customer = await shop.api.customers.retrieve_async(subscription.customer, {"expand": ["subscriptions"]})
    assert [entry.id for entry in customer.subscriptions.data] == [subscription.id]
    await shop.api.subscriptions.cancel_async(subscription.id)
    customer = await shop.api.customers.retrieve_async(subscription.customer, {"expand": ["subscriptions"]})
    assert customer.subscriptions.data == []


async def test_the_balance_reduces_the_next_invoice(shop: Shop) -> None:
    customer = await shop.customer(balance=-400)
    subscription = await shop.subscription(customer.id, expand=["latest_invoice"])
    assert subscription.latest_invoice.amount_paid == 600
    assert shop.double.object("customer", customer.id)["balance"] == 0


async def test_a_portal_session_has_a_new_url_each_time(shop: Shop) -> None:
    customer = await shop.customer()
    params = {"customer": customer.id, "return_url": "https://getbeak.app/"}
    sessions = [await shop.api.billing_portal.sessions.create_async(params) for _ in range(2)]
    assert sessions[0].url.startswith(f"{shop.double.url}/p/session/test_")
    assert sessions[0].url != sessions[1].url
    await shop.api.customers.delete_async(customer.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.billing_portal.sessions.create_async(params)
    assert caught.value.param == "customer"
