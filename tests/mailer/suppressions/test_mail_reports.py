"""What a provider tells of a mail: where the delivery stands then, and who is written to no more."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from services.mailer.suppressions.handlers import REPORT_PAUSES
from shared.bus.inbox import Inbox
from shared.messages.mailer.mail_reports import AddressSuppressed, MailBounced, NoticeKind, RecordMailNotice
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer
from tests.mailer.mails.test_handlers import ORDER, deliveries, order
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

WELCOME: dict[str, Any] = {"template": "welcome", "variables": {}}


def notice(kind: NoticeKind, status: str | None = None, *, order_id: str = ORDER, **rest: Any) -> RecordMailNotice:
    return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, **rest)


async def state(harness: ServiceHarness, order_id: str = ORDER) -> str:
    row = await harness.database["deliveries"].find_one({"orderId": order_id})
    assert row is not None
    return str(row["state"])


async def suppressions(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["suppressions"].find().to_list()


async def later_order(harness: ServiceHarness, order_id: str, to: str = "Person@example.com", **rest: Any) -> str:
    harness.now += timedelta(minutes=1)
    await harness.deliver(order(to, **{**WELCOME, **rest}), id=order_id)
    return await state(harness, order_id)


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
    harness: ServiceHarness, kinds: list[NoticeKind], end: str
) -> None:
    for number, told in enumerate(permutations(kinds)):
        order_id = f"{number:032x}"
        await harness.deliver(order(f"person{number}@example.com"), id=order_id)
        for kind in told:
            await harness.deliver(notice(kind, order_id=order_id))
        assert await state(harness, order_id) == end, told


async def test_a_bounce_keeps_what_was_said_and_is_announced(harness: ServiceHarness) -> None:
    await harness.deliver(order(), id=ORDER)
    for _ in range(2):
        await harness.deliver(notice("bounced", "5.1.1", reason="550 no such user"))
    [row] = await deliveries(harness)
    assert (row["state"], row["reason"]) == ("bounced", "5.1.1 550 no such user")
    [said] = harness.published_of(MailBounced)
    assert (said.delivery_id, said.template, said.status) == (row["_id"], "magic-link", "5.1.1")


async def test_second_delivery_of_a_notice_changes_nothing(harness: ServiceHarness) -> None:
    await harness.deliver(order(), id=ORDER)
    for _ in range(2):
        await harness.deliver(notice("bounced", "5.1.1"), id="f" * 32)
    assert (len(harness.published_of(MailBounced)), len(harness.published_of(AddressSuppressed))) == (1, 1)
    [row] = await deliveries(harness)
    assert row["version"] == 2


async def test_a_dead_address_gets_nothing_but_what_is_asked_for_at_it(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order(), id=ORDER)
    await harness.deliver(notice("bounced", "5.1.1"))
    [row] = await suppressions(harness)
    assert row["cause"] == "bounce"
    assert harness.sealer.matches("recipient", row["_id"], b"person@example.com")
    assert "example.com" not in str(row)
    before = len(server.arrivals)
    templates: list[Template] = ["welcome", "welcome-trial", "trial-ending", "payment-failed", "session-theft"]
    for number, template in enumerate(templates):
        assert await later_order(harness, f"{number:032x}", "PERSON@example.com", template=template) == "suppressed"
    assert len(server.arrivals) == before
    assert await later_order(harness, "e" * 32, "somebody.else@example.com") == "handed_over"
    links: list[Template] = ["magic-link", "trial-magic-link"]
    for number, template in enumerate(links):
        assert await later_order(harness, f"{number:031x}f", template=template, variables=None) == "handed_over"


async def test_a_suppressed_delivery_says_why_and_is_not_tried_again(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order(), id=ORDER)
    await harness.deliver(notice("complained"))
    assert await later_order(harness, "1" * 32) == "suppressed"
    row = await harness.database["deliveries"].find_one({"orderId": "1" * 32})
    assert row is not None
    assert (row["reason"], row["attempts"]) == ("complaint", 0)
    assert await harness.delayed() == []
    await harness.deliver(order(order_id="1" * 32, attempt=2, **WELCOME))
    assert len(server.arrivals) == 1


async def test_a_mail_that_waits_for_its_next_try_is_not_sent_to_an_address_suppressed_meanwhile(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order(), id=ORDER)
    server.refusing("RCPT", "450 4.2.1 later")
    assert await later_order(harness, "1" * 32) == "queued"
    server.answers.clear()
    await harness.deliver(notice("bounced", "5.1.1"))
    await harness.deliver(order(order_id="1" * 32, attempt=2, **WELCOME))
    assert await state(harness, "1" * 32) == "suppressed"
    assert len(server.arrivals) == 1


@pytest.mark.parametrize(
    ("status", "suppressed"), [(None, True), ("5.1.1", True), ("5.2.1", True), ("5.2.2", False), ("5.7.1", False)]
)
async def test_a_bounce_that_is_not_about_the_address_suppresses_nobody(
    harness: ServiceHarness, status: str | None, *, suppressed: bool
) -> None:
    await harness.deliver(order(), id=ORDER)
    await harness.deliver(notice("bounced", status))
    assert bool(await suppressions(harness)) is suppressed


@pytest.mark.parametrize(("said", "suppressed"), [("550 5.1.1 no such user", True), ("550 go away", False)])
async def test_a_server_that_knows_the_address_to_be_dead_suppresses_it_at_once(
    harness: ServiceHarness, server: SmtpServer, said: str, *, suppressed: bool
) -> None:
    server.refusing("RCPT", said)
    await harness.deliver(order(), id=ORDER)
    assert await state(harness) == "failed"
    assert bool(await suppressions(harness)) is suppressed
    assert bool(harness.published_of(AddressSuppressed)) is suppressed


async def test_a_mail_that_arrives_later_ends_a_suppression_by_bounce_and_none_by_complaint(
    harness: ServiceHarness,
) -> None:
    for cause, left in (("bounced", 0), ("complained", 1)):
        to = f"{cause}@example.com"
        first, second = f"{len(cause):032x}", f"{len(cause):031x}f"
        await harness.deliver(order(to), id=first)
        await harness.deliver(notice(cause, order_id=first))
        # News of the mail that had come back, or of an older one, shows nothing.
        await harness.deliver(notice("delivered", order_id=first))
        assert len(await suppressions(harness)) == 1
        await later_order(harness, second, to, template="magic-link", variables=None)
        await harness.deliver(notice("delivered", order_id=second))
        assert len(await suppressions(harness)) == left


async def test_a_complaint_outweighs_a_bounce_and_not_the_other_way(harness: ServiceHarness) -> None:
    for number, kinds in enumerate((("bounced", "complained"), ("complained", "bounced"))):
        order_id = f"{number:032x}"
        await harness.deliver(order(f"person{number}@example.com"), id=order_id)
        for kind in kinds:
            await harness.deliver(notice(kind, order_id=order_id))  # type: ignore[arg-type]
    assert {row["cause"] for row in await suppressions(harness)} == {"complaint"}


async def test_an_address_stays_suppressed_under_a_new_sealing_key(harness: ServiceHarness) -> None:
    await harness.deliver(order(), id=ORDER)
    await harness.deliver(notice("bounced", "5.1.1"))
    rotated = Sealer({"new": bytes(range(1, 33)), "test": bytes(range(32))})
    found = await harness.context.suppressions.find(rotated.keyed_hashes("recipient", b"person@example.com"))
    assert found is not None


async def test_a_notice_that_is_faster_than_our_own_mark_waits_for_it(harness: ServiceHarness) -> None:
    await harness.deliver(notice("bounced", "5.1.1"))
    [(at, again)] = await harness.delayed()
    assert at - harness.now <= timedelta(seconds=5)
    await harness.deliver(order(), id=ORDER)
    harness.now = at
    await harness.deliver(again.model_copy(update={"key": ORDER}))
    assert await state(harness) == "bounced"


async def test_a_notice_about_nothing_is_given_up(harness: ServiceHarness) -> None:
    began, message = harness.now, notice("bounced", "5.1.1")
    for _ in REPORT_PAUSES:
        await harness.deliver(message)
        [(at, again)] = await harness.delayed()
        await harness.database[Inbox.TIMERS].delete_many({})
        harness.now = at
        assert isinstance(again, RecordMailNotice)
        message = again.model_copy(update={"key": ORDER})
    await harness.deliver(message)
    assert await harness.delayed() == []
    assert harness.now - began > timedelta(hours=1)
    assert await suppressions(harness) == []


async def test_a_mail_that_bounced_while_it_seemed_not_taken_is_not_tried_again(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    server.drop_after_data = True
    await harness.deliver(order(), id=ORDER)
    assert await state(harness) == "queued"
    server.drop_after_data = False
    await harness.deliver(notice("delivered"))
    await harness.deliver(order(order_id=ORDER, attempt=2))
    assert (await state(harness), len(server.arrivals)) == ("delivered", 1)
