"""Checkout: from the order of an app to the payment on Stripe's page and the status that the app reads."""

from __future__ import annotations

from typing import Any

import httpx

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
