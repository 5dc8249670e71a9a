"""What is told of mails: signed by somebody who knows our secret, and kept before anybody is told so."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from services.gateway.settings import GatewaySettings
from shared.bus.producer import BusDown
from shared.messages.mailer.mail_reports import RecordMailNotice
from shared.settings import SettingsError, load
from tests.gateway.conftest import MAIL_SECRETS, World
from tests.gateway.test_mail_reports import ORDER, dsn
from tests.stack import eventually

PATH = "/1/webhook/mail"
NOTICE = {"event": "bounced", "message_id": f"<{ORDER}@nest.example>", "status": "5.1.1", "reason": "no such user"}


def signed(body: bytes, secret: str = MAIL_SECRETS[1], at: float | None = None) -> dict[str, str]:
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"nest-signature": f"t={moment},v1={digest}"}


async def tell(world: World, told: Any, **headers: str) -> tuple[int, str]:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await world.http.post(PATH, content=body, headers={**signed(body), **named})
    return answer.status_code, answer.json().get("code", "received")


async def heard(world: World, count: int) -> list[RecordMailNotice]:
    await eventually(lambda: len(world.services.received) >= count, what="notices on Kafka")
    return [RecordMailNotice.model_validate_json(each.body) for each in world.services.received]


@pytest.mark.parametrize("secret", MAIL_SECRETS)
async def test_a_notice_in_json_reaches_the_mailer(world: World, secret: str) -> None:
    body = json.dumps(NOTICE).encode()
    answer = await world.http.post(PATH, content=body, headers=signed(body, secret))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    [notice] = await heard(world, 1)
    assert (notice.order_id, notice.notice, notice.status, notice.reason) == (ORDER, "bounced", "5.1.1", "no such user")
    [stored] = world.services.received
    assert (stored.topic, stored.key, stored.caller.kind) == ("mailer.commands", ORDER, "service")


async def test_a_report_as_it_came_by_mail_reaches_the_mailer(world: World) -> None:
    assert await tell(world, dsn(), content_type="message/rfc822; charset=utf-8") == (200, "received")
    [notice] = await heard(world, 1)
    assert (notice.order_id, notice.notice, notice.status) == (ORDER, "bounced", "5.1.1")
    assert b"example.com" not in world.services.received[0].body


async def test_a_repeat_is_the_same_message(world: World) -> None:
    for told in (NOTICE, {**NOTICE, "reason": "in other words"}, {**NOTICE, "event": "complained"}):
        assert (await tell(world, told))[0] == 200
    await heard(world, 3)
    assert len({each.id for each in world.services.received}) == 2


async def test_addresses_in_a_reason_stay_here(world: World) -> None:
    reason = "<person@example.com>: mailbox\r\nof other.person@example.com is gone " + "x" * 1000
    await tell(world, {**NOTICE, "reason": reason})
    [notice] = await heard(world, 1)
    assert "example.com" not in notice.reason
    assert notice.reason.isprintable()
    assert len(notice.reason) == 300


async def test_what_is_about_no_mail_of_ours_is_received_and_dropped(world: World) -> None:
    assert (await tell(world, {**NOTICE, "message_id": "<1@elsewhere.example>"}))[0] == 200
    assert (await tell(world, b"Subject: I'm on holiday\r\n\r\n", content_type="message/rfc822"))[0] == 200
    await tell(world, NOTICE)
    assert len(await heard(world, 1)) == 1


@pytest.mark.parametrize(
    "told",
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
async def test_what_is_no_notice_is_refused(world: World, told: Any) -> None:
    assert await tell(world, told) == (400, "invalid_webhook_payload")
    assert world.services.received == []


async def test_no_body_is_said_to_be_missing(world: World) -> None:
    assert await tell(world, b"") == (400, "missing_webhook_body")


async def test_nobody_without_the_secret_is_believed(world: World) -> None:
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
        signed(body, "another secret of somebody")["nest-signature"],
        signed(body, "")["nest-signature"],
        signed(body + b" ")["nest-signature"],
        signed(body, at=time.time() - 301)["nest-signature"],
        signed(body, at=time.time() + 302)["nest-signature"],
    ]
    for each in forged:
        answer = await world.http.post(PATH, content=body, headers={"nest-signature": each})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_webhook_payload"), each
    answer = await world.http.post(PATH, content=body, headers={"authorization": world.internal["authorization"]})
    assert answer.status_code == 400
    twice = [("nest-signature", good), ("nest-signature", good)]
    assert (await world.http.post(PATH, content=body, headers=twice)).status_code == 400
    assert world.services.received == []


async def test_with_kafka_down_whoever_tells_is_asked_to_repeat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_envelope: object) -> None:
        await asyncio.sleep(0)
        raise BusDown("no broker")

    monkeypatch.setattr(world.gateway._producer, "send", fail)
    assert await tell(world, NOTICE) == (503, "unavailable")


def test_a_short_secret_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_MAIL_WEBHOOK_SECRETS", "short")
    with pytest.raises(SettingsError, match="NEST_MAIL_WEBHOOK_SECRETS: each needs at least 16 characters"):
        load(GatewaySettings)
