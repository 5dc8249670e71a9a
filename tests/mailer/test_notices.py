"""What a provider tells of a mail: where the delivery stands then, and who is written to no more."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from services.mailer.handlers.notices import PAUSES
from shared.bus.inbox import Inbox
from shared.messages.mailer.mail_reports import AddressSuppressed, MailBounced, NoticeKind, RecordMailNotice
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer
from tests.desk import Desk
from tests.mailer.smtp_server import SmtpServer
from tests.mailer.test_handlers import ORDER, deliveries, order

WELCOME: dict[str, Any] = {"template": "welcome", "variables": {}}


def notice(kind: NoticeKind, status: str | None = None, *, order_id: str = ORDER, **rest: Any) -> RecordMailNotice:
    return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, **rest)


async def state(desk: Desk, order_id: str = ORDER) -> str:
    row = await desk.database["deliveries"].find_one({"orderId": order_id})
    assert row is not None
    return str(row["state"])


async def suppressions(desk: Desk) -> list[dict[str, Any]]:
    return await desk.database["suppressions"].find().to_list()


async def later_order(desk: Desk, order_id: str, to: str = "Person@example.com", **rest: Any) -> str:
    desk.now += timedelta(minutes=1)
    await desk.perform(order(to, **{**WELCOME, **rest}), id=order_id)
    return await state(desk, order_id)


@pytest.mark.parametrize(
    ("kinds", "end"),
    [
        (["delivered"], "delivered"),
        (["bounced"], "bounced"),
        (["complained"], "delivered"),
        (["delivered", "complained"], "delivered"),
        (["delivered", "bounced"], "bounced"),
        (["delivered", "bounced", "complained"], "bounced"),
    ],
)
async def test_states_move_only_forwards_whatever_order_notices_come_in(
    desk: Desk, kinds: list[NoticeKind], end: str
) -> None:
    for number, told in enumerate(permutations(kinds)):
        order_id = f"{number:032x}"
        await desk.perform(order(f"person{number}@example.com"), id=order_id)
        for kind in told:
            await desk.perform(notice(kind, order_id=order_id))
        assert await state(desk, order_id) == end, told


async def test_a_bounce_keeps_what_was_said_and_is_announced(desk: Desk) -> None:
    await desk.perform(order(), id=ORDER)
    for _ in range(2):
        await desk.perform(notice("bounced", "5.1.1", reason="550 no such user"))
    [row] = await deliveries(desk)
    assert (row["state"], row["reason"]) == ("bounced", "5.1.1 550 no such user")
    [said] = desk.said(MailBounced)
    assert (said.delivery_id, said.template, said.status) == (row["_id"], "magic-link", "5.1.1")


async def test_second_delivery_of_a_notice_changes_nothing(desk: Desk) -> None:
    await desk.perform(order(), id=ORDER)
    for _ in range(2):
        await desk.perform(notice("bounced", "5.1.1"), id="f" * 32)
    assert (len(desk.said(MailBounced)), len(desk.said(AddressSuppressed))) == (1, 1)
    [row] = await deliveries(desk)
    assert row["version"] == 2


async def test_a_dead_address_gets_nothing_but_what_is_asked_for_at_it(desk: Desk, server: SmtpServer) -> None:
    await desk.perform(order(), id=ORDER)
    await desk.perform(notice("bounced", "5.1.1"))
    [row] = await suppressions(desk)
    assert row["cause"] == "bounce"
    assert desk.sealer.matches("recipient", row["_id"], b"person@example.com")
    assert "example.com" not in str(row)
    before = len(server.arrivals)
    templates: list[Template] = ["welcome", "welcome-trial", "trial-ending", "payment-failed", "session-theft"]
    for number, template in enumerate(templates):
        assert await later_order(desk, f"{number:032x}", "PERSON@example.com", template=template) == "suppressed"
    assert len(server.arrivals) == before
    assert await later_order(desk, "e" * 32, "somebody.else@example.com") == "handed_over"
    links: list[Template] = ["magic-link", "trial-magic-link"]
    for number, template in enumerate(links):
        assert await later_order(desk, f"{number:031x}f", template=template, variables=None) == "handed_over"


async def test_a_suppressed_delivery_says_why_and_is_not_tried_again(desk: Desk, server: SmtpServer) -> None:
    await desk.perform(order(), id=ORDER)
    await desk.perform(notice("complained"))
    assert await later_order(desk, "1" * 32) == "suppressed"
    row = await desk.database["deliveries"].find_one({"orderId": "1" * 32})
    assert row is not None
    assert (row["reason"], row["attempts"]) == ("complaint", 0)
    assert await desk.later() == []
    await desk.perform(order(order_id="1" * 32, attempt=2, **WELCOME))
    assert len(server.arrivals) == 1


async def test_a_mail_that_waits_for_its_next_try_is_not_sent_to_an_address_suppressed_meanwhile(
    desk: Desk, server: SmtpServer
) -> None:
    await desk.perform(order(), id=ORDER)
    server.refusing("RCPT", "450 4.2.1 later")
    assert await later_order(desk, "1" * 32) == "queued"
    server.answers.clear()
    await desk.perform(notice("bounced", "5.1.1"))
    await desk.perform(order(order_id="1" * 32, attempt=2, **WELCOME))
    assert await state(desk, "1" * 32) == "suppressed"
    assert len(server.arrivals) == 1


@pytest.mark.parametrize(
    ("status", "suppressed"), [(None, True), ("5.1.1", True), ("5.2.1", True), ("5.2.2", False), ("5.7.1", False)]
)
async def test_a_bounce_that_is_not_about_the_address_suppresses_nobody(
    desk: Desk, status: str | None, *, suppressed: bool
) -> None:
    await desk.perform(order(), id=ORDER)
    await desk.perform(notice("bounced", status))
    assert bool(await suppressions(desk)) is suppressed


@pytest.mark.parametrize(("said", "suppressed"), [("550 5.1.1 no such user", True), ("550 go away", False)])
async def test_a_server_that_knows_the_address_to_be_dead_suppresses_it_at_once(
    desk: Desk, server: SmtpServer, said: str, *, suppressed: bool
) -> None:
    server.refusing("RCPT", said)
    await desk.perform(order(), id=ORDER)
    assert await state(desk) == "failed"
    assert bool(await suppressions(desk)) is suppressed
    assert bool(desk.said(AddressSuppressed)) is suppressed


async def test_a_mail_that_arrives_later_ends_a_suppression_by_bounce_and_none_by_complaint(desk: Desk) -> None:
    for cause, left in (("bounced", 0), ("complained", 1)):
        to = f"{cause}@example.com"
        first, second = f"{len(cause):032x}", f"{len(cause):031x}f"
        await desk.perform(order(to), id=first)
        await desk.perform(notice(cause, order_id=first))
        # News of the mail that had come back, or of an older one, shows nothing.
        await desk.perform(notice("delivered", order_id=first))
        assert len(await suppressions(desk)) == 1
        await later_order(desk, second, to, template="magic-link", variables=None)
        await desk.perform(notice("delivered", order_id=second))
        assert len(await suppressions(desk)) == left


async def test_a_complaint_outweighs_a_bounce_and_not_the_other_way(desk: Desk) -> None:
    for number, kinds in enumerate((("bounced", "complained"), ("complained", "bounced"))):
        order_id = f"{number:032x}"
        await desk.perform(order(f"person{number}@example.com"), id=order_id)
        for kind in kinds:
            await desk.perform(notice(kind, order_id=order_id))  # type: ignore[arg-type]
    assert {row["cause"] for row in await suppressions(desk)} == {"complaint"}


async def test_an_address_stays_suppressed_under_a_new_sealing_key(desk: Desk) -> None:
    await desk.perform(order(), id=ORDER)
    await desk.perform(notice("bounced", "5.1.1"))
    rotated = Sealer({"new": bytes(range(1, 33)), "test": bytes(range(32))})
    found = await desk.context.suppressions.find(rotated.keyed_hashes("recipient", b"person@example.com"))
    assert found is not None


async def test_a_notice_that_is_faster_than_our_own_mark_waits_for_it(desk: Desk) -> None:
    await desk.perform(notice("bounced", "5.1.1"))
    [(at, again)] = await desk.later()
    assert at - desk.now <= timedelta(seconds=5)
    await desk.perform(order(), id=ORDER)
    desk.now = at
    await desk.perform(again.model_copy(update={"key": ORDER}))
    assert await state(desk) == "bounced"


async def test_a_notice_about_nothing_is_given_up(desk: Desk) -> None:
    began, message = desk.now, notice("bounced", "5.1.1")
    for _ in PAUSES:
        await desk.perform(message)
        [(at, again)] = await desk.later()
        await desk.database[Inbox.TIMERS].delete_many({})
        desk.now = at
        assert isinstance(again, RecordMailNotice)
        message = again.model_copy(update={"key": ORDER})
    await desk.perform(message)
    assert await desk.later() == []
    assert desk.now - began > timedelta(hours=1)
    assert await suppressions(desk) == []


async def test_a_mail_that_bounced_while_it_seemed_not_taken_is_not_tried_again(desk: Desk, server: SmtpServer) -> None:
    server.drop_after_data = True
    await desk.perform(order(), id=ORDER)
    assert await state(desk) == "queued"
    server.drop_after_data = False
    await desk.perform(notice("delivered"))
    await desk.perform(order(order_id=ORDER, attempt=2))
    assert (await state(desk), len(server.arrivals)) == ("delivered", 1)
