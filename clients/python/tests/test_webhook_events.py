"""Types of webhook payloads: at run time, and for mypy, which ``pyproject.toml`` lets check this file.

A ``type: ignore`` marks what mypy has to refuse: it reports those that it does not need.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal, assert_type

import pytest

from nest_client import UnknownEvent, Webhook, WebhookVerifier
from nest_client.models import PlanItem, UserErasedData
from nest_client.webhook_events import PaymentRefundedEvent, UserErasedEvent, WebhookEvent
from services.mailer.webhooks.signatures import body_of, headers_of
from shared.messages.mailer.webhook_events import DATA

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def received(body: bytes) -> Webhook:
    """Return the webhook that the mailer sends with a body."""
    verifier = WebhookVerifier(SECRET, clock=NOW.timestamp)
    return verifier.verify(body, headers_of("webhookevent_1", body, [SECRET], at=NOW))


@pytest.mark.parametrize("event_type", DATA)
def test_events_of_every_type_are_the_body_with_its_unknown_fields(event_type: str) -> None:
    body = body_of(event_type, NOW, {"user_id": "user_1", "of_a_later_release": 1})

    assert received(body).payload == json.loads(body)


@pytest.mark.parametrize(
    "body", [{"type": "user.deleted", "data": {}}, {"type": ["user.created"]}, {"test": 1}, [], None]
)
def test_other_bodies_are_unknown_events(body: Any) -> None:
    payload = received(json.dumps(body).encode()).payload

    assert payload == {"type": "unknown", "body": body}


@pytest.mark.parametrize(
    ("event_type", "data", "text"),
    [
        ("user.erased", {"user_id": "user_1"}, "forget user_1"),
        ("payment.refunded", {"amount_refunded": 500}, "500"),
        ("user.deleted", {}, "unknown: user.deleted"),
        ("trial.started", {}, "2026-11-21T00:00:00.000Z"),
    ],
)
def test_type_of_an_event_determines_its_fields(event_type: str, data: dict[str, Any], text: str) -> None:
    assert described(received(body_of(event_type, NOW, data)).payload) == text


def described(event: WebhookEvent | UnknownEvent) -> str:
    """Return a text about an event, as an app would that handles some of them."""
    if event["type"] == "unknown":
        assert_type(event, UnknownEvent)
        return f"unknown: {event['body']['type']}"
    if event["type"] == "user.erased":
        assert_type(event, UserErasedEvent)
        assert_type(event["data"], UserErasedData)
        return f"forget {event['data']['user_id']}"
    if event["type"] == "payment.refunded":
        assert_type(event, PaymentRefundedEvent)
        return f"{event['data']['amount_refunded']:d}"
    if event["type"] == "subscription.plan_changed":
        assert_type(event["data"]["after"], list[PlanItem])
    if event["type"] == "consent.changed":
        assert_type(event["data"]["level"], Literal["general", "none"])
    return event["timestamp"]


def refused_by_mypy(webhook: Webhook) -> None:
    """Read what events do not have; it is not run."""
    webhook.payload["data"]  # type: ignore[typeddict-item] # UnknownEvent has no data
    if webhook.payload["type"] == "user.erased":
        webhook.payload["data"]["client_id"]  # type: ignore[typeddict-item] # a field of other events
    if webhook.payload["type"] == "user.deleted":  # type: ignore[comparison-overlap] # Nest has no such event
        pass
