"""Outgoing webhooks: from a login and a subscription to an app that was away meanwhile."""

from __future__ import annotations

from typing import Any

from nest_client import WebhookVerifier
from standardwebhooks.webhooks import Webhook

from services.embedded import ports
from services.embedded.demo import CLIENT_ID
from tests.end_to_end.flows import finished, operator_call, redeem_trial
from tests.mailer.webhook_receiver import Receiver
from tests.stack import Login, Stack, eventually

NEWEST = "2026-12-01"


async def call(nest: Stack, method: str, **body: Any) -> Any:
    response = await nest.call(method, body, version=NEWEST, **nest.internal)
    assert response.is_success, response.text
    return response.json() if response.content else None


async def test_events_of_a_login_and_a_trial_arrive_in_order_once_the_app_is_back(nest: Stack, email: str) -> None:
    port = ports.any_free()
    endpoint = await call(
        nest,
        "create_webhook_endpoint",
        url=f"http://127.0.0.1:{port}/webhooks",
        types=["user.*", "subscription.*", "trial.*"],
        client_id=CLIENT_ID,
    )
    about = {"endpoint_id": endpoint["id"]}

    tokens = await redeem_trial(nest, Login(email), version=NEWEST)

    async def refused() -> Any:
        page = await call(nest, "list_webhook_deliveries", **about, user_id=tokens["user_id"])
        return [each["error"] for delivery in page["deliveries"] for each in delivery["attempts"]]

    assert set(await eventually(refused, what="a failed attempt")) == {"connection"}
    async with Receiver(port) as receiver:
        receiver.secrets = [endpoint["secret"]]

        async def all_arrived() -> bool:
            page = await call(nest, "list_webhook_deliveries", **about, user_id=tokens["user_id"])
            types = {each["type"] for each in page["deliveries"] if each["state"] == "delivered"}
            return types >= {"user.logged_in", "subscription.started", "trial.started"}

        await eventually(all_arrived, what="all events")
        types = receiver.types
        assert types.index("user.created") < types.index("user.logged_in")
        assert {body["data"]["user_id"] for body in receiver.bodies} == {tokens["user_id"]}
        assert len(set(receiver.ids)) == len(receiver.ids)

        # A replay has the same ID, and a new secret signs beside the old one.
        rolled = await call(nest, "roll_webhook_secret", id=endpoint["id"])
        receiver.secrets = [rolled["secret"]]
        replayed = await call(nest, "replay_webhooks", **about, event_id=receiver.ids[0])
        assert replayed == {"replayed": 1}

        async def arrived_again() -> bool:
            return receiver.ids.count(receiver.ids[0]) == 2

        await eventually(arrived_again, what="the replayed event")

        process = await operator_call(nest, "erase_user", user_id=tokens["user_id"])
        await finished(nest, process)

        async def erased() -> bool:
            return receiver.types[-1] == "user.erased"

        await eventually(erased, what="user.erased")
        left = await call(nest, "list_webhook_deliveries", **about, user_id=tokens["user_id"])
        assert [each["type"] for each in left["deliveries"]] == ["user.erased"]
        await call(nest, "delete_webhook_endpoint", id=endpoint["id"])

    verifiers = (Webhook(rolled["secret"]).verify, WebhookVerifier([endpoint["secret"]]).verify)
    for body, headers in receiver.raw[-2:]:
        for verify in verifiers:
            verify(body, headers)


async def test_the_reply_to_a_new_endpoint_has_its_secret_and_the_list_has_not(nest: Stack) -> None:
    added = await call(nest, "create_webhook_endpoint", url="https://app.example/webhooks", types=["*"])
    assert added["secret"].startswith("whsec_")
    listed = await call(nest, "list_webhook_endpoints")
    assert added["id"] in [each["id"] for each in listed["endpoints"]]
    assert added["secret"] not in str(listed)
    await call(nest, "delete_webhook_endpoint", id=added["id"])
    body = {"url": "https://app.example", "types": ["*"], "client_id": "client_missing"}
    response = await nest.call("create_webhook_endpoint", body, version=NEWEST, **nest.internal)
    assert (response.status_code, response.json()["code"]) == (404, "client_not_found")
