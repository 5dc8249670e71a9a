"""Checkout: from the order of an app to the payment on Stripe's page and the status that the app reads."""

from __future__ import annotations

from typing import Any

import httpx

from tests.end_to_end.flows import claims_of, post_to_stripe
from tests.stack import REDIRECT_URI, Stack, eventually

NEW = "2026-12-01"
SUCCESS = REDIRECT_URI + "?session={CHECKOUT_SESSION_ID}"


async def test_person_subscribes_pays_and_is_active(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    mine = {"authorization": f"bearer {tokens['access_token']}"}
    item = {"price_id": nest.environment["NEST_STRIPE_TRIAL_PRICE"], "quantity": 1}
    order: dict[str, Any] = {"items": [item], "success_url": SUCCESS, "cancel_url": REDIRECT_URI, "trial": False}

    made = await nest.call("create_checkout", order, version=NEW, **mine)

    assert made.status_code == 200, made.text
    page = made.json()
    assert page["kind"] == "checkout"
    again = await nest.call("create_checkout", {**order, "user_id": tokens["user_id"]}, version=NEW, **mine)
    assert again.json() == page
    async with httpx.AsyncClient() as browser:
        assert "Subscribe" in (await browser.get(page["url"])).text
        paid = await browser.post(page["url"], data={"card": "4242 4242 4242 4242"})
    assert paid.status_code == 303
    assert paid.headers["location"].startswith(REDIRECT_URI + "?session=cs_test_")

    async def active() -> bool:
        body = {"user_id": tokens["user_id"]}
        return (await nest.call("get_subscription_status", body, version=NEW, **mine)).json()["status"] == "active"

    await eventually(active, what="the active subscription")
    more = await nest.call("create_checkout", {**order, "items": [{**item, "quantity": 5}]}, version=NEW, **mine)
    assert more.json()["kind"] == "portal"
    foreign = await nest.call("create_checkout", {**order, "cancel_url": "https://evil.example"}, version=NEW, **mine)
    assert (foreign.status_code, foreign.json()["code"]) == (400, "invalid_redirect_uri")
    assert len([each for each in nest.stripe.objects("customer") if each.get("email") == email]) == 1


async def pay(nest: Stack, price_id: str, **caller: str) -> None:
    """Order a checkout of a price, and pay on its page."""
    order = {"items": [{"price_id": price_id}], "success_url": SUCCESS, "cancel_url": REDIRECT_URI}
    made = await nest.call("create_checkout", order, version=NEW, **caller)
    assert made.status_code == 200, made.text
    async with httpx.AsyncClient() as browser:
        paid = await browser.post(made.json()["url"], data={"card": "4242 4242 4242 4242"})
    assert paid.status_code == 303


async def test_person_buys_a_listed_plan_changes_it_and_cancels(nest: Stack, email: str) -> None:
    product = (await post_to_stripe(nest, "/v1/products", {"name": email, "metadata[features]": "export, seats"}))["id"]
    amount = {"product": product, "currency": "usd", "recurring[interval]": "month", "unit_amount": "1000"}
    price_id = (await post_to_stripe(nest, "/v1/prices", amount))["id"]
    client_id = (await nest.create_client())["id"]
    asked = await nest.call("update_client", {"id": client_id, "entitlements_claim": True}, **nest.internal)
    assert asked.status_code == 200, asked.text
    tokens = await nest.log_in(email, client_id=client_id)
    mine = {"authorization": f"bearer {tokens['access_token']}"}

    async def call(method: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        response = await nest.call(method, body, version=NEW, **(headers or mine))
        assert response.status_code == 200, response.text
        return response.json()

    async def listed() -> httpx.Response | None:
        response = await nest.call("list_plans", {}, version=NEW)
        return response if price_id in response.text else None

    plans: httpx.Response = await eventually(listed, what="the new plan")
    [plan] = [each for each in plans.json()["plans"] if each["product_id"] == product]
    assert (plan["features"], plan["prices"][0]["amounts"]["usd"]["unit_amount"]) == (["export", "seats"], 1000)
    unchanged = await nest.call("list_plans", {}, version=NEW, if_none_match=plans.headers["etag"])
    assert (unchanged.status_code, unchanged.content) == (304, b"")

    await pay(nest, plan["prices"][0]["price_id"], **mine)

    async def bought() -> Any:
        state = await call("get_customer_state")
        return state if state["features"] and state["entitled"] else None

    state = await eventually(bought, what="the plan that was bought")
    assert (state["status"], state["entitled"], state["features"]) == ("active", True, ["export", "seats"])
    [mine_now] = state["plans"]
    assert (mine_now["items"][0]["price_id"], mine_now["items"][0]["product_name"]) == (price_id, email)
    assert mine_now["next_invoice"] == {"date": mine_now["end_date"], "amount": 1000, "currency": "usd"}

    [invoice] = (await call("list_invoices"))["invoices"]
    assert (invoice["status"], invoice["amount_paid"]) == ("paid", 1000)
    assert invoice["hosted_url"].startswith(f"{nest.environment['NEST_ISSUER']}/invoice/")
    page = await nest.http.get(invoice["hosted_url"])
    assert page.status_code == 303
    assert page.headers["location"] == nest.stripe.object("invoice", invoice["id"])["hosted_invoice_url"]

    meter = {"display_name": email, "event_name": product, "default_aggregation[formula]": "sum"}
    await post_to_stripe(nest, "/v1/billing/meters", meter)
    usage = {"identifier": product, "user_id": tokens["user_id"], "event_name": product, "value": 7}
    assert await call("report_usage", {"usage": [usage]}, **nest.internal) == {"accepted": 1, "repeated": 0}

    def counted() -> list[Any]:
        requests = [each for each in nest.stripe.log if each.path == "/v1/billing/meter_events" and each.executed]
        return [each.params["payload"] for each in requests if each.params["identifier"] == product]

    payload = {"stripe_customer_id": nest.stripe.object("invoice", invoice["id"])["customer"], "value": "7"}
    assert await eventually(counted, what="the usage at the meter") == [payload]

    changed = await call("change_plan", {"price_id": price_id, "quantity": 3})
    [mine_now] = (await call("get_customer_state"))["plans"]
    assert (changed["outcome"], mine_now["items"][0]["quantity"]) == ("done", 3)
    assert mine_now["next_invoice"]["amount"] == 3000
    cancelled = await call("cancel_subscription")
    [mine_now] = (await call("get_customer_state"))["plans"]
    assert (cancelled["outcome"], mine_now["will_renew"], mine_now["next_invoice"]) == ("planned", False, None)
    assert mine_now["cancel_at"] == mine_now["end_date"]

    refresh = {"client_id": client_id, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    claims = claims_of((await nest.call("authenticate_user", refresh)).json())
    assert (claims["ent"], claims["ent_v"]) == (["export", "seats"], state["ent_v"])
