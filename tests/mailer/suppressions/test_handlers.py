"""What operators see of addresses that get no mail, and how they end it."""

from datetime import timedelta
from typing import Any

import pytest

from shared.bus.envelope import encode
from shared.messages import Sealed
from shared.messages.mailer.mail_reports import AddressSuppressed
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions, SuppressionLifted
from shared.sealing import Sealer
from tests.mailer.mails.test_handlers import order
from tests.mailer.smtp_server import SmtpServer
from tests.mailer.suppressions.test_mail_reports import WELCOME, later_order, notice, suppressions
from tests.service_harness import Refused, ServiceHarness


async def suppressed(harness: ServiceHarness, *people: tuple[str, Any]) -> list[str]:
    """Some addresses that a bounce or a complaint has suppressed, a minute apart; the mails that showed it."""
    for number, (to, kind) in enumerate(people):
        order_id = f"{number:030x}aa"
        harness.now += timedelta(minutes=1)
        await harness.deliver(order(to), id=order_id)
        status = "5.1.1" if kind == "bounced" else None
        await harness.deliver(notice(kind, status, order_id=order_id, reason="no such user"))
    rows = await harness.database["deliveries"].find().sort("createdAt").to_list()
    return [row["_id"] for row in rows]


async def listed(harness: ServiceHarness, **asked: Any) -> Any:
    return await harness.deliver(ListSuppressions(**asked))


async def refusal(harness: ServiceHarness, **asked: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        await harness.deliver(LiftSuppression(**asked))
    return refused.value.kind, refused.value.code


async def test_a_list_says_why_and_since_when_and_never_whom(harness: ServiceHarness) -> None:
    [first, second] = await suppressed(harness, ("Ada@example.com", "bounced"), ("bob@example.com", "complained"))
    answer = await listed(harness)
    assert answer["next_cursor"] is None
    assert [(each["delivery_id"], each["cause"]) for each in answer["suppressions"]] == [
        (second, "complaint"),
        (first, "bounce"),
    ]
    ada = answer["suppressions"][1]
    assert (ada["template"], ada["reason"]) == ("magic-link", "5.1.1 no such user")
    [row] = [each for each in await suppressions(harness) if each["cause"] == "bounce"]
    assert ada["since"].startswith(row["since"].strftime("%Y-%m-%dT%H:%M"))
    assert "example.com" not in str(answer)
    assert row["_id"] not in str(answer)


async def test_a_list_is_filtered_by_address_cause_and_time(harness: ServiceHarness) -> None:
    people = [("ada@example.com", "bounced"), ("bob@example.com", "complained"), ("eve@example.com", "bounced")]
    began = harness.now
    ada, bob, eve = await suppressed(harness, *people)
    for asked, found in (
        ({"recipient": Sealed.of(" ADA@example.com ")}, [ada]),
        ({"recipient": Sealed.of("nobody@example.com")}, []),
        ({"cause": "bounce"}, [eve, ada]),
        ({"since": began + timedelta(seconds=90)}, [eve, bob]),
        ({"until": began + timedelta(seconds=90)}, [ada]),
        ({"since": began + timedelta(seconds=90), "until": began + timedelta(seconds=150)}, [bob]),
    ):
        assert [each["delivery_id"] for each in (await listed(harness, **asked))["suppressions"]] == found, asked


async def test_a_list_is_read_page_by_page(harness: ServiceHarness) -> None:
    ids = await suppressed(harness, *((f"person{number}@example.com", "bounced") for number in range(5)))
    seen, cursor = [], None
    while True:
        page = await listed(harness, limit=2, cursor=cursor)
        seen += [each["delivery_id"] for each in page["suppressions"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("by_address", [True, False])
async def test_a_lifted_address_gets_mails_again_until_it_bounces_anew(
    harness: ServiceHarness, server: SmtpServer, *, by_address: bool
) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    assert await later_order(harness, "1" * 32) == "suppressed"
    named = {"recipient": Sealed.of("person@EXAMPLE.com")} if by_address else {"delivery_id": delivery_id}
    lifted = await harness.deliver(LiftSuppression(**named))
    assert (lifted["delivery_id"], lifted["cause"], lifted["reason"]) == (delivery_id, "bounce", "5.1.1 no such user")
    assert await suppressions(harness) == []
    assert await later_order(harness, "2" * 32) == "handed_over"
    [said] = harness.published_of(SuppressionLifted)
    assert (said.delivery_id, said.cause) == (delivery_id, "bounce")
    await harness.deliver(notice("bounced", "5.1.1", order_id="2" * 32))
    assert await later_order(harness, "3" * 32) == "suppressed"


async def test_a_complaint_is_lifted_only_by_who_says_that_the_person_wants_mails_again(
    harness: ServiceHarness,
) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "complained"))
    assert await refusal(harness, delivery_id=delivery_id) == ("conflict", "recipient_complained")
    assert await later_order(harness, "1" * 32) == "suppressed"
    await harness.deliver(LiftSuppression(delivery_id=delivery_id, although_complained=True))
    assert await later_order(harness, "2" * 32) == "handed_over"


async def test_what_is_not_suppressed_can_not_be_lifted(harness: ServiceHarness) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    not_found = ("not_found", "suppression_not_found")
    assert await refusal(harness, recipient=Sealed.of("nobody@example.com")) == not_found
    assert await refusal(harness, delivery_id="delivery_nobody") == not_found
    await harness.deliver(LiftSuppression(delivery_id=delivery_id))
    assert await refusal(harness, delivery_id=delivery_id) == not_found


async def test_second_delivery_of_a_lift_lifts_nothing_that_came_after_it(harness: ServiceHarness) -> None:
    [delivery_id] = await suppressed(harness, ("Person@example.com", "bounced"))
    command = LiftSuppression(recipient=Sealed.of("person@example.com"))
    body = encode(command, harness.sealer)
    await harness.deliver(command, id="c" * 32, body=body)
    await later_order(harness, "1" * 32)
    await harness.deliver(notice("bounced", "5.1.1", order_id="1" * 32))
    again = await harness.deliver(command, id="c" * 32, body=body)
    assert again["delivery_id"] == delivery_id
    assert len(await suppressions(harness)) == 1
    assert len(harness.published_of(SuppressionLifted)) == 1


async def test_an_address_has_one_row_whatever_sealing_key_it_was_written_down_under(harness: ServiceHarness) -> None:
    await suppressed(harness, ("person@example.com", "bounced"))
    rotated = Sealer({"new": bytes(range(1, 33)), "test": bytes(range(32))})
    object.__setattr__(harness.context, "sealer", rotated)
    await harness.deliver(order(), id="b" * 32)
    await harness.deliver(notice("complained", order_id="b" * 32))
    [row] = await suppressions(harness)
    assert row["cause"] == "complaint"
    assert len(harness.published_of(AddressSuppressed)) == 2
    await harness.deliver(LiftSuppression(recipient=Sealed.of("person@example.com"), although_complained=True))
    assert await suppressions(harness) == []
    assert await later_order(harness, "1" * 32, **WELCOME) == "handed_over"
