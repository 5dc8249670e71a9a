"""A subscription follows Stripe, from the webhook to the answer an app reads."""

import asyncio
from datetime import timedelta
from typing import Any

from tests.stack import Login, Stack, eventually


async def test_a_trial_begins_with_one_call_and_one_link(nest: Stack, email: str) -> None:
    login = Login(email)

    answer = await nest.call("create_trial_and_magic_link", login.order(device=_device(email)))

    assert answer.status_code == 204, answer.text
    mail = await nest.mail(email, subject="")
    link = await eventually(lambda: [link for a in nest.inbox.arrivals(email) for link in a.links if "code=" in link])
    assert "flow=trial" in link[0]
    assert mail
    code = link[0].partition("code=")[2].partition("&")[0]
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()
    status = await _status(nest, tokens)
    assert status.status_code == 200
    assert status.json()["status"] == "trialing"
    assert status.json()["billing_portal_url"].startswith("http")
    assert (await _heartbeat(nest, tokens)).status_code == 204


async def test_stripes_webhook_for_a_trial_brings_one_welcome_mail(nest: Stack, email: str) -> None:
    await nest.call("create_trial_and_magic_link", Login(email).order(device=_device(email)))
    await nest.mail(email, count=2)
    await nest.stripe.webhooks.drain()

    assert len(nest.inbox.arrivals(email)) == 2


async def test_of_parallel_calls_for_one_user_one_trial_comes_out(nest: Stack, email: str) -> None:
    before = len(nest.stripe.objects("subscription"))
    answers = await asyncio.gather(
        *(
            nest.call("create_trial_and_magic_link", Login(email).order(device=_device(f"{n}{email}")))
            for n in range(10)
        )
    )

    assert sum(answer.status_code == 204 for answer in answers) == 1, [answer.text for answer in answers]
    assert {answer.json()["code"] for answer in answers if answer.status_code != 204} <= {
        "trial_already_used",
        "already_subscribed",
    }
    assert len(nest.stripe.objects("subscription")) == before + 1


async def test_a_device_has_one_trial(nest: Stack, email: str) -> None:
    device = _device(email)
    assert (await nest.call("create_trial_and_magic_link", Login(email).order(device=device))).status_code == 204

    answer = await nest.call("create_trial_and_magic_link", Login(f"b.{email}").order(device=device))

    assert (answer.status_code, answer.json()["code"]) == (409, "trial_already_used")


async def test_a_checkout_at_stripe_makes_a_user_and_a_subscription(nest: Stack, email: str) -> None:
    made = nest.stripe.simulate.checkout(_price(nest), email=email)
    await nest.mail(email, subject="")

    tokens = await nest.log_in(email)

    async def active() -> Any:
        answer = await _status(nest, tokens)
        return answer if answer.status_code == 200 else None

    answer = await eventually(active, what="the subscription")
    assert answer.json()["status"] == "active"
    whole = (await nest.call("get_subscription", {"user_id": tokens["user_id"]}, **nest.internal)).json()
    assert (whole["stp_subscription_id"], whole["entitled"], whole["will_renew"]) == (made["id"], True, True)
    nothing = await nest.call("get_subscription", {}, **nest.internal)
    assert (nothing.status_code, nothing.json()["code"]) == (422, "validation_failed")


async def test_a_subscription_that_ended_is_gone(nest: Stack, email: str) -> None:
    subscription = nest.stripe.simulate.checkout(_price(nest), email=email)
    tokens = await nest.log_in(email)

    async def active() -> bool:
        return (await _status(nest, tokens)).status_code == 200

    await eventually(active, what="the subscription")
    nest.stripe.simulate.cancel(subscription["id"], at="now")

    async def gone() -> Any:
        answer = await _status(nest, tokens)
        return answer if answer.status_code == 404 else None

    answer = await eventually(gone, what="the end of the subscription")
    assert answer.json()["code"] == "no_active_subscription"
    heartbeat = await _heartbeat(nest, tokens)
    assert (heartbeat.status_code, heartbeat.json()["code"]) == (402, "subscription_expired")


async def test_the_portal_is_null_while_stripe_is_away(nest: Stack, email: str) -> None:
    login = Login(email)
    await nest.call("create_trial_and_magic_link", login.order(device=_device(email)))
    link = await eventually(lambda: [link for a in nest.inbox.arrivals(email) for link in a.links if "code=" in link])
    code = link[0].partition("code=")[2].partition("&")[0]
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()
    began = asyncio.get_running_loop().time()
    async with nest.stripe.outage():
        answer = await _status(nest, tokens)

    assert answer.status_code == 200
    assert answer.json()["billing_portal_url"] is None
    assert asyncio.get_running_loop().time() - began < timedelta(seconds=3).total_seconds()


def _device(of: str) -> dict[str, str]:
    return {"platform": "mac", "beak_id": f"beak-{of}", "fingerprint": f"print-{of}"}


def _price(nest: Stack) -> str:
    return nest.environment["NEST_STRIPE_TRIAL_PRICE"]


async def _status(nest: Stack, tokens: dict[str, Any]) -> Any:
    return await nest.call(
        "get_subscription_status",
        {"user_id": tokens["user_id"]},
        authorization=f"bearer {tokens['access_token']}",
    )


async def _heartbeat(nest: Stack, tokens: dict[str, Any]) -> Any:
    return await nest.call(
        "get_subscription_status", version="2020-12-14", authorization=f"bearer {tokens['access_token']}"
    )
