"""Webhooks signed by the package ``standardwebhooks``, and the vector of the specification."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook as Signer

from nest_client import InvalidWebhook, WebhookVerifier

NOW = 1_795_241_100
OLD, NEW = (f"whsec_{base64.b64encode(text * 24).decode()}" for text in (b"o", b"n"))
BODY = '{"type": "user.created", "data": {"name": "Zoë"}}'


def signed(*secrets: str, at: int = NOW, body: str = BODY) -> dict[str, str]:
    time = datetime.fromtimestamp(at, UTC)
    signatures = " ".join(Signer(secret).sign("msg_1", time, body) for secret in secrets)
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signatures}


def verifier(*secrets: str, now: float = NOW) -> WebhookVerifier:
    return WebhookVerifier(secrets, clock=lambda: now)


@pytest.mark.parametrize(
    ("signing", "known"), [((NEW,), (NEW,)), ((NEW,), (OLD, NEW)), ((OLD, NEW), (NEW,)), ((NEW,), (NEW[6:],))]
)
def test_one_right_signature_is_enough(signing: tuple[str, ...], known: tuple[str, ...]) -> None:
    webhook = verifier(*known).verify(BODY.encode(), signed(*signing))

    assert (webhook.id, webhook.timestamp, webhook.payload) == ("msg_1", NOW, json.loads(BODY))


def test_vector_of_the_reference_implementation() -> None:
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    known = WebhookVerifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", clock=lambda: 1614265330)

    assert known.verify(body, headers).payload == {"type": "unknown", "body": {"test": 2432232314}}


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_signatures_within_the_tolerance_are_accepted(seconds: int) -> None:
    assert verifier(NEW, now=NOW + seconds).verify(BODY.encode(), signed(NEW))


@pytest.mark.parametrize("seconds", [-301, 301, 10**6])
def test_signatures_out_of_tolerance_are_refused(seconds: int) -> None:
    with pytest.raises(InvalidWebhook, match="too old"):
        verifier(NEW, now=NOW + seconds).verify(BODY.encode(), signed(NEW))


RIGHT = signed(NEW)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "msg_2"},
        {"Webhook-Timestamp": str(NOW + 1)},
        {"Webhook-Timestamp": "soon"},
        {"Webhook-Timestamp": f"{NOW}.5"},
        {"Webhook-Timestamp": f"-{NOW}"},
        {"Webhook-Timestamp": "９" * 10},
        {"Webhook-Timestamp": "9" * 5000},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"},
        {"Webhook-Signature": "v1,!!!!"},
        {"Webhook-Signature": "v1a," + RIGHT["Webhook-Signature"][3:]},
        {"Webhook-Signature": RIGHT["Webhook-Signature"][3:]},
        {"Webhook-Signature": signed(OLD)["Webhook-Signature"]},
    ],
)
def test_changed_headers_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidWebhook):
        verifier(NEW).verify(BODY.encode(), {**RIGHT, **change})


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_missing_headers_are_refused(name: str) -> None:
    with pytest.raises(InvalidWebhook, match=name.lower()):
        verifier(NEW).verify(BODY.encode(), {key: value for key, value in RIGHT.items() if key != name})


def test_changed_body_is_refused() -> None:
    with pytest.raises(InvalidWebhook, match="No signature"):
        verifier(NEW).verify(BODY.encode() + b" ", RIGHT)


def test_signed_body_without_json_is_refused() -> None:
    with pytest.raises(InvalidWebhook, match="no JSON"):
        verifier(NEW).verify(b"text", signed(NEW, body="text"))


@pytest.mark.parametrize("secrets", [(), ("",), ("whsec_",), ("whsec_!!!",)])
def test_missing_secrets_are_a_mistake_of_the_settings(secrets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="secret"):
        WebhookVerifier(secrets)


def test_secrets_do_not_show() -> None:
    assert NEW not in repr(verifier(NEW))
