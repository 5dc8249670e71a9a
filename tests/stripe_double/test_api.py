from typing import Any

import httpx
import pytest
import stripe

from services.stripe_double import API_VERSION, StripeDouble
from tests.stripe_double.shop import API_KEY, Shop, client_of


def test_api_version_is_the_one_that_stripe_python_pins() -> None:
    assert stripe.api_version == API_VERSION


async def test_an_unknown_api_key_is_refused(shop: Shop) -> None:
    http = stripe.HTTPXClient()
    client: Any = stripe.StripeClient("sk_test_x", base_addresses={"api": shop.double.url}, http_client=http)
    with pytest.raises(stripe.AuthenticationError):
        await client.v1.customers.list_async()
    await http.close_async()


async def test_a_request_without_an_api_key_is_refused(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url) as http:
        response = await http.get("/v1/customers")
    assert (response.status_code, response.json()["error"]["type"]) == (401, "invalid_request_error")


async def test_the_api_key_may_be_the_user_of_basic_authentication(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as http:
        assert (await http.get("/v1/customers")).status_code == 200
        malformed = await http.get("/v1/customers", headers={"authorization": "Basic %%%"}, auth=None)
    assert malformed.status_code == 401


async def test_a_double_may_have_several_api_keys() -> None:
    async with StripeDouble(api_key=["sk_test_old", API_KEY]) as double, client_of(double) as client:
        assert (await client.v1.customers.list_async()).data == []


async def test_another_api_version_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="2020-08-27"):
        await shop.api.customers.list_async(options={"stripe_version": "2020-08-27"})


async def test_a_path_to_a_missing_object_is_a_404(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.subscriptions.retrieve_async("sub_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    assert caught.value.user_message == "No such subscription: 'sub_none'"


async def test_a_parameter_with_a_missing_object_is_a_400_that_names_it(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.subscription("cus_none")
    assert (caught.value.http_status, caught.value.code, caught.value.param) == (
        400,
        "resource_missing",
        "customer",
    )


async def test_an_unknown_parameter_is_refused_and_nothing_is_created(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.customers.create_async({"email": "ada@example.com", "nonsense": "1"})
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", "nonsense")
    assert shop.double.objects("customer") == []


async def test_unsupported_parameters_and_routes_are_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="does not support backdate_start_date"):
        await shop.subscription(backdate_start_date=1)
    with pytest.raises(stripe.InvalidRequestError, match="does not support it"):
        await shop.api.quotes.list_async()


async def test_the_request_id_of_a_response_is_in_the_request_log(shop: Shop) -> None:
    customer = await shop.customer()
    call = shop.double.log[-1]
    assert customer.last_response.request_id == call.request_id
    assert (call.method, call.path, call.status, call.executed) == ("POST", "/v1/customers", 200, True)
    assert call.params["email"] == "ada@example.com"


async def test_the_account_is_returned_without_internal_members(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as http:
        account = (await http.get("/v1/account")).json()
    assert account["id"].startswith("acct_1")
    assert not any(name.startswith("_") for name in account)
