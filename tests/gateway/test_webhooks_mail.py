from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from services.gateway.webhooks import REPORTS_IGNORED
from shared.bus.producer import BusDown
from shared.messages.mailer.suppressions import RecordMailNotice
from tests.gateway.conftest import MAIL_SECRETS, GatewayStack
from tests.gateway.test_mail_reports import ORDER, SES_ID, dsn
from tests.stack import eventually

PATH = "/1/webhook/mail"
NOTICE = {"event": "bounced", "message_id": f"<{ORDER}@nest.example>", "status": "5.1.1", "reason": "no such user"}


def signed(body: bytes, secret: str = MAIL_SECRETS[1], at: float | None = None) -> dict[str, str]:
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"nest-signature": f"t={moment},v1={digest}"}


async def post(stack: GatewayStack, content: Any, **headers: str) -> tuple[int, str]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await stack.http.post(PATH, content=body, headers={**signed(body), **headers})
    return response.status_code, response.json().get("code", "received")


async def notices(stack: GatewayStack, count: int) -> list[RecordMailNotice]:
    await eventually(lambda: len(stack.services.received) >= count, what="notices on Kafka")
    return [RecordMailNotice.model_validate_json(each.body) for each in stack.services.received]


@pytest.mark.parametrize("secret", MAIL_SECRETS)
async def test_json_notice_is_sent_to_the_mailer(stack: GatewayStack, secret: str) -> None:
    body = json.dumps(NOTICE).encode()
    response = await stack.http.post(PATH, content=body, headers=signed(body, secret))
    assert (response.status_code, response.json()) == (200, {"received": True})
    [notice] = await notices(stack, 1)
    assert (notice.order_id, notice.notice, notice.status, notice.reason) == (ORDER, "bounced", "5.1.1", "no such user")
    [stored] = stack.services.received
    assert (stored.topic, stored.key, stored.caller.kind) == ("mailer.commands", ORDER, "service")


async def test_mail_report_is_sent_to_the_mailer(stack: GatewayStack) -> None:
    assert await post(stack, dsn(), content_type="message/rfc822; charset=utf-8") == (200, "received")
    [notice] = await notices(stack, 1)
    assert (notice.order_id, notice.notice, notice.status) == (ORDER, "bounced", "5.1.1")
    assert b"example.com" not in stack.services.received[0].body


async def test_repeat_has_the_same_message_id(stack: GatewayStack) -> None:
    for content in (NOTICE, {**NOTICE, "reason": "another reason"}, {**NOTICE, "event": "complained"}):
        assert (await post(stack, content))[0] == 200
    await notices(stack, 3)
    assert len({each.id for each in stack.services.received}) == 2


async def test_reason_is_stripped_of_addresses(stack: GatewayStack) -> None:
    reason = "<person@example.com>: mailbox\r\nof other.person@example.com is gone " + "x" * 1000
    await post(stack, {**NOTICE, "reason": reason})
    [notice] = await notices(stack, 1)
    assert "example.com" not in notice.reason
    assert notice.reason.isprintable()
    assert len(notice.reason) == 300


async def test_notice_about_an_unknown_mail_gets_200_and_no_message(stack: GatewayStack) -> None:
    assert (await post(stack, {**NOTICE, "message_id": "<1@elsewhere.example>"}))[0] == 200
    assert (await post(stack, b"Subject: I'm on holiday\r\n\r\n", content_type="message/rfc822"))[0] == 200
    await post(stack, NOTICE)
    assert len(await notices(stack, 1)) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**NOTICE, "message_id": "<1@elsewhere.example>"}, "no_mail"),
        (dsn(returned="Content-Type: text/plain\n\nnothing"), "no_mail"),
        (dsn(action="delayed"), "not_final"),
        (b"Subject: I'm on holiday\r\n\r\n", "not_a_report"),
    ],
)
async def test_signed_report_without_effect_is_counted_and_logged(
    stack: GatewayStack, content: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = REPORTS_IGNORED.labels(reason)._value
    before = counted.get()
    headers = {"content_type": "message/rfc822"} if isinstance(content, bytes) else {}
    assert await post(stack, content, **headers) == (200, "received")
    assert counted.get() == before + 1
    output = capsys.readouterr()
    assert "mail report ignored" in output.out + output.err


async def test_replaced_message_id_is_sent_to_the_mailer(stack: GatewayStack) -> None:
    assert await post(stack, {**NOTICE, "message_id": SES_ID}) == (200, "received")
    await eventually(lambda: stack.services.received, what="a notice on Kafka")
    [notice] = stack.services.received
    assert (notice.wire, notice.key) == ("mailer.record-provider-notice", SES_ID)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        {},
        {"event": "bounced"},
        {**NOTICE, "event": "opened"},
        {**NOTICE, "status": "550"},
        {**NOTICE, "status": 5},
        {**NOTICE, "message_id": "x" * 1000},
        {**NOTICE, "recipient": "person@example.com"},
    ],
)
async def test_invalid_notice_is_refused(stack: GatewayStack, content: Any) -> None:
    assert await post(stack, content) == (400, "invalid_webhook_payload")
    assert stack.services.received == []


async def test_empty_body_is_refused(stack: GatewayStack) -> None:
    assert await post(stack, b"") == (400, "missing_webhook_body")


async def test_forged_signatures_are_refused(stack: GatewayStack) -> None:
    body = json.dumps(NOTICE).encode()
    good = signed(body)["nest-signature"]
    moment, _, signature = good.partition(",")
    forged = [
        "",
        "nonsense",
        moment,
        signature,
        good.replace("v1=", "v0="),
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace("t=", "t=1"),
        good + ",v1=" + "0" * 64,
        good.upper(),
        signed(body, "an unknown mail secret")["nest-signature"],
        signed(body, "")["nest-signature"],
        signed(body + b" ")["nest-signature"],
        signed(body, at=time.time() - 301)["nest-signature"],
        signed(body, at=time.time() + 600)["nest-signature"],
    ]
    for each in forged:
        response = await stack.http.post(PATH, content=body, headers={"nest-signature": each})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_webhook_payload"), each
    response = await stack.http.post(PATH, content=body, headers={"authorization": stack.internal["authorization"]})
    assert response.status_code == 400
    twice = [("nest-signature", good), ("nest-signature", good)]
    assert (await stack.http.post(PATH, content=body, headers=twice)).status_code == 400
    assert stack.services.received == []


async def test_kafka_outage_gives_503(stack: GatewayStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_envelope: object) -> None:
        await asyncio.sleep(0)
        raise BusDown("no broker")

    monkeypatch.setattr(stack.gateway._producer, "send", fail)
    assert await post(stack, NOTICE) == (503, "unavailable")
