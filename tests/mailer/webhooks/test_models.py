"""Rules of webhook endpoints and deliveries."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.mailer.webhooks.models import (
    MAX_ENDPOINTS_PER_CLIENT,
    MAX_LOGGED_ATTEMPTS,
    MAX_PAUSE,
    MAX_SECRETS,
    RETRY_PERIOD,
    Attempt,
    Endpoint,
    Secret,
    WebhookDelivery,
    chooses,
    must_have_room,
)
from services.mailer.webhooks.store import next_position
from shared.messages.mailer.errors import TooManyWebhookEndpoints, TooManyWebhookSecrets, WebhookEndpointChanged

AT = datetime(2026, 11, 29, 6, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENDPOINT = Endpoint(
    id="webhookendpoint_1",
    client_id=None,
    url="https://app.example/webhooks",
    types=("payment.*", "user.created"),
    description="",
    secrets=(Secret(id="1", sealed="", created_at=AT),),
    enabled_at=AT,
    created_at=AT,
    updated_at=AT,
)
DELIVERY = WebhookDelivery(
    id="webhook_1",
    endpoint_id=ENDPOINT.id,
    event_id="webhookevent_1",
    type="user.created",
    user_id="user_1",
    subject="user_1",
    position=1,
    body="",
    created_at=AT,
    updated_at=AT,
)


def secret(number: int) -> Secret:
    return Secret(id=str(number), sealed="", created_at=AT)


def failed(at: datetime = AT) -> Attempt:
    return Attempt(at=at, duration_ms=1, status=500, error="status")


@pytest.mark.parametrize(
    ("types", "event_type", "chosen"),
    [
        (("*",), "payment.failed", True),
        (("payment.*",), "payment.failed", True),
        (("payment.*",), "user.created", False),
        (("payment.failed",), "payment.failed", True),
        (("payment.failed",), "payment.succeeded", False),
        (("user.created", "trial.*"), "trial.ended", True),
    ],
)
def test_types_are_chosen_by_name_or_family(types: tuple[str, ...], event_type: str, *, chosen: bool) -> None:
    assert chooses(types, event_type) is chosen


def test_a_disabled_endpoint_wants_nothing() -> None:
    assert ENDPOINT.wants("user.created")
    assert not ENDPOINT.disable("operator", at=AT).wants("user.created")


def test_enabling_begins_a_new_retry_period_and_removes_the_reason() -> None:
    disabled = ENDPOINT.disable("failing", at=AT + HOUR)
    assert (disabled.enabled, disabled.disabled_reason, disabled.disabled_at) == (False, "failing", AT + HOUR)
    enabled = disabled.change(url=None, types=None, description=None, enabled=True, at=AT + 2 * HOUR)
    assert (enabled.enabled, enabled.disabled_reason, enabled.enabled_at) == (True, None, AT + 2 * HOUR)


def test_an_omitted_field_does_not_change() -> None:
    assert ENDPOINT.change(url=None, types=None, description=None, enabled=None, at=AT) == ENDPOINT
    changed = ENDPOINT.change(url="https://b.example", types=("*", "*"), description="b", enabled=True, at=AT)
    assert (changed.url, changed.types, changed.description) == ("https://b.example", ("*",), "b")
    assert changed.enabled_at == AT


def test_another_version_is_refused() -> None:
    ENDPOINT.must_have_version(None)
    ENDPOINT.must_have_version(1)
    with pytest.raises(WebhookEndpointChanged):
        ENDPOINT.must_have_version(2)


def test_both_secrets_sign_during_the_overlap_and_only_the_new_one_after_it() -> None:
    rolled = ENDPOINT.roll(secret(2), overlap=24 * HOUR, at=AT)
    assert [each.id for each in rolled.signing(at=AT + 23 * HOUR)] == ["2", "1"]
    assert [each.id for each in rolled.signing(at=AT + 24 * HOUR)] == ["2"]
    assert [each.id for each in ENDPOINT.roll(secret(2), overlap=0 * HOUR, at=AT).secrets] == ["2"]


def test_a_later_roll_does_not_lengthen_the_overlap_of_older_secrets() -> None:
    rolled = ENDPOINT.roll(secret(2), overlap=HOUR, at=AT).roll(secret(3), overlap=24 * HOUR, at=AT)
    assert [each.id for each in rolled.signing(at=AT + 2 * HOUR)] == ["3", "2"]
    shortened = ENDPOINT.roll(secret(2), overlap=24 * HOUR, at=AT).roll(secret(3), overlap=0 * HOUR, at=AT)
    assert [each.id for each in shortened.secrets] == ["3"]


def test_secrets_that_sign_are_limited() -> None:
    endpoint = ENDPOINT
    for number in range(2, MAX_SECRETS + 1):
        endpoint = endpoint.roll(secret(number), overlap=HOUR, at=AT)
    with pytest.raises(TooManyWebhookSecrets):
        endpoint.roll(secret(9), overlap=HOUR, at=AT)
    assert endpoint.roll(secret(9), overlap=HOUR, at=AT + 2 * HOUR).secrets[0].id == "9"


def test_endpoints_of_a_client_are_limited() -> None:
    must_have_room(MAX_ENDPOINTS_PER_CLIENT - 1)
    with pytest.raises(TooManyWebhookEndpoints):
        must_have_room(MAX_ENDPOINTS_PER_CLIENT)


def test_pauses_grow_with_jitter_until_the_retry_period_ends() -> None:
    delivery, at, pauses = DELIVERY, AT, []
    while not delivery.expired(ENDPOINT):
        delivery = delivery.after(failed(at), retry_after=None, at=at)
        assert delivery.next_attempt_at is not None
        pauses.append((delivery.next_attempt_at - at).total_seconds())
        at = delivery.next_attempt_at
    assert 1.6 <= pauses[0] <= 2.4
    assert all(0.8 * 2**number * 2 <= pause <= 1.2 * 2**number * 2 for number, pause in enumerate(pauses[:12]))
    assert max(pauses) <= 1.2 * MAX_PAUSE.total_seconds()
    assert len(pauses) <= MAX_LOGGED_ATTEMPTS - 10
    assert RETRY_PERIOD - 1.2 * MAX_PAUSE <= at - timedelta(seconds=pauses[-1]) - AT <= RETRY_PERIOD


@pytest.mark.parametrize(
    ("requested", "pause"), [(timedelta(hours=1), 3600.0), (timedelta(days=30), 4 * 3600.0), (timedelta(0), 2.4)]
)
def test_retry_after_lengthens_the_pause_within_bounds(requested: timedelta, pause: float) -> None:
    delivery = DELIVERY.after(failed(), retry_after=requested, at=AT)
    assert delivery.next_attempt_at is not None
    assert 1.6 <= (delivery.next_attempt_at - AT).total_seconds() <= pause


def test_a_success_ends_the_delivery() -> None:
    delivery = DELIVERY.after(failed(), retry_after=None, at=AT)
    delivered = delivery.after(Attempt(at=AT, duration_ms=1, status=200), retry_after=None, at=AT + HOUR)
    assert (delivered.state, delivered.failures, delivered.next_attempt_at) == ("delivered", 0, None)
    assert (delivered.attempts, delivered.delivered_at) == (2, AT + HOUR)
    assert [each.error for each in delivered.log] == ["status", None]


def test_the_retry_period_counts_from_the_enabling_of_the_endpoint() -> None:
    late = AT + RETRY_PERIOD + HOUR
    delivery = replace(DELIVERY, failing_since=AT, next_attempt_at=late)
    assert delivery.expired(ENDPOINT)
    assert not delivery.expired(replace(ENDPOINT, enabled_at=AT + 2 * HOUR))


def test_a_replay_has_the_whole_retry_period_and_the_same_place() -> None:
    delivery = DELIVERY.after(failed(), retry_after=None, at=AT).given_up()
    replayed = delivery.replay(at=AT + HOUR)
    assert (replayed.state, replayed.failures, replayed.failing_since) == ("pending", 0, None)
    assert (replayed.attempts, replayed.position, replayed.event_id) == (1, 1, "webhookevent_1")


def test_positions_are_times_or_follow_the_last_one() -> None:
    now = int(AT.timestamp() * 1000)
    assert next_position(None, at=AT) == now
    assert next_position(now - 5, at=AT) == now
    assert next_position(now, at=AT) == now + 1
    assert next_position(now + 5, at=AT) == now + 6
