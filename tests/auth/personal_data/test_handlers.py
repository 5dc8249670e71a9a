import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from shared.dead_letters.topics import Page
from shared.ids import new_message_id
from shared.messages import Caller, Command, Sealed
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.messages.auth.users import EnsureUser
from shared.messages.mailer.mails import SendMail
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    ContinueUserProcess,
    EraseUser,
    EraseUserData,
    EraseUserFromAuth,
    ExportUser,
    ExportUserData,
    ExportUserFromAuth,
    FindUser,
    GetUserExport,
    GetUserProcess,
    NoteErasureWait,
)
from shared.personal_data.holdings import Person
from tests.auth.flows import (
    ADDRESS,
    code_in,
    logged_in,
    mailed_link,
    ordered_code,
    redemption,
    refresh,
    refusal,
    send_magic_link,
)
from tests.desk import Desk, Refused

OPERATOR = Caller(kind="internal", client_ip="198.51.100.9")
OTHERS = ("billing", "mailer", "news")


@pytest.fixture
async def desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Auth's desk where nothing lies among the dead letters: those are on Kafka, and have tests of their own."""

    async def none(*_: object, **__: object) -> Page:
        return Page([], None)

    monkeypatch.setattr(desk.context.dead_letters, "oldest", none)
    return desk


def find(value: str, kind: Any = "email") -> FindUser:
    return FindUser(identifier_type=kind, identifier_value=Sealed.of(value))


async def settle(desk: Desk) -> None:
    """Hand auth all that it ordered of itself about people."""
    done = 0
    waiting = {id(message) for _, message in await desk.later()}
    assert not waiting & {id(message) for message in desk.published}
    while done < len(desk.published):
        message = desk.published[done]
        done += 1
        own = isinstance(message, ExportUserFromAuth | EraseUserFromAuth | AddExportedPart | ConfirmErasure)
        if own and isinstance(message, Command) and not getattr(message, "again", False):
            await desk.perform(message)


async def answered_by_others(desk: Desk, process: dict[str, Any], kind: str) -> None:
    for holder in OTHERS:
        if kind == "export":
            await desk.perform(
                AddExportedPart(
                    process_id=process["id"],
                    holder=holder,
                    run=1,
                    number=0,
                    collection="things",
                    documents=Sealed.of(json.dumps([{"id": f"{holder}_1"}])),
                    last=True,
                )
            )
        else:
            await desk.perform(ConfirmErasure(process_id=process["id"], holder=holder))


async def test_a_user_is_found_by_an_address_however_it_is_written(desk: Desk) -> None:
    tokens = await logged_in(desk)
    assert (await desk.perform(find("ANA@Example.com")))["id"] == tokens["user_id"]
    assert await refusal(desk, find("nobody@example.com")) == ("not_found", "not_found")
    assert await refusal(desk, find("not an address")) == ("invalid", "invalid_email")
    assert await refusal(desk, find("12", "phone")) == ("invalid", "invalid_phone_number")


async def test_an_export_asks_every_service_and_is_done_with_the_last_one(desk: Desk) -> None:
    tokens = await logged_in(desk)
    desk.clear()
    process = await desk.perform(ExportUser(user_id=tokens["user_id"]), caller=OPERATOR)
    orders = [message for message in desk.published if isinstance(message, ExportUserData)]
    assert [type(order).service for order in orders] == ["auth", *OTHERS]
    assert [entry.action for entry in desk.audited] == ["export_user"]
    assert (process["kind"], process["state"], process["finished_at"]) == ("export", "running", None)
    await settle(desk)
    running = await desk.perform(GetUserProcess(process_id=process["id"]))
    assert [part["service"] for part in running["services"] if part["done_at"]] == ["auth"]
    assert await refusal(desk, GetUserExport(process_id=process["id"])) == ("conflict", "user_export_not_finished")
    await answered_by_others(desk, process, "export")
    assert (await desk.perform(GetUserProcess(process_id=process["id"])))["state"] == "done"
    document = await desk.perform(GetUserExport(process_id=process["id"]))
    assert document["next_cursor"] is None
    assert document["services"]["billing"] == {"things": [{"id": "billing_1"}]}
    own = document["services"]["auth"]
    assert own["users"][0]["id"] == tokens["user_id"]
    assert own["identifiers"][0]["identifierValue"] == ADDRESS
    assert [len(own[name]) for name in ("authorizations", "access_tokens", "refresh_tokens")] == [1, 1, 1]
    assert own["audit"]
    assert not {"key", "successor", "version"} & set(own["refresh_tokens"][0])


