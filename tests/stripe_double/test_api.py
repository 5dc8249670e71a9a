"""The outside of the double: keys, versions, errors, idempotency, pages and expansion."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from services.stripe_double import API_VERSION, StripeDouble
from tests.stripe_double.shop import API_KEY, USES_STRIPE, Shop, client_of, open_shop

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


def test_the_double_speaks_the_version_that_stripe_python_pins() -> None:
    assert stripe.api_version == API_VERSION


async def test_a_key_that_the_double_was_not_made_with_is_refused(shop: Shop) -> None:
    http = stripe.HTTPXClient()
    stranger: Any = stripe.StripeClient("sk_test_x", base_addresses={"api": shop.double.url}, http_client=http)
    with pytest.raises(stripe.AuthenticationError):
        await stranger.v1.customers.list_async()
    await http.close_async()


async def test_a_call_without_a_key_is_refused(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url) as http:
        answer = await http.get("/v1/customers")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error")


async def test_a_key_may_come_as_the_user_of_basic_authentication(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as http:
        assert (await http.get("/v1/customers")).status_code == 200
        broken = await http.get("/v1/customers", headers={"authorization": "Basic %%%"}, auth=None)
    assert broken.status_code == 401


async def test_several_keys_open_one_double() -> None:
    async with StripeDouble(api_key=["sk_test_old", API_KEY]) as double, client_of(double) as client:
        assert (await client.v1.customers.list_async()).data == []


async def test_another_api_version_is_refused_rather_than_answered_wrongly(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="2020-08-27"):
        await shop.api.customers.list_async(options={"stripe_version": "2020-08-27"})


async def test_an_object_that_is_not_there_is_missing(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.subscriptions.retrieve_async("sub_none")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    assert refused.value.user_message == "No such subscription: 'sub_none'"


async def test_a_missing_object_in_a_parameter_is_a_bad_request_that_names_it(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.subscription("cus_none")
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (
        400,
        "resource_missing",
        "customer",
    )


async def test_an_unknown_parameter_is_refused_and_nothing_is_made(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.customers.create_async({"email": "ada@example.com", "nonsense": "1"})
    assert (refused.value.code, refused.value.param) == ("parameter_unknown", "nonsense")
    assert shop.double.objects("customer") == []


async def test_what_stripe_can_and_the_double_cannot_is_said_aloud(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="does not play backdate_start_date"):
        await shop.subscription(backdate_start_date=1)
    with pytest.raises(stripe.InvalidRequestError, match="does not play it"):
        await shop.api.quotes.list_async()


async def test_every_answer_has_a_request_id_that_the_log_knows(shop: Shop) -> None:
    customer = await shop.customer()
    call = shop.double.log[-1]
    assert customer.last_response.request_id == call.request
    assert (call.method, call.path, call.status, call.worked) == ("POST", "/v1/customers", 200, True)
    assert call.params["email"] == "ada@example.com"


class TestIdempotency:
    async def test_the_same_key_and_parameters_get_the_same_answer_once_done(self, shop: Shop) -> None:
        first = await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
        again = await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
        assert first.to_dict() == again.to_dict()
        assert again.last_response.headers["idempotent-replayed"] == "true"
        assert again.last_response.headers["original-request"] == first.last_response.request_id
        assert [call.replayed for call in shop.double.log[-2:]] == [False, True]
        assert len(shop.double.objects("customer")) == 1

    async def test_the_replayed_answer_is_the_first_one_although_the_object_changed(self, shop: Shop) -> None:
        made = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
        await shop.api.customers.update_async(made.id, {"name": "Grace"})
        again = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
        assert again.name == "Ada"

    async def test_other_parameters_under_a_used_key_are_an_idempotency_error(self, shop: Shop) -> None:
        await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
        with pytest.raises(stripe.IdempotencyError):
            await shop.api.customers.create_async({"email": "b@example.com"}, {"idempotency_key": "k1"})

    async def test_a_call_that_failed_validation_leaves_its_key_free(self, shop: Shop) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.subscriptions.create_async({"customer": "cus_none"}, {"idempotency_key": "k1"})
        customer = await shop.customer()
        params = {"customer": customer.id, "items": [{"price": shop.price}]}
        assert (await shop.api.subscriptions.create_async(params, {"idempotency_key": "k1"})).status == "active"

    async def test_a_declined_card_is_replayed_as_declined(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_chargeCustomerFail")
        params = {
            "customer": customer.id,
            "items": [{"price": shop.price}],
            "payment_behavior": "error_if_incomplete",
        }
        for _ in range(2):
            with pytest.raises(stripe.CardError) as refused:
                await shop.api.subscriptions.create_async(params, {"idempotency_key": "k1"})
        assert refused.value.headers["idempotent-replayed"] == "true"

    async def test_a_key_is_forgotten_after_a_day(self, shop: Shop) -> None:
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
        await shop.advance(hours=24)
        again = await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
        assert "idempotent-replayed" not in again.last_response.headers
        assert len(shop.double.objects("customer")) == 2

    async def test_a_key_may_be_forgotten_by_order(self, shop: Shop) -> None:
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
        shop.double.idempotency.forget("k1")
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
        assert len(shop.double.objects("customer")) == 2

    async def test_a_deletion_takes_no_key_so_the_second_one_finds_nothing(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.api.subscriptions.cancel_async(subscription.id, options={"idempotency_key": "k1"})
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.api.subscriptions.cancel_async(subscription.id, options={"idempotency_key": "k1"})
        assert refused.value.http_status == 404

    async def test_a_key_of_256_characters_is_refused(self, shop: Shop) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.customers.create_async({}, {"idempotency_key": "k" * 256})


class TestPages:
    async def test_pages_come_newest_first_and_meet_without_gaps(self, shop: Shop) -> None:
        made = [(await shop.api.customers.create_async({"name": str(n)})).id for n in range(23)]
        first = await shop.api.customers.list_async()
        assert ([customer.id for customer in first.data], first.has_more) == (made[:-11:-1], True)
        everyone = [customer.id async for customer in first.auto_paging_iter()]
        assert everyone == made[::-1]

    async def test_ending_before_gives_the_page_just_before_the_cursor(self, shop: Shop) -> None:
        made = [(await shop.api.customers.create_async({})).id for _ in range(6)]
        page = await shop.api.customers.list_async({"ending_before": made[0], "limit": 2})
        assert ([customer.id for customer in page.data], page.has_more) == ([made[2], made[1]], True)
        page = await shop.api.customers.list_async({"ending_before": made[3], "limit": 2})
        assert ([customer.id for customer in page.data], page.has_more) == ([made[5], made[4]], False)

    async def test_the_created_filter_bounds_from_both_sides(self, shop: Shop) -> None:
        shop.double.clock.freeze()
        times = []
        for _ in range(3):
            times.append((await shop.api.customers.create_async({})).created)
            await shop.advance(minutes=1)
        kept = await shop.api.customers.list_async({"created": {"gte": times[1], "lt": times[2]}})
        assert [customer.created for customer in kept.data] == [times[1]]

    async def test_an_email_is_compared_exactly_and_may_belong_to_several(self, shop: Shop) -> None:
        for email in ("ada@example.com", "ada@example.com", "Ada@example.com"):
            await shop.api.customers.create_async({"email": email})
        assert len((await shop.api.customers.list_async({"email": "ada@example.com"})).data) == 2

    @pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"starting_after": "cus_none"}])
    async def test_a_limit_out_of_bounds_or_a_lost_cursor_is_refused(self, shop: Shop, params: Any) -> None:
        await shop.customer()
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.customers.list_async(params)


class TestExpansion:
    async def test_ids_become_objects_where_asked(self, shop: Shop) -> None:
        subscription = await shop.subscription(expand=["latest_invoice.payments", "customer"])
        assert subscription.customer.email == "ada@example.com"
        assert subscription.latest_invoice.payments.data[0].status == "paid"
        listed = await shop.api.subscriptions.list_async({"expand": ["data.latest_invoice"]})
        assert listed.data[0].latest_invoice.status == "paid"

    async def test_an_expanded_deleted_customer_is_its_tombstone(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.api.customers.delete_async(subscription.customer)
        again = await shop.read(subscription, "customer")
        assert again.customer.to_dict() == {"id": subscription.customer, "object": "customer", "deleted": True}

    @pytest.mark.parametrize("path", ["status", "nonsense", "latest_invoice.lines.data.price.product"])
    async def test_what_cannot_be_expanded_is_refused(self, shop: Shop, path: str) -> None:
        subscription = await shop.subscription()
        with pytest.raises(stripe.InvalidRequestError):
            await shop.read(subscription, path)

    async def test_nested_lists_are_cut_at_ten(self, shop: Shop) -> None:
        items = [
            {
                "price_data": {
                    "currency": "usd",
                    "unit_amount": 100 + n,
                    "recurring": {"interval": "month"},
                    "product": (await shop.api.products.create_async({"name": f"Part {n}"})).id,
                }
            }
            for n in range(12)
        ]
        subscription = await shop.subscription(items=items)
        assert (len(subscription.items.data), subscription.items.has_more) == (10, True)
        listed = await shop.api.subscription_items.list_async({"subscription": subscription.id, "limit": 100})
        assert len(listed.data) == 12
        lines = await shop.api.invoices.line_items.list_async(subscription.latest_invoice, {"limit": 100})
        assert len(lines.data) == 12


async def test_the_account_says_who_it_is(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as http:
        account = (await http.get("/v1/account")).json()
    assert account["id"].startswith("acct_1")
    assert not any(name.startswith("_") for name in account)
