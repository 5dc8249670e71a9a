"""Recording, delivery, retries and replays of webhooks, with a real receiver."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.mailer.webhooks import deliveries as webhook_deliveries
from services.mailer.webhooks.models import RETRY_PERIOD
from shared.bus.inbox import Inbox
from shared.messages import Event
from shared.messages.auth.sessions import SessionRevoked
from shared.messages.auth.tokens import RefreshTokenReused, UserAuthenticated
from shared.messages.auth.users import UserCreated
from shared.messages.auth.webhooks import FindLoginClients, UserErased
from shared.messages.billing.payments import PaymentFailed
from shared.messages.billing.subscriptions import SubscriptionChanged, SubscriptionStarted
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.webhooks import (
    AttemptWebhook,
    DeleteWebhookEndpoint,
    OfferWebhook,
    ReplayWebhooks,
    RollWebhookSecret,
    SendTestWebhook,
    UpdateWebhookEndpoint,
)
from tests.mailer.webhook_receiver import Receiver
from tests.mailer.webhooks.driver import (
    OPERATOR,
    add_endpoint,
    connect_receiver,
    deliveries,
    drain,
    next_attempt,
    run,
    run_timers,
)
from tests.service_harness import Refused, ServiceHarness

AT = datetime(2026, 11, 29, 6, 5, tzinfo=UTC)
HOURS = timedelta(hours=1)


def created(user: str = "user_1") -> UserCreated:
    return UserCreated(key=user, user_id=user, at=AT)


def logged_in(user: str = "user_1") -> UserAuthenticated:
    return UserAuthenticated(key=user, user_id=user, client_id="client_1", at=AT)


def subscribed(user: str = "user_1") -> SubscriptionStarted:
    return SubscriptionStarted(key=user, user_id=user, subscription_id="sub_1", status="active", happened_at=AT)


async def test_an_event_is_posted_signed_with_its_documented_fields(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    await connect_receiver(harness, receiver, "subscription.*")
    await run(harness, subscribed())
    data = {"user_id": "user_1", "subscription_id": "sub_1", "happened_at": "2026-11-29T06:05:00.000Z"}
    assert receiver.bodies == [
        {
            "type": "subscription.started",
            "timestamp": "2026-11-29T06:05:00.000Z",
            "data": {**data, "status": "active", "entitled": None},
        }
    ]
    (delivery,) = await deliveries(harness)
    assert (delivery["state"], delivery["event_id"]) == ("delivered", receiver.ids[0])
    assert [(each["status"], each["error"]) for each in delivery["attempts"]] == [(204, None)]
    assert await harness.delayed() == []


async def test_an_event_that_is_delivered_twice_is_posted_once(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    for _ in range(2):
        await harness.deliver(created(), id="same")
    await drain(harness)
    assert receiver.types == ["user.created"]


async def test_an_attempt_that_is_delivered_twice_is_made_once(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await harness.deliver(created())
    attempt = harness.published_of(AttemptWebhook)[0]
    for _ in range(3):
        # Not the same message again: another order of the same attempt.
        await harness.deliver(attempt)
    assert len(receiver.requests) == 1


async def test_a_crash_before_the_commit_posts_the_event_again_under_its_id(
    harness: ServiceHarness, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_point: str) -> None:
        raise RuntimeError("crashed")

    await connect_receiver(harness, receiver)
    await harness.deliver(created())
    (attempt,) = harness.published_of(AttemptWebhook)
    with monkeypatch.context() as patched:
        patched.setattr(webhook_deliveries, "fault_point", crash)
        with pytest.raises(RuntimeError, match="crashed"):
            await harness.deliver(attempt, id="ab" * 16)
    assert [each["state"] for each in await deliveries(harness)] == ["pending"]
    for _ in range(2):
        await harness.deliver(attempt, id="ab" * 16)
    assert receiver.ids == [receiver.ids[0]] * 2
    assert [each["state"] for each in await deliveries(harness)] == ["delivered"]


async def test_only_chosen_types_are_recorded(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver, "user.created")
    await run(harness, subscribed(), logged_in(), created())
    assert receiver.types == ["user.created"]
    assert len(await deliveries(harness)) == 1


async def test_events_from_before_an_endpoint_are_not_recorded(harness: ServiceHarness, receiver: Receiver) -> None:
    harness.now += timedelta(minutes=1)
    await connect_receiver(harness, receiver)
    await run(harness, created())
    assert receiver.types == []


async def test_a_failed_event_is_attempted_again_with_the_same_id(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {}), (302, {"location": receiver.url})]
    await run(harness, created())
    for _ in range(2):
        await run_timers(harness, after=timedelta(seconds=10))
    assert [each["webhook-id"] for each in receiver.requests] == [receiver.ids[0]] * 3
    assert len({each["webhook-signature"] for each in receiver.requests}) == 3
    (delivery,) = await deliveries(harness)
    assert [each["error"] for each in delivery["attempts"]] == ["status", "redirect", None]


async def test_retry_after_delays_the_next_attempt(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(429, {"retry-after": "600"})]
    await run(harness, created())
    assert await next_attempt(harness) >= harness.now + timedelta(minutes=9)


async def test_later_events_of_a_user_wait_and_those_of_others_do_not(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), logged_in(), created("user_2"), subscribed(), logged_in("user_2"))
    received = [(body["data"]["user_id"], body["type"]) for body in receiver.bodies]
    others = [("user_2", "user.created"), ("user_2", "user.logged_in")]
    assert received == [("user_1", "user.created"), *others]
    await run_timers(harness, after=timedelta(seconds=10))
    received = [(body["data"]["user_id"], body["type"]) for body in receiver.bodies[3:]]
    assert received == [("user_1", each) for each in ("user.created", "user.logged_in", "subscription.started")]


async def test_the_order_of_a_user_holds_for_each_endpoint_alone(harness: ServiceHarness, receiver: Receiver) -> None:
    async with Receiver() as failing:
        await connect_receiver(harness, failing)
        await connect_receiver(harness, receiver)
        failing.answers = [(500, {})]
        await run(harness, created(), logged_in())
    assert failing.types == ["user.created"]
    assert receiver.types == ["user.created", "user.logged_in"]
    assert failing.ids[0] == receiver.ids[0]


async def test_an_event_with_two_types_keeps_their_order(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    fields: dict[str, Any] = {"key": "user_1", "user_id": "user_1", "subscription_id": "sub_1", "changed": ("status",)}
    await run(
        harness,
        SubscriptionChanged(**fields, status="active", status_before="trialing", entitled=True),
        SubscriptionChanged(**fields, status="past_due", status_before="active", entitled=True),
    )
    assert receiver.types == ["subscription.changed", "trial.ended", "subscription.changed"]


async def test_a_theft_revokes_a_session(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver, "session.*")
    fields = {"key": "user_1", "user_id": "user_1", "client_id": "client_1", "at": AT}
    await run(
        harness,
        RefreshTokenReused(**fields, root_grant="authzcode_1"),
        SessionRevoked(**fields, session_id="authzcode_2", by="user"),
    )
    data = {"user_id": "user_1", "client_id": "client_1"}
    assert [body["data"] for body in receiver.bodies] == [
        {**data, "session_id": "authzcode_1", "by": "theft"},
        {**data, "session_id": "authzcode_2", "by": "user"},
    ]


async def test_an_event_without_a_user_has_an_order_of_its_own(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    payment: dict[str, Any] = {"user_id": None, "stp_subscription_id": None, "amount": 100, "currency": "chf"}
    failed = [PaymentFailed(**payment, payment_id=f"payment_{number}", failure=None, decline=None) for number in (1, 2)]
    await run(harness, *failed)
    assert [body["data"]["payment_id"] for body in receiver.bodies] == ["payment_1", "payment_2"]


async def test_a_changed_consent_is_posted(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver, "consent.changed")
    order = RecordMarketingConsent(key="user_1", user_id="user_1", level="general", source="user")
    await run(harness, order, order)
    assert [body["data"] for body in receiver.bodies] == [{"user_id": "user_1", "level": "general", "source": "user"}]


# Clients


async def test_events_for_the_endpoints_of_clients_are_sent_to_auth_first(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    await connect_receiver(harness, receiver, "user.created", client_id="client_1")
    await run(harness, created())
    (lookup,) = harness.published_of(FindLoginClients)
    assert (lookup.user_id, lookup.event.type, receiver.types) == ("user_1", "user.created", [])
    await run(harness, OfferWebhook(key="user_1", event=lookup.event, client_ids=("client_2",)))
    assert receiver.types == []
    await run(harness, OfferWebhook(key="user_1", event=lookup.event, client_ids=("client_1", "client_2")))
    assert receiver.types == ["user.created"]


async def test_events_of_a_session_go_to_its_client_alone(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver, client_id="client_2")
    await run(harness, logged_in())
    (lookup,) = harness.published_of(FindLoginClients)
    assert lookup.event.client_id == "client_1"
    await run(harness, OfferWebhook(key="user_1", event=lookup.event, client_ids=("client_1", "client_2")))
    assert receiver.types == []


async def test_both_kinds_of_endpoints_get_the_same_id(harness: ServiceHarness, receiver: Receiver) -> None:
    async with Receiver() as everything:
        await connect_receiver(harness, everything)
        await connect_receiver(harness, receiver, client_id="client_1")
        await run(harness, created())
        (lookup,) = harness.published_of(FindLoginClients)
        await run(harness, OfferWebhook(key="user_1", event=lookup.event, client_ids=("client_1",)))
    assert everything.ids == receiver.ids


# Endpoints that fail


async def test_410_disables_the_endpoint_at_once_and_mails_the_operators(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(410, {})]
    await run(harness, created())
    stored = await harness.context.webhook_endpoints.get(endpoint)
    assert (stored.enabled, stored.disabled_reason) == (False, "gone")
    (mail,) = harness.published_of(SendMail)
    assert mail.template == "webhook-disabled"
    assert harness.unseal_secret("mailer", mail.to) == "ops@nest.example"
    assert '"host":"127.0.0.1","gone":true' in harness.unseal_secret("mailer", mail.variables)
    await run(harness, logged_in())
    assert (await deliveries(harness))[0]["state"] == "pending"
    assert len(receiver.requests) == 1


async def _fail_for_three_days(harness: ServiceHarness, receiver: Receiver, *succeeding: Event) -> int:
    receiver.answers = [(500, {})] * 200
    began = harness.now
    attempts = 0
    while harness.now < began + RETRY_PERIOD + 5 * HOURS:
        harness.context.webhook_client._paused_until.clear()
        if succeeding and harness.now > began + 24 * HOURS:
            receiver.answers.insert(0, (200, {}))
            await run(harness, *succeeding)
            succeeding = ()
        await run_timers(harness, after=HOURS)
        attempts += 1
    return attempts


async def test_an_endpoint_that_fails_for_three_days_is_disabled_and_its_events_wait(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), logged_in())
    await _fail_for_three_days(harness, receiver)
    stored = await harness.context.webhook_endpoints.get(endpoint)
    assert (stored.enabled, stored.disabled_reason) == (False, "failing")
    assert [each["state"] for each in await deliveries(harness)] == ["pending", "pending"]
    assert len(harness.published_of(SendMail)) == 1
    receiver.answers = []
    receiver.bodies.clear()
    await run(harness, UpdateWebhookEndpoint(id=endpoint, enabled=True))
    assert receiver.types == ["user.created", "user.logged_in"]


async def test_an_event_that_alone_fails_for_three_days_is_given_up(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), logged_in())
    await _fail_for_three_days(harness, receiver, created("user_2"))
    assert (await harness.context.webhook_endpoints.get(endpoint)).enabled
    states = {(each["user_id"], each["type"]): each["state"] for each in await deliveries(harness)}
    assert states["user_1", "user.created"] == "failed"
    # The next one has its own three days.
    assert states["user_1", "user.logged_in"] == "pending"


async def test_a_disabled_endpoint_gets_nothing_and_its_timers_end(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), UpdateWebhookEndpoint(id=endpoint, enabled=False))
    await run_timers(harness, after=HOURS)
    assert len(receiver.requests) == 1
    await run(harness, UpdateWebhookEndpoint(id=endpoint, enabled=True))
    await run_timers(harness, after=HOURS)
    assert len(receiver.requests) == 2


async def test_attempts_at_a_deleted_endpoint_have_no_effect(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), DeleteWebhookEndpoint(id=endpoint))
    await run_timers(harness, after=HOURS)
    assert (len(receiver.requests), await deliveries(harness), await harness.delayed()) == (1, [], [])


async def test_an_attempt_waits_while_too_many_requests_are_in_flight(
    harness: ServiceHarness, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connect_receiver(harness, receiver)
    with monkeypatch.context() as patched:
        patched.setattr(harness.context.webhook_client, "busy", lambda _: True)
        await run(harness, created())
    assert receiver.requests == []
    await run_timers(harness, after=timedelta(seconds=15))
    assert receiver.types == ["user.created"]


async def test_all_secrets_that_sign_are_used(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    rolled = await harness.deliver(RollWebhookSecret(id=endpoint))
    await run(harness, created())
    assert receiver.requests[0]["webhook-signature"].count("v1,") == 2
    harness.now += 25 * HOURS
    receiver.secrets = [rolled["secret"]]
    await run(harness, created("user_2"))
    assert receiver.requests[1]["webhook-signature"].count("v1,") == 1


# Erasure


async def test_only_the_erasure_is_posted_about_an_erased_user(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, created(), logged_in())
    await run(harness, UserErased(key="user_1", user_id="user_1", at=AT))
    assert receiver.types == ["user.created", "user.erased"]
    await harness.database["erased"].insert_one({"_id": "user_1", "at": harness.now})
    await run(harness, subscribed())
    await run_timers(harness, after=HOURS)
    assert receiver.types == ["user.created", "user.erased"]


async def test_the_erasure_names_the_clients_of_the_user(harness: ServiceHarness, receiver: Receiver) -> None:
    async with Receiver() as other:
        await connect_receiver(harness, receiver, client_id="client_1")
        await connect_receiver(harness, other, client_id="client_2")
        await run(harness, UserErased(key="user_1", user_id="user_1", client_ids=("client_1",), at=AT))
    assert (receiver.types, other.types) == (["user.erased"], [])
    assert harness.published_of(FindLoginClients) == []


async def test_the_erasure_is_retried_too(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await harness.database["erased"].insert_one({"_id": "user_1", "at": harness.now})
    await run(harness, UserErased(key="user_1", user_id="user_1", at=AT))
    await run_timers(harness, after=timedelta(seconds=10))
    assert receiver.types == ["user.erased", "user.erased"]


async def test_bodies_are_sealed_in_the_database(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    await run(harness, subscribed())
    (document,) = await harness.database["webhook_deliveries"].find().to_list()
    assert "sub_1" not in str(document)


# Replays and tests


@pytest.mark.parametrize(
    ("selection", "replayed"),
    [
        ({"type": "user.created"}, ["user.created"]),
        ({"state": "delivered"}, ["user.created", "user.logged_in"]),
        ({"state": "failed"}, []),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC)}, ["user.created", "user.logged_in"]),
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, []),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC), "type": "user.logged_in"}, ["user.logged_in"]),
    ],
    ids=str,
)
async def test_events_are_replayed_by_type_state_and_time(
    harness: ServiceHarness, receiver: Receiver, selection: dict[str, Any], replayed: list[str]
) -> None:
    endpoint = await connect_receiver(harness, receiver)
    await run(harness, created(), logged_in())
    first = list(receiver.ids)
    receiver.bodies.clear()
    receiver.ids.clear()
    harness.now += timedelta(seconds=1)
    result = await harness.deliver(ReplayWebhooks(endpoint_id=endpoint, **selection), caller=OPERATOR)
    await drain(harness)
    assert (result, receiver.types) == ({"replayed": len(replayed)}, replayed)
    assert set(receiver.ids) <= set(first)


async def test_an_event_is_replayed_by_its_id(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    await run(harness, created(), logged_in())
    harness.now += timedelta(seconds=1)
    await run(harness, ReplayWebhooks(endpoint_id=endpoint, event_id=receiver.ids[1]))
    assert receiver.ids == [*receiver.ids[:2], receiver.ids[1]]
    delivery = (await deliveries(harness, event_id=receiver.ids[1]))[0]
    assert (delivery["state"], len(delivery["attempts"])) == ("delivered", 2)


async def test_pending_events_are_attempted_at_once_by_a_replay(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    receiver.answers = [(503, {"retry-after": "14400"})]
    await run(harness, created(), logged_in())
    harness.now += timedelta(seconds=1)
    await run(harness, ReplayWebhooks(endpoint_id=endpoint, state="pending"))
    assert receiver.types == ["user.created", "user.created", "user.logged_in"]
    await run_timers(harness, after=5 * HOURS)
    assert len(receiver.requests) == 3


async def test_replays_of_a_disabled_or_unknown_endpoint_are_refused(
    harness: ServiceHarness, receiver: Receiver
) -> None:
    endpoint = await connect_receiver(harness, receiver)
    await harness.deliver(UpdateWebhookEndpoint(id=endpoint, enabled=False))
    for command in (ReplayWebhooks(endpoint_id=endpoint, state="failed"), SendTestWebhook(id=endpoint)):
        with pytest.raises(Refused, match="webhook_endpoint_disabled"):
            await harness.deliver(command)
    for command in (ReplayWebhooks(endpoint_id="other", state="failed"), SendTestWebhook(id="other")):
        with pytest.raises(Refused, match="webhook_endpoint_not_found"):
            await harness.deliver(command)


async def test_a_test_event_is_posted_once_with_its_answer(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver, "user.created")
    receiver.answers = [(500, {})]
    result = await harness.deliver(SendTestWebhook(id=endpoint), caller=OPERATOR)
    assert (result["event_id"], result["attempt"]["status"], result["attempt"]["error"]) == (
        receiver.ids[0],
        500,
        "status",
    )
    assert receiver.bodies[0]["type"] == "webhook.test"
    assert receiver.bodies[0]["data"] == {"endpoint_id": endpoint}
    assert ([each["state"] for each in await deliveries(harness)], await harness.delayed()) == (["failed"], [])


async def test_deliveries_are_listed_by_each_filter_in_pages(harness: ServiceHarness, receiver: Receiver) -> None:
    endpoint = await connect_receiver(harness, receiver)
    other = (await add_endpoint(harness, receiver.url, "payment.*"))["id"]
    await run(harness, created(), logged_in(), created("user_2"))
    assert [each["type"] for each in await deliveries(harness, user_id="user_1")] == ["user.created", "user.logged_in"]
    assert len(await deliveries(harness, type="user.created")) == 2
    assert len(await deliveries(harness, endpoint_id=endpoint)) == 3
    assert await deliveries(harness, endpoint_id=other) == []
    assert await deliveries(harness, state="pending") == []
    assert len(await deliveries(harness, limit=2)) == 2


async def test_stored_messages_do_not_contain_the_events(harness: ServiceHarness, receiver: Receiver) -> None:
    await connect_receiver(harness, receiver)
    receiver.answers = [(500, {})]
    await run(harness, subscribed())
    (timer,) = await harness.database[Inbox.TIMERS].find().to_list()
    assert b"sub_1" not in timer["body"]