async def test_an_export_is_kept_sealed_and_for_so_long(desk: Desk) -> None:
    tokens = await logged_in(desk)
    process = await desk.perform(ExportUser(user_id=tokens["user_id"]))
    await settle(desk)
    await answered_by_others(desk, process, "export")
    for name in ("user_processes", "user_export_parts"):
        assert ADDRESS not in repr(await desk.database[name].find().to_list())
    desk.now += timedelta(days=7, seconds=1)
    assert await refusal(desk, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")


async def test_a_long_export_comes_in_pages(desk: Desk) -> None:
    tokens = await logged_in(desk)
    process = await desk.perform(ExportUser(user_id=tokens["user_id"]))
    await settle(desk)
    for number in range(3):
        rows = json.dumps([{"id": f"{number}/{row}", "text": "x" * 1000} for row in range(150)])
        part = {"process_id": process["id"], "run": 1, "number": number, "collection": "things"}
        await desk.perform(AddExportedPart(**part, holder="billing", documents=Sealed.of(rows), last=number == 2))
    for holder in ("mailer", "news"):
        part = {"process_id": process["id"], "run": 1, "number": 0, "collection": "things"}
        await desk.perform(AddExportedPart(**part, holder=holder, documents=Sealed.of("[]"), last=True))
    cursor, seen = 0, []
    while cursor is not None:
        page = await desk.perform(GetUserExport(process_id=process["id"], cursor=cursor))
        seen += [row["id"] for row in page["services"].get("billing", {}).get("things", ())]
        assert page["next_cursor"] is None or page["next_cursor"] > cursor
        cursor = page["next_cursor"]
    assert seen == [f"{number}/{row}" for number in range(3) for row in range(150)]


async def test_who_is_erased_is_gone_from_auth_and_logged_out(desk: Desk) -> None:
    tokens = await logged_in(desk, device={"platform": "mac", "beak_id": "b", "fingerprint": "f"})
    open_code = await ordered_code(desk)
    desk.clear()
    process = await desk.perform(EraseUser(user_id=tokens["user_id"], delete_stripe_customer=True), caller=OPERATOR)
    orders = [message for message in desk.published if isinstance(message, EraseUserData)]
    assert [(type(order).service, order.delete_stripe_customer) for order in orders] == [
        (name, True) for name in ("auth", *OTHERS)
    ]
    await settle(desk)
    await answered_by_others(desk, process, "erase")
    done = await desk.perform(GetUserProcess(process_id=process["id"]))
    assert (done["state"], done["expires_at"]) == ("done", None)
    assert desk.said(AccessTokenRevoked)
    assert await refusal(desk, refresh(tokens["refresh_token"])) == ("not_found", "token_not_found")
    assert await refusal(desk, redemption(open_code)) == ("not_found", "token_not_found")
    assert await refusal(desk, find(ADDRESS)) == ("not_found", "not_found")
    for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens", "limits", "familiars"):
        assert await desk.database[name].count_documents({}) == 0, name
    audit = await desk.database["audit"].find({"userId": tokens["user_id"]}).to_list()
    assert [entry["clientIp"] for entry in audit if entry["action"] == "erase_user"] == ["198.51.100.9"]
    assert all(entry["clientIp"] is None for entry in audit if entry["caller"] != "internal")


async def test_nor_does_the_audit_keep_where_their_links_were_ordered_and_tried_from(desk: Desk) -> None:
    person, other = (Caller(kind="anonymous", client_ip=ip) for ip in ("203.0.113.77", "203.0.113.78"))

    async def ordered(caller: Caller, address: str) -> str:
        await desk.perform(send_magic_link(identifier_value=address), caller=caller)
        return code_in(mailed_link(desk, desk.said(SendMail)[-1]))

    code = await ordered(person, ADDRESS)
    assert (await refusal(desk, redemption(code, code_verifier="w" * 43), caller=person))[0] == "invalid"
    tokens = await desk.perform(redemption(code), caller=person)
    await ordered(person, ADDRESS)
    await ordered(other, "bob@example.com")
    before = await desk.database["audit"].find({"clientIp": person.client_ip}).to_list()
    assert {entry["userId"] for entry in before} == {None, tokens["user_id"]}
    await desk.perform(EraseUser(user_id=tokens["user_id"]), caller=OPERATOR)
    await settle(desk)
    left = await desk.database["audit"].find({"clientIp": {"$type": "string"}}).to_list()
    assert {entry["clientIp"] for entry in left} == {other.client_ip, OPERATOR.client_ip}
    kept = {"_id": {"$in": [entry["_id"] for entry in before]}}
    assert await desk.database["audit"].count_documents(kept) == len(before)


async def test_what_was_tried_in_a_login_is_found_by_an_index(desk: Desk) -> None:
    person = Person("user_1", (ADDRESS,), ())
    query = desk.context.people.tried(["authzcode_1", "authzcode_2"]).find(person)
    plan = await desk.database["audit"].find(query).explain()
    assert "COLLSCAN" not in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)


