from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from services.mailer.suppressions.handlers import REPORT_PAUSES, UNMATCHED
from shared.bus.envelope import encode
from shared.bus.inbox import Inbox
from shared.messages import Sealed
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import (
    AddressSuppressed,
    LiftSuppression,
    ListSuppressions,
    MailBounced,
    NoticeKind,
    RecordMailNotice,
    RecordProviderNotice,
    SuppressionLifted,
)
from shared.sealing import Sealer
from tests.mailer.mails.test_handlers import ORDER_ID, delivery_rows, mail_command
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import Refused, ServiceHarness

WELCOME: dict[str, Any] = {"template": "welcome", "variables": {}}


def report(kind: NoticeKind, status: str | None = None, *, order_id: str = ORDER_ID, **rest: Any) -> RecordMailNotice:
    return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, **rest)


async def delivery_state(harness: ServiceHarness, order_id: str = ORDER_ID) -> str:
    row = await harness.database["deliveries"].find_one({"orderId": order_id})
    assert row is not None
    return str(row["state"])


async def suppression_rows(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["suppressions"].find().to_list()


async def send_later(harness: ServiceHarness, order_id: str, to: str = "Person@example.com", **rest: Any) -> str:
    """Send a mail a minute later, by default a welcome mail; return the state of its delivery."""
    harness.now += timedelta(minutes=1)
    await harness.deliver(mail_command(to, **{**WELCOME, **rest}), id=order_id)
    return await delivery_state(harness, order_id)


async def suppressed(harness: ServiceHarness, *recipients: tuple[str, Any]) -> list[str]:
    """Suppress addresses by a bounce or a complaint, a minute apart; return the IDs of the deliveries."""
    for number, (to, kind) in enumerate(recipients):
        order_id = f"{number:030x}aa"
        harness.now += timedelta(minutes=1)
        await harness.deliver(mail_command(to), id=order_id)
        status = "5.1.1" if kind == "bounced" else None
        await harness.deliver(report(kind, status, order_id=order_id, reason="no such user"))
    rows = await harness.database["deliveries"].find().sort("createdAt").to_list()
    return [row["_id"] for row in rows]


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (["delivered"], "delivered"),
        (["bounced"], "bounced"),
        (["complained"], "delivered"),
        (["delivered", "complained"], "delivered"),
        (["delivered", "bounced"], "bounced"),
        (["delivered", "bounced", "complained"], "bounced"),
    ],
)
async def test_reports_in_any_order_lead_to_the_same_state(
    harness: ServiceHarness, kinds: list[NoticeKind], state: str
) -> None:
    for number, permutation in enumerate(permutations(kinds)):
        order_id = f"{number:032x}"
        await harness.deliver(mail_command(f"person{number}@example.com"), id=order_id)
        for kind in permutation:
            await harness.deliver(report(kind, order_id=order_id))
        assert await delivery_state(harness, order_id) == state, permutation


