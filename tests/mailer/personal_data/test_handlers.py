"""What the mailer hands over, removes and keeps when a person is exported or erased."""

import json
from typing import Any

from shared.messages import Sealed
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.messages.mailer.mail_reports import AddressSuppressed, MailBounced, RecordMailNotice
from shared.messages.mailer.mails import LinkVariables, SendMail
from shared.messages.personal_data import AddExportedPart, ConfirmErasure, EraseUserFromMailer, ExportUserFromMailer
from tests.service_harness import ServiceHarness

USER, ADDRESS = "user_1", "ada@example.com"


def about() -> dict[str, Any]:
    known = Sealed.of(json.dumps([["email", ADDRESS], ["phone", "+41791234567"]]))
    return {"process_id": "userproc_1", "user_id": USER, "identifiers": known}


async def written_to(harness: ServiceHarness, address: str) -> None:
    variables = LinkVariables(link="https://app.example/cb?code=1")
    await harness.deliver(
        SendMail(template="magic-link", to=Sealed.of(address), variables=Sealed.of(variables.model_dump_json()))
    )


async def test_deliveries_and_consent_are_handed_over(harness: ServiceHarness) -> None:
    await written_to(harness, "Ada@Example.com")
    await written_to(harness, "bob@example.com")
    await harness.deliver(RecordMarketingConsent(user_id=USER, level="general", source="user"))
    harness.clear()
    waiting: list[Any] = [ExportUserFromMailer(**about(), run=1)]
    held: dict[str, list[Any]] = {}
    while waiting:
        await harness.deliver(waiting.pop())
        waiting = harness.published_of(ExportUserFromMailer)
        for part in harness.published_of(AddExportedPart):
            held.setdefault(part.collection, []).extend(json.loads(harness.unseal_secret("auth", part.documents)))
        harness.clear()
    assert [delivery["recipient"] for delivery in held["deliveries"]] == ["Ada@Example.com"]
    assert "recipientHash" not in held["deliveries"][0]
    assert [consent["level"] for consent in held["marketing_consents"]] == ["general"]


async def test_of_deliveries_to_an_erased_person_stays_that_they_were_sent(harness: ServiceHarness) -> None:
    await written_to(harness, ADDRESS)
    await written_to(harness, "bob@example.com")
    await harness.deliver(RecordMarketingConsent(user_id=USER, level="general", source="user"))
    harness.clear()
    for _ in range(2):
        await harness.deliver(EraseUserFromMailer(**about()))
    assert {confirmed.holder for confirmed in harness.published_of(ConfirmErasure)} == {"mailer"}
    assert await harness.database["marketing_consents"].count_documents({}) == 0
    deliveries = await harness.database["deliveries"].find().sort("createdAt").to_list()
    assert [delivery["state"] for delivery in deliveries] == ["handed_over", "handed_over"]
    assert [bool(delivery["recipient"]) for delivery in deliveries] == [False, True]
    assert [bool(delivery["recipientHash"]) for delivery in deliveries] == [False, True]


async def test_a_day_later_what_was_on_its_way_is_removed_too_and_confirmed_no_more(harness: ServiceHarness) -> None:
    await harness.deliver(EraseUserFromMailer(**about()))
    [(_, again)] = [
        (at, message) for at, message in await harness.delayed() if isinstance(message, EraseUserFromMailer)
    ]
    await written_to(harness, ADDRESS)
    harness.clear()
    await harness.deliver(again)
    assert harness.published_of(ConfirmErasure) == []
    assert [delivery["recipient"] for delivery in await harness.database["deliveries"].find().to_list()] == [""]


async def test_a_bounce_that_comes_late_says_nothing_of_whom_it_came_back_from(harness: ServiceHarness) -> None:
    await written_to(harness, ADDRESS)
    await harness.deliver(EraseUserFromMailer(**about()))
    [before] = await harness.database["deliveries"].find().to_list()
    harness.clear()
    for kind in ("delivered", "bounced", "complained"):
        notice = RecordMailNotice(
            key="order", order_id=before["orderId"], notice=kind, status="5.1.1", reason=f"no such user {ADDRESS}"
        )
        await harness.deliver(notice)
    assert await harness.database["deliveries"].find().to_list() == [before]
    assert await harness.database["suppressions"].count_documents({}) == 0
    assert harness.published_of(MailBounced) == harness.published_of(AddressSuppressed) == []


async def test_a_suppressed_address_stays_suppressed_and_readable_to_nobody(harness: ServiceHarness) -> None:
    await written_to(harness, ADDRESS)
    [delivery] = await harness.database["deliveries"].find().to_list()
    await harness.deliver(
        RecordMailNotice(key="order", order_id=delivery["orderId"], notice="complained", reason=f"by {ADDRESS}")
    )
    await harness.deliver(EraseUserFromMailer(**about()))
    [kept] = await harness.database["suppressions"].find().to_list()
    assert set(kept) == {"_id", "cause", "deliveryId", "since", "version"}
    assert kept["_id"] in harness.sealer.keyed_hashes("recipient", ADDRESS.encode())