async def test_a_new_login_after_an_erasure_makes_a_new_user(desk: Desk) -> None:
    tokens = await logged_in(desk)
    await desk.perform(EraseUser(user_id=tokens["user_id"]))
    await settle(desk)
    assert (await logged_in(desk))["user_id"] != tokens["user_id"]


async def test_an_erasure_that_comes_twice_is_one(desk: Desk) -> None:
    tokens = await logged_in(desk)
    order, message_id = EraseUser(user_id=tokens["user_id"]), new_message_id()
    answers = [await desk.perform(order, id=message_id) for _ in range(2)]
    later = await desk.perform(order)
    assert answers[0] == answers[1] == later
    assert await desk.database["user_processes"].count_documents({}) == 1
    assert await refusal(desk, EraseUser(user_id="nobody")) == ("not_found", "not_found")
    assert await refusal(desk, ExportUser(user_id=tokens["user_id"])) == ("not_found", "not_found")


async def test_what_no_service_has_done_in_an_hour_is_ordered_again(desk: Desk) -> None:
    tokens = await logged_in(desk)
    process = await desk.perform(EraseUser(user_id=tokens["user_id"]))
    await settle(desk)
    waiting = [message for _, message in await desk.later() if isinstance(message, ContinueUserProcess)]
    desk.clear()
    await desk.perform(waiting[0])
    assert [type(order).service for order in desk.published if isinstance(order, EraseUserData)] == list(OTHERS)
    await answered_by_others(desk, process, "erase")
    desk.clear()
    await desk.perform(ContinueUserProcess(process_id=process["id"]))
    assert desk.published == []


async def test_a_repeated_part_changes_nothing_and_a_late_one_is_dropped(desk: Desk) -> None:
    tokens = await logged_in(desk)
    process = await desk.perform(ExportUser(user_id=tokens["user_id"]))
    for _ in range(2):
        await answered_by_others(desk, process, "export")
    assert await desk.database["user_export_parts"].count_documents({}) == len(OTHERS)
    await desk.perform(ConfirmErasure(process_id="gone", holder="news"))


