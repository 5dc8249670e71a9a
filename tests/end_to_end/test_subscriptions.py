"""Subscriptions and trials, from Stripe's webhook to the response that an app reads."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.end_to_end.flows import claims_of, device_of, post_to_stripe, redeem_trial
from tests.stack import Login, Stack, eventually


def price(nest: Stack) -> str:
    return nest.environment["NEST_STRIPE_TRIAL_PRICE"]


async def status(nest: Stack, tokens: dict[str, Any]) -> httpx.Response:
    body = {"user_id": tokens["user_id"]}
    return await nest.call("get_subscription_status", body, authorization=f"bearer {tokens['access_token']}")


async def heartbeat(nest: Stack, tokens: dict[str, Any]) -> httpx.Response:
    return await nest.call(
        "get_subscription_status", version="2020-12-14", authorization=f"bearer {tokens['access_token']}"
    )


async def status_when(nest: Stack, tokens: dict[str, Any], code: int) -> dict[str, Any]:
    """Wait until the status call has this HTTP status, and return its body."""

    async def found() -> Any:
        response = await status(nest, tokens)
        return response.json() if response.status_code == code else None

    body: dict[str, Any] = await eventually(found, what=f"{code} of get_subscription_status")
    return body


async def test_one_call_starts_a_trial_and_sends_its_link(nest: Stack, email: str) -> None:
    tokens = await redeem_trial(nest, Login(email))

    response = await status(nest, tokens)

    assert response.status_code == 200
    assert response.json()["status"] == "trialing"
    assert response.json()["billing_portal_url"].startswith("http")
    assert (await heartbeat(nest, tokens)).status_code == 204
    # One mail with the link, one welcome after the first login.
    await nest.mail(email, count=2)
    await nest.stripe.webhooks.drain()
    assert len(nest.inbox.arrivals(email)) == 2


async def test_parallel_requests_start_one_trial(nest: Stack, email: str) -> None:
    before = len(nest.stripe.objects("subscription"))
    responses = await asyncio.gather(
        *(
            nest.call("create_trial_and_magic_link", Login(email).request(device=device_of(f"{n}{email}")))
            for n in range(10)
        )
    )

    # Each gets a link to the same trial: the mailbox decides whose it is.
    assert [each.status_code for each in responses] == [204] * 10, [each.text for each in responses]
    assert len(nest.stripe.objects("subscription")) == before + 1


async def test_device_has_one_trial(nest: Stack, email: str) -> None:
    first = await nest.call("create_trial_and_magic_link", Login(email).request(device=device_of(email)))
    assert first.status_code == 204

    second = await nest.call("create_trial_and_magic_link", Login(f"b.{email}").request(device=device_of(email)))

    assert (second.status_code, second.json()["code"]) == (409, "trial_already_used")


async def test_checkout_creates_user_and_subscription_until_it_ends(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(price(nest), email=email)
    await nest.mail(email)

    tokens = await nest.log_in(email)

    assert (await status_when(nest, tokens, 200))["status"] == "active"
    whole = (await nest.call("get_subscription", {"user_id": tokens["user_id"]}, **nest.internal)).json()
    assert (whole["stp_subscription_id"], whole["entitled"], whole["will_renew"]) == (made["id"], True, True)
    unspecified = await nest.call("get_subscription", {}, **nest.internal)
    assert (unspecified.status_code, unspecified.json()["code"]) == (422, "validation_failed")

    nest.stripe.simulate.cancel(made["id"], at="now")

    assert (await status_when(nest, tokens, 404))["code"] == "no_active_subscription"
    response = await heartbeat(nest, tokens)
    assert (response.status_code, response.json()["code"]) == (402, "subscription_expired")


async def test_link_of_the_status_opens_the_customer_portal(nest: Stack, email: str) -> None:
    tokens = await redeem_trial(nest, Login(email))
    async with nest.stripe.outage():
        # The status needs no call to Stripe, so it has a link during an outage too.
        link = (await status(nest, tokens)).json()["billing_portal_url"]
        assert link.startswith(f"{nest.environment['NEST_ISSUER']}/portal/")
        failed = await nest.http.get(link)
        assert (failed.status_code, failed.headers["content-type"]) == (503, "text/html; charset=utf-8")

    async def opened() -> httpx.Response | None:
        # Stripe's circuit breaker closes a moment after the outage.
        response = await nest.http.get(link)
        return response if response.status_code == 303 else None

    response = await eventually(opened, what="a redirect to the portal")
    assert response.headers["location"].startswith(f"{nest.stripe.url}/p/session/")
    assert (await nest.http.get(f"{link}x")).status_code == 404


async def test_a_person_previews_changes_cancels_and_resumes_a_plan(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(price(nest), email=email)
    await nest.mail(email)
    tokens = await nest.log_in(email)
    await status_when(nest, tokens, 200)
    bearer = f"bearer {tokens['access_token']}"

    async def call(method: str, **body: Any) -> httpx.Response:
        return await nest.call(
            method, body and {"user_id": tokens["user_id"], **body}, version="2026-12-01", authorization=bearer
        )

    async def order(method: str, **body: Any) -> dict[str, Any]:
        response = await call(method, **body)
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        shown = (await status(nest, tokens)).json()
        assert (shown["status"], shown["cancel_at"]) == (view["status"], view["cancel_at"])
        return view

    response = await call("preview_plan_change", price_id=price(nest), quantity=2)
    assert response.status_code == 200, response.text
    preview = response.json()
    assert preview["due_now"] > 0
    changed = await order("change_plan", price_id=price(nest), quantity=2, preview=preview["preview"])
    assert (changed["outcome"], changed["items"][0]["quantity"]) == ("done", 2)
    assert nest.stripe.objects("charge")[-1]["amount"] == preview["due_now"]
    cancelled = await order("cancel_subscription")
    assert (cancelled["outcome"], cancelled["access_ends_at"]) == ("planned", cancelled["end_date"])
    assert nest.stripe.object("subscription", made["id"])["cancel_at_period_end"]
    assert cancelled["billing_portal_url"].startswith(nest.environment["NEST_ISSUER"])
    resumed = await order("resume_subscription")
    assert (resumed["outcome"], resumed["access_ends_at"]) == ("done", None)
    assert (await order("resume_subscription"))["outcome"] == "unchanged"


async def test_features_of_a_subscription_are_in_the_next_access_token(nest: Stack, email: str) -> None:
    client_id = (await nest.create_client())["id"]
    asked = await nest.call("update_client", {"id": client_id, "entitlements_claim": True}, **nest.internal)
    assert asked.status_code == 200, asked.text
    product = nest.stripe.object("price", price(nest))["product"]
    await post_to_stripe(nest, f"/v1/products/{product}", {"metadata[features]": "export, seats"})
    tokens = await nest.log_in(email, client_id=client_id)
    assert claims_of(tokens)["ent"] == []
    nest.stripe.simulate.checkout(price(nest), email=email)

    async def refreshed() -> dict[str, Any]:
        nonlocal tokens
        refresh = {"client_id": client_id, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        tokens = (await nest.call("authenticate_user", refresh)).json()
        return claims_of(tokens) if claims_of(tokens)["ent_v"] else {}

    claims = await eventually(refreshed, what="the features in the access token")
    assert (claims["ent"], claims["ent_v"]) == (["export", "seats"], 1)
