"""What the mailer hands over, removes and keeps when a person is exported or erased."""

import json
from typing import Any

from shared.messages import Sealed
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.messages.mailer.mail_reports import AddressSuppressed, MailBounced, RecordMailNotice
from shared.messages.mailer.mails import LinkVariables, SendMail
from shared.messages.personal_data import AddExportedPart, ConfirmErasure, EraseUserFromMailer, ExportUserFromMailer
from tests.desk import Desk

USER, ADDRESS = "user_1", "ada@example.com"


def about() -> dict[str, Any]:
    known = Sealed.of(json.dumps([["email", ADDRESS], ["phone", "+41791234567"]]))
    return {"process_id": "userproc_1", "user_id": USER, "identifiers": known}


async def written_to(desk: Desk, address: str) -> None:
    variables = LinkVariables(link="https://app.example/cb?code=1")
    await desk.perform(
        SendMail(template="magic-link", to=Sealed.of(address), variables=Sealed.of(variables.model_dump_json()))
    )


async def test_deliveries_and_consent_are_handed_over(desk: Desk) -> None:
    await written_to(desk, "Ada@Example.com")
    await written_to(desk, "bob@example.com")
    await desk.perform(RecordMarketingConsent(user_id=USER, level="general", source="user"))
    desk.clear()
    waiting: list[Any] = [ExportUserFromMailer(**about(), run=1)]
    held: dict[str, list[Any]] = {}
    while waiting:
        await desk.perform(waiting.pop())
        waiting = desk.said(ExportUserFromMailer)
        for part in desk.said(AddExportedPart):
            held.setdefault(part.collection, []).extend(json.loads(desk.reveal("auth", part.documents)))
        desk.clear()
    assert [delivery["recipient"] for delivery in held["deliveries"]] == ["Ada@Example.com"]
    assert "recipientHash" not in held["deliveries"][0]
    assert [consent["level"] for consent in held["marketing_consents"]] == ["general"]


async def test_of_deliveries_to_an_erased_person_stays_that_they_were_sent(desk: Desk) -> None:
    await written_to(desk, ADDRESS)
    await written_to(desk, "bob@example.com")
    await desk.perform(RecordMarketingConsent(user_id=USER, level="general", source="user"))
    desk.clear()
    for _ in range(2):
        await desk.perform(EraseUserFromMailer(**about()))
    assert {confirmed.holder for confirmed in desk.said(ConfirmErasure)} == {"mailer"}
    assert await desk.database["marketing_consents"].count_documents({}) == 0
    deliveries = await desk.database["deliveries"].find().sort("createdAt").to_list()
    assert [delivery["state"] for delivery in deliveries] == ["handed_over", "handed_over"]
    assert [bool(delivery["recipient"]) for delivery in deliveries] == [False, True]
    assert [bool(delivery["recipientHash"]) for delivery in deliveries] == [False, True]


async def test_a_day_later_what_was_on_its_way_is_removed_too_and_confirmed_no_more(desk: Desk) -> None:
    await desk.perform(EraseUserFromMailer(**about()))
    [(_, again)] = [(at, message) for at, message in await desk.later() if isinstance(message, EraseUserFromMailer)]
    await written_to(desk, ADDRESS)
    desk.clear()
    await desk.perform(again)
    assert desk.said(ConfirmErasure) == []
    assert [delivery["recipient"] for delivery in await desk.database["deliveries"].find().to_list()] == [""]


async def test_a_bounce_that_comes_late_says_nothing_of_whom_it_came_back_from(desk: Desk) -> None:
    await written_to(desk, ADDRESS)
    await desk.perform(EraseUserFromMailer(**about()))
    [before] = await desk.database["deliveries"].find().to_list()
    desk.clear()
    for kind in ("delivered", "bounced", "complained"):
        notice = RecordMailNotice(
            key="order", order_id=before["orderId"], notice=kind, status="5.1.1", reason=f"no such user {ADDRESS}"
        )
        await desk.perform(notice)
    assert await desk.database["deliveries"].find().to_list() == [before]
    assert await desk.database["suppressions"].count_documents({}) == 0
    assert desk.said(MailBounced) == desk.said(AddressSuppressed) == []


async def test_a_suppressed_address_stays_suppressed_and_readable_to_nobody(desk: Desk) -> None:
    await written_to(desk, ADDRESS)
    [delivery] = await desk.database["deliveries"].find().to_list()
    await desk.perform(
        RecordMailNotice(key="order", order_id=delivery["orderId"], notice="complained", reason=f"by {ADDRESS}")
    )
    await desk.perform(EraseUserFromMailer(**about()))
    [kept] = await desk.database["suppressions"].find().to_list()
    assert set(kept) == {"_id", "cause", "deliveryId", "since", "version"}
    assert kept["_id"] in desk.sealer.keyed_hashes("recipient", ADDRESS.encode())