async def test_a_process_says_whom_a_service_waits_for_until_it_is_done(desk: Desk) -> None:
    tokens = await logged_in(desk)
    process = await desk.perform(EraseUser(user_id=tokens["user_id"]))

    async def mailers() -> dict[str, Any]:
        view = await desk.perform(GetUserProcess(process_id=process["id"]))
        part: dict[str, Any] = next(part for part in view["services"] if part["service"] == "mailer")
        return part

    assert (await mailers())["waits_for"] is None
    noted = {"process_id": process["id"], "holder": "mailer", "waits_for": "mailchimp"}
    await desk.perform(NoteErasureWait(**noted, reason="503 Fault"))
    since = (await mailers())["waits_since"]
    desk.now += timedelta(minutes=1)
    await desk.perform(NoteErasureWait(**noted, reason="401 API Key Invalid"))
    waits = {"waits_for": "mailchimp", "waits_since": since, "reason": "401 API Key Invalid"}
    assert await mailers() == {"service": "mailer", "done_at": None, **waits}
    await desk.perform(ConfirmErasure(process_id=process["id"], holder="mailer"))
    await desk.perform(NoteErasureWait(**noted, reason="late"))
    done = await mailers()
    assert (done["done_at"] is not None, done["waits_for"], done["reason"]) == (True, None, None)
    await desk.perform(NoteErasureWait(**{**noted, "process_id": "gone"}, reason="late"))


async def test_no_link_of_before_makes_a_user_after(desk: Desk) -> None:
    user_id = (await logged_in(desk))["user_id"]
    code = await ordered_code(desk)
    await desk.perform(EraseUser(user_id=user_id))
    # Auth's part has not even begun.
    assert await refusal(desk, redemption(code)) == ("not_found", "token_not_found")
    assert await desk.database["users"].count_documents({}) == 0


async def test_of_a_link_and_an_erasure_at_once_the_link_is_unknown_or_its_session_ends(desk: Desk) -> None:
    for _ in range(50):
        user_id = (await logged_in(desk))["user_id"]
        code = await ordered_code(desk)
        orders = [desk.perform(redemption(code)), desk.perform(EraseUser(user_id=user_id))]
        if random.random() < 0.5:
            orders.reverse()
        done = await asyncio.gather(*orders, return_exceptions=True)
        [login] = [each for each in done if not (isinstance(each, dict) and each.get("kind") == "erasure")]
        assert login["user_id"] == user_id if isinstance(login, dict) else isinstance(login, Refused)
        await settle(desk)
        desk.clear()
        for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens"):
            assert await desk.database[name].count_documents({}) == 0, name


async def test_nobody_is_left_with_a_session_by_logging_in_while_being_erased(desk: Desk) -> None:
    for _ in range(20):
        user_id = (await logged_in(desk))["user_id"]
        code = await ordered_code(desk)
        ensure = EnsureUser(reference="other", email=ADDRESS)
        done = await asyncio.gather(
            desk.perform(redemption(code)),
            desk.perform(EraseUser(user_id=user_id)),
            desk.perform(ensure),
            return_exceptions=True,
        )
        assert isinstance(done[1], dict)
        await settle(desk)
        desk.clear()
        known = {document["_id"] async for document in desk.database["users"].find()}
        assert user_id not in known
        for name in ("identifiers", "access_tokens", "refresh_tokens"):
            assert await desk.database[name].count_documents({"userId": user_id}) == 0


async def test_an_export_goes_with_its_user_finished_or_not(desk: Desk) -> None:
    tokens = await logged_in(desk)
    finished, running = [await desk.perform(ExportUser(user_id=tokens["user_id"])) for _ in range(2)]
    await settle(desk)
    await answered_by_others(desk, finished, "export")
    desk.clear()
    await desk.perform(EraseUser(user_id=tokens["user_id"]))
    await settle(desk)
    await answered_by_others(desk, running, "export")
    assert await desk.database["user_export_parts"].count_documents({}) == 0
    for process in (finished, running):
        assert await refusal(desk, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")
