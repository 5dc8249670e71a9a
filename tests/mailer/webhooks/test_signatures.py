"""Signatures of webhooks, as the receivers' libraries verify them."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from nest_client import InvalidWebhook, WebhookVerifier
from standardwebhooks.webhooks import Webhook

from services.mailer.webhooks.signatures import PREFIX, body_of, headers_of, new_secret

BODY = body_of("user.created", datetime(2026, 11, 29, 6, 5, tzinfo=UTC), {"user_id": "user_1", "name": "Ädä"})


def test_secrets_have_32_random_bytes() -> None:
    secret, other = new_secret(), new_secret()
    assert secret != other
    assert secret.startswith(PREFIX)
    assert len(base64.b64decode(secret.removeprefix(PREFIX), validate=True)) == 32


def test_bodies_have_type_timestamp_and_data() -> None:
    assert (
        '{"type":"user.created","timestamp":"2026-11-29T06:05:00.000Z","data":{"user_id":"user_1","name":"Ädä"}}'
    ).encode() == BODY


def test_a_signature_of_the_standards_example() -> None:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    at = datetime.fromtimestamp(1_674_087_231, UTC)
    body = b'{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"1f81eb52"}}'
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    signature = headers_of("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", body, [secret], at=at)["webhook-signature"]
    signed = Webhook(secret).sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", at, body.decode())
    assert signature == signed


@pytest.mark.parametrize("size", [24, 32, 64])
def test_receivers_verify_with_any_secret_that_signs(size: int) -> None:
    secrets = [PREFIX + base64.b64encode(bytes([number]) * size).decode() for number in (1, 2, 3)]
    headers = headers_of("webhookevent_1", BODY, secrets, at=datetime.now(UTC))
    assert headers["webhook-signature"].count("v1,") == 3
    for secret in secrets:
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
        verified = WebhookVerifier([secret]).verify(BODY, headers)
        assert (verified.id, verified.payload) == ("webhookevent_1", json.loads(BODY))
        assert abs(verified.timestamp - time.time()) < 5


def test_receivers_refuse_another_secret_and_another_body() -> None:
    secret = new_secret()
    headers = headers_of("webhookevent_1", BODY, [secret], at=datetime.now(UTC))
    for verifier, body in ((WebhookVerifier([new_secret()]), BODY), (WebhookVerifier([secret]), BODY + b" ")):
        with pytest.raises(InvalidWebhook):
            verifier.verify(body, headers)