async def test_bounce_is_stored_with_its_reason_and_published_once(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    for _ in range(2):
        await harness.deliver(report("bounced", "5.1.1", reason="550 no such user"))
    [row] = await delivery_rows(harness)
    assert (row["state"], row["reason"]) == ("bounced", "5.1.1 550 no such user")
    [event] = harness.published_of(MailBounced)
    assert (event.delivery_id, event.template, event.status) == (row["_id"], "magic-link", "5.1.1")


async def test_second_delivery_of_a_report_changes_nothing(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    for _ in range(2):
        await harness.deliver(report("bounced", "5.1.1"), id="f" * 32)
    assert (len(harness.published_of(MailBounced)), len(harness.published_of(AddressSuppressed))) == (1, 1)
    [row] = await delivery_rows(harness)
    assert row["version"] == 2


async def test_suppressed_address_receives_requested_mail_only(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(report("bounced", "5.1.1"))
    [row] = await suppression_rows(harness)
    assert row["cause"] == "bounce"
    assert harness.sealer.matches("recipient", row["_id"], b"person@example.com")
    assert "example.com" not in str(row)
    before = len(server.arrivals)
    templates: list[Template] = ["welcome", "welcome-trial", "trial-ending", "payment-failed", "session-theft"]
    for number, template in enumerate(templates):
        assert await send_later(harness, f"{number:032x}", "PERSON@example.com", template=template) == "suppressed"
    assert len(server.arrivals) == before
    assert await send_later(harness, "e" * 32, "somebody.else@example.com") == "handed_over"
    requested: list[Template] = ["magic-link", "trial-magic-link"]
    for number, template in enumerate(requested):
        assert await send_later(harness, f"{number:031x}f", template=template, variables=None) == "handed_over"


async def test_suppressed_delivery_has_a_reason_and_no_retry(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(report("complained"))
    assert await send_later(harness, "1" * 32) == "suppressed"
    row = await harness.database["deliveries"].find_one({"orderId": "1" * 32})
    assert row is not None
    assert (row["reason"], row["attempts"]) == ("complaint", 0)
    assert await harness.delayed() == []
    await harness.deliver(mail_command(order_id="1" * 32, attempt=2, **WELCOME))
    assert len(server.arrivals) == 1


async def test_retry_is_not_sent_to_an_address_suppressed_since(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    server.reply_to("RCPT", "450 4.2.1 later")
    assert await send_later(harness, "1" * 32) == "queued"
    server.answers.clear()
    await harness.deliver(report("bounced", "5.1.1"))
    await harness.deliver(mail_command(order_id="1" * 32, attempt=2, **WELCOME))
    assert await delivery_state(harness, "1" * 32) == "suppressed"
    assert len(server.arrivals) == 1


@pytest.mark.parametrize(
    ("status", "suppresses"), [(None, True), ("5.1.1", True), ("5.2.1", True), ("5.2.2", False), ("5.7.1", False)]
)
async def test_only_a_bounce_about_the_address_suppresses_it(
    harness: ServiceHarness, status: str | None, *, suppresses: bool
) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(report("bounced", status))
    assert bool(await suppression_rows(harness)) is suppresses


async def test_more_precise_code_in_the_reply_is_stored_and_published(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(report("bounced", "5.0.0", reason="550 5.1.1 no such user"))
    [row] = await delivery_rows(harness)
    assert row["reason"] == "5.1.1 550 5.1.1 no such user"
    assert [event.status for event in harness.published_of(MailBounced)] == ["5.1.1"]
    assert len(await suppression_rows(harness)) == 1


@pytest.mark.parametrize(
    ("reply", "suppresses"),
    [
        ("550 5.1.1 no such user", True),
        ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", True),
        ("550 5.1.1 too many recipients this hour", False),
        ("550 go away", False),
    ],
)
async def test_rejection_of_a_dead_address_suppresses_it_at_once(
    harness: ServiceHarness, server: SmtpServer, reply: str, *, suppresses: bool
) -> None:
    server.reply_to("RCPT", reply)
    await harness.deliver(mail_command(), id=ORDER_ID)
    assert await delivery_state(harness) == "failed"
    assert bool(await suppression_rows(harness)) is suppresses
    assert bool(harness.published_of(AddressSuppressed)) is suppresses


async def test_later_delivery_lifts_a_bounce_but_no_complaint(harness: ServiceHarness) -> None:
    for kind, remaining in (("bounced", 0), ("complained", 1)):
        to = f"{kind}@example.com"
        first, second = f"{len(kind):032x}", f"{len(kind):031x}f"
        await harness.deliver(mail_command(to), id=first)
        await harness.deliver(report(kind, order_id=first))
        # The delivery of the mail that bounced, or of an older one, proves nothing.
        await harness.deliver(report("delivered", order_id=first))
        assert len(await suppression_rows(harness)) == 1
        await send_later(harness, second, to, template="magic-link", variables=None)
        await harness.deliver(report("delivered", order_id=second))
        assert len(await suppression_rows(harness)) == remaining


async def test_complaint_replaces_a_bounce_but_not_vice_versa(harness: ServiceHarness) -> None:
    for number, kinds in enumerate((("bounced", "complained"), ("complained", "bounced"))):
        order_id = f"{number:032x}"
        await harness.deliver(mail_command(f"person{number}@example.com"), id=order_id)
        for kind in kinds:
            await harness.deliver(report(kind, order_id=order_id))  # type: ignore[arg-type]
    assert {row["cause"] for row in await suppression_rows(harness)} == {"complaint"}


async def test_address_stays_suppressed_after_a_key_rotation(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(report("bounced", "5.1.1"))
    rotated = Sealer({"new": bytes(range(1, 33)), "test": bytes(range(32))})
    suppression = await harness.context.suppressions.find(rotated.keyed_hashes("recipient", b"person@example.com"))
    assert suppression is not None


async def test_address_has_one_entry_after_a_key_rotation(harness: ServiceHarness) -> None:
    await suppressed(harness, ("person@example.com", "bounced"))
    rotated = Sealer({"new": bytes(range(1, 33)), "test": bytes(range(32))})
    object.__setattr__(harness.context, "sealer", rotated)
    await harness.deliver(mail_command(), id="b" * 32)
    await harness.deliver(report("complained", order_id="b" * 32))
    [row] = await suppression_rows(harness)
    assert row["cause"] == "complaint"
    assert len(harness.published_of(AddressSuppressed)) == 2
    await harness.deliver(LiftSuppression(recipient=Sealed.of("person@example.com"), although_complained=True))
    assert await suppression_rows(harness) == []
    assert await send_later(harness, "1" * 32, **WELCOME) == "handed_over"


@pytest.mark.parametrize(
    "spelling", ["person@b\u00fccher.example", "PERSON@xn--BCHER-kva.example", "person@\uff42\u00fccher\u3002example"]
)
async def test_suppressed_address_is_found_in_any_spelling(harness: ServiceHarness, spelling: str) -> None:
    await suppressed(harness, ("person@b\u00fccher.example", "bounced"))
    assert await send_later(harness, "1" * 32, spelling, **WELCOME) == "suppressed"
    await harness.deliver(LiftSuppression(recipient=Sealed.of(spelling)))
    assert await suppression_rows(harness) == []


async def test_suppression_of_an_earlier_release_is_found(harness: ServiceHarness) -> None:
    written = "person@b\u00fccher.example"
    await suppressed(harness, (written, "bounced"))
    [row] = await suppression_rows(harness)
    await harness.database["suppressions"].delete_one({"_id": row["_id"]})
    await harness.database["suppressions"].insert_one(
        {**row, "_id": harness.sealer.keyed_hash("recipient", written.encode())}
    )
    assert await send_later(harness, "1" * 32, written, **WELCOME) == "suppressed"


async def test_report_waits_for_its_delivery(harness: ServiceHarness) -> None:
    await harness.deliver(report("bounced", "5.1.1"))
    [(at, retry)] = await harness.delayed()
    assert at - harness.now <= timedelta(seconds=5)
    await harness.deliver(mail_command(), id=ORDER_ID)
    harness.now = at
    await harness.deliver(retry.model_copy(update={"key": ORDER_ID}))
    assert await delivery_state(harness) == "bounced"


SES_ID = "0100018f3c2b7d5e-6a1b2c3d-0000-4000-8000-0123456789ab-000000"


async def test_mail_under_the_id_of_its_provider_is_found(harness: ServiceHarness, server: SmtpServer) -> None:
    server.reply_to("DATA", f"250 Ok {SES_ID}")
    await harness.deliver(mail_command(), id=ORDER_ID)
    unknown = RecordProviderNotice(key="x", provider_id=SES_ID.replace("f", "e"), notice="bounced", status="5.1.1")
    await harness.deliver(unknown)
    assert await delivery_state(harness) == "handed_over"
    await harness.deliver(RecordProviderNotice(key=SES_ID, provider_id=SES_ID, notice="bounced", status="5.1.1"))
    assert await delivery_state(harness) == "bounced"
    [suppression] = await suppression_rows(harness)
    assert suppression["cause"] == "bounce"


async def test_report_without_a_delivery_is_given_up(harness: ServiceHarness) -> None:
    counters = [UNMATCHED.labels(state)._value for state in ("waiting", "given_up")]
    before = [counter.get() for counter in counters]
    began, message = harness.now, report("bounced", "5.1.1")
    for _ in REPORT_PAUSES:
        await harness.deliver(message)
        [(at, retry)] = await harness.delayed()
        await harness.database[Inbox.TIMERS].delete_many({})
        harness.now = at
        assert isinstance(retry, RecordMailNotice)
        message = retry.model_copy(update={"key": ORDER_ID})
    await harness.deliver(message)
    assert await harness.delayed() == []
    assert [counter.get() for counter in counters] == [count + 1 for count in before]
    assert harness.now - began > timedelta(hours=1)
    assert await suppression_rows(harness) == []


async def test_reported_delivery_ends_the_retries(harness: ServiceHarness, server: SmtpServer) -> None:
    server.drop_after_data = True
    await harness.deliver(mail_command(), id=ORDER_ID)
    assert await delivery_state(harness) == "queued"
    server.drop_after_data = False
    await harness.deliver(report("delivered"))
    await harness.deliver(mail_command(order_id=ORDER_ID, attempt=2))
    assert (await delivery_state(harness), len(server.arrivals)) == ("delivered", 1)


async def list_suppressions(harness: ServiceHarness, **fields: Any) -> Any:
    return await harness.deliver(ListSuppressions(**fields))


async def refusal_of_lift(harness: ServiceHarness, **fields: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        await harness.deliver(LiftSuppression(**fields))
    return refused.value.kind, refused.value.code


async def test_list_has_cause_and_time_but_no_address(harness: ServiceHarness) -> None:
    [first, second] = await suppressed(harness, ("Ada@example.com", "bounced"), ("bob@example.com", "complained"))
    view = await list_suppressions(harness)
    assert view["next_cursor"] is None
    assert [(each["delivery_id"], each["cause"]) for each in view["suppressions"]] == [
        (second, "complaint"),
        (first, "bounce"),
    ]
    bounce = view["suppressions"][1]
    assert (bounce["template"], bounce["reason"]) == ("magic-link", "5.1.1 no such user")
    [row] = [each for each in await suppression_rows(harness) if each["cause"] == "bounce"]
    assert bounce["since"].startswith(row["since"].strftime("%Y-%m-%dT%H:%M"))
    assert "example.com" not in str(view)
    assert row["_id"] not in str(view)


async def test_list_is_filtered_by_address_cause_and_time(harness: ServiceHarness) -> None:
    recipients = [("ada@example.com", "bounced"), ("bob@example.com", "complained"), ("eve@example.com", "bounced")]
    began = harness.now
    ada, bob, eve = await suppressed(harness, *recipients)
    for filters, expected in (
        ({"recipient": Sealed.of(" ADA@example.com ")}, [ada]),
        ({"recipient": Sealed.of("nobody@example.com")}, []),
        ({"cause": "bounce"}, [eve, ada]),
        ({"since": began + timedelta(seconds=90)}, [eve, bob]),
        ({"until": began + timedelta(seconds=90)}, [ada]),
        ({"since": began + timedelta(seconds=90), "until": began + timedelta(seconds=150)}, [bob]),
    ):
        view = await list_suppressions(harness, **filters)
        assert [each["delivery_id"] for each in view["suppressions"]] == expected, filters


async def test_list_is_divided_into_pages(harness: ServiceHarness) -> None:
    ids = await suppressed(harness, *((f"person{number}@example.com", "bounced") for number in range(5)))
    seen, cursor = [], None
    while True:
        page = await list_suppressions(harness, limit=2, cursor=cursor)
        seen += [each["delivery_id"] for each in page["suppressions"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("by_address", [True, False])
async def test_lifted_address_receives_mail_until_it_bounces_again(
    harness: ServiceHarness, *, by_address: bool
) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    assert await send_later(harness, "1" * 32) == "suppressed"
    fields = {"recipient": Sealed.of("person@EXAMPLE.com")} if by_address else {"delivery_id": delivery_id}
    lifted = await harness.deliver(LiftSuppression(**fields))
    assert (lifted["delivery_id"], lifted["cause"], lifted["reason"]) == (delivery_id, "bounce", "5.1.1 no such user")
    assert await suppression_rows(harness) == []
    assert await send_later(harness, "2" * 32) == "handed_over"
    [event] = harness.published_of(SuppressionLifted)
    assert (event.delivery_id, event.cause) == (delivery_id, "bounce")
    await harness.deliver(report("bounced", "5.1.1", order_id="2" * 32))
    assert await send_later(harness, "3" * 32) == "suppressed"


async def test_lifting_a_complaint_requires_a_confirmation(harness: ServiceHarness) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "complained"))
    assert await refusal_of_lift(harness, delivery_id=delivery_id) == ("conflict", "recipient_complained")
    assert await send_later(harness, "1" * 32) == "suppressed"
    await harness.deliver(LiftSuppression(delivery_id=delivery_id, although_complained=True))
    assert await send_later(harness, "2" * 32) == "handed_over"


async def test_lifting_a_missing_suppression_is_refused(harness: ServiceHarness) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    not_found = ("not_found", "suppression_not_found")
    assert await refusal_of_lift(harness, recipient=Sealed.of("nobody@example.com")) == not_found
    assert await refusal_of_lift(harness, delivery_id="delivery_nobody") == not_found
    await harness.deliver(LiftSuppression(delivery_id=delivery_id))
    assert await refusal_of_lift(harness, delivery_id=delivery_id) == not_found


async def test_second_delivery_of_a_lift_keeps_a_later_suppression(harness: ServiceHarness) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    command = LiftSuppression(recipient=Sealed.of("person@example.com"))
    body = encode(command, harness.sealer)
    await harness.deliver(command, id="c" * 32, body=body)
    await send_later(harness, "1" * 32)
    await harness.deliver(report("bounced", "5.1.1", order_id="1" * 32))
    repeated = await harness.deliver(command, id="c" * 32, body=body)
    assert repeated["delivery_id"] == delivery_id
    assert len(await suppression_rows(harness)) == 1
    assert len(harness.published_of(SuppressionLifted)) == 1
