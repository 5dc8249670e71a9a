import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from shared.dead_letters.queue import Page
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
from shared.personal_data.subjects import DataSubject
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
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal", client_ip="198.51.100.9")
OTHERS = ("billing", "mailer", "news")


@pytest.fixture
async def harness(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> ServiceHarness:
    """Auth's harness where nothing lies among the dead letters: those are on Kafka, and have tests of their own."""

    async def none(*_: object, **__: object) -> Page:
        return Page([], None)

    monkeypatch.setattr(harness.context.dead_letters, "oldest", none)
    return harness


def find(value: str, kind: Any = "email") -> FindUser:
    return FindUser(identifier_type=kind, identifier_value=Sealed.of(value))


async def settle(harness: ServiceHarness) -> None:
    """Hand auth all that it ordered of itself about people."""
    done = 0
    waiting = {id(message) for _, message in await harness.delayed()}
    assert not waiting & {id(message) for message in harness.published}
    while done < len(harness.published):
        message = harness.published[done]
        done += 1
        own = isinstance(message, ExportUserFromAuth | EraseUserFromAuth | AddExportedPart | ConfirmErasure)
        if own and isinstance(message, Command) and not getattr(message, "again", False):
            await harness.deliver(message)


async def answered_by_others(harness: ServiceHarness, process: dict[str, Any], kind: str) -> None:
    for holder in OTHERS:
        if kind == "export":
            await harness.deliver(
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
            await harness.deliver(ConfirmErasure(process_id=process["id"], holder=holder))


async def test_a_user_is_found_by_an_address_however_it_is_written(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    assert (await harness.deliver(find("ANA@Example.com")))["id"] == tokens["user_id"]
    assert await refusal(harness, find("nobody@example.com")) == ("not_found", "not_found")
    assert await refusal(harness, find("not an address")) == ("invalid", "invalid_email")
    assert await refusal(harness, find("12", "phone")) == ("invalid", "invalid_phone_number")


async def test_an_export_asks_every_service_and_is_done_with_the_last_one(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    harness.clear()
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]), caller=OPERATOR)
    orders = [message for message in harness.published if isinstance(message, ExportUserData)]
    assert [type(order).service for order in orders] == ["auth", *OTHERS]
    assert [entry.action for entry in harness.audited] == ["export_user"]
    assert (process["kind"], process["state"], process["finished_at"]) == ("export", "running", None)
    await settle(harness)
    running = await harness.deliver(GetUserProcess(process_id=process["id"]))
    assert [part["service"] for part in running["services"] if part["done_at"]] == ["auth"]
    assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("conflict", "user_export_not_finished")
    await answered_by_others(harness, process, "export")
    assert (await harness.deliver(GetUserProcess(process_id=process["id"])))["state"] == "done"
    document = await harness.deliver(GetUserExport(process_id=process["id"]))
    assert document["next_cursor"] is None
    assert document["services"]["billing"] == {"things": [{"id": "billing_1"}]}
    own = document["services"]["auth"]
    assert own["users"][0]["id"] == tokens["user_id"]
    assert own["identifiers"][0]["identifierValue"] == ADDRESS
    assert [len(own[name]) for name in ("authorizations", "access_tokens", "refresh_tokens")] == [1, 1, 1]
    assert own["audit"]
    assert not {"key", "successor", "version"} & set(own["refresh_tokens"][0])


async def test_an_export_is_kept_sealed_and_for_so_long(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    await settle(harness)
    await answered_by_others(harness, process, "export")
    for name in ("user_processes", "user_export_parts"):
        assert ADDRESS not in repr(await harness.database[name].find().to_list())
    harness.now += timedelta(days=7, seconds=1)
    assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")


async def test_a_long_export_comes_in_pages(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    await settle(harness)
    for number in range(3):
        rows = json.dumps([{"id": f"{number}/{row}", "text": "x" * 1000} for row in range(150)])
        part = {"process_id": process["id"], "run": 1, "number": number, "collection": "things"}
        await harness.deliver(AddExportedPart(**part, holder="billing", documents=Sealed.of(rows), last=number == 2))
    for holder in ("mailer", "news"):
        part = {"process_id": process["id"], "run": 1, "number": 0, "collection": "things"}
        await harness.deliver(AddExportedPart(**part, holder=holder, documents=Sealed.of("[]"), last=True))
    cursor, seen = 0, []
    while cursor is not None:
        page = await harness.deliver(GetUserExport(process_id=process["id"], cursor=cursor))
        seen += [row["id"] for row in page["services"].get("billing", {}).get("things", ())]
        assert page["next_cursor"] is None or page["next_cursor"] > cursor
        cursor = page["next_cursor"]
    assert seen == [f"{number}/{row}" for number in range(3) for row in range(150)]


async def test_who_is_erased_is_gone_from_auth_and_logged_out(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness, device={"platform": "mac", "beak_id": "b", "fingerprint": "f"})
    open_code = await ordered_code(harness)
    harness.clear()
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"], delete_stripe_customer=True), caller=OPERATOR)
    orders = [message for message in harness.published if isinstance(message, EraseUserData)]
    assert [(type(order).service, order.delete_stripe_customer) for order in orders] == [
        (name, True) for name in ("auth", *OTHERS)
    ]
    await settle(harness)
    await answered_by_others(harness, process, "erase")
    done = await harness.deliver(GetUserProcess(process_id=process["id"]))
    assert (done["state"], done["expires_at"]) == ("done", None)
    assert harness.published_of(AccessTokenRevoked)
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("not_found", "token_not_found")
    assert await refusal(harness, redemption(open_code)) == ("not_found", "token_not_found")
    assert await refusal(harness, find(ADDRESS)) == ("not_found", "not_found")
    for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens", "limits", "familiars"):
        assert await harness.database[name].count_documents({}) == 0, name
    audit = await harness.database["audit"].find({"userId": tokens["user_id"]}).to_list()
    assert [entry["clientIp"] for entry in audit if entry["action"] == "erase_user"] == ["198.51.100.9"]
    assert all(entry["clientIp"] is None for entry in audit if entry["caller"] != "internal")


async def test_nor_does_the_audit_keep_where_their_links_were_ordered_and_tried_from(harness: ServiceHarness) -> None:
    person, other = (Caller(kind="anonymous", client_ip=ip) for ip in ("203.0.113.77", "203.0.113.78"))

    async def ordered(caller: Caller, address: str) -> str:
        await harness.deliver(send_magic_link(identifier_value=address), caller=caller)
        return code_in(mailed_link(harness, harness.published_of(SendMail)[-1]))

    code = await ordered(person, ADDRESS)
    assert (await refusal(harness, redemption(code, code_verifier="w" * 43), caller=person))[0] == "invalid"
    tokens = await harness.deliver(redemption(code), caller=person)
    await ordered(person, ADDRESS)
    await ordered(other, "bob@example.com")
    before = await harness.database["audit"].find({"clientIp": person.client_ip}).to_list()
    assert {entry["userId"] for entry in before} == {None, tokens["user_id"]}
    await harness.deliver(EraseUser(user_id=tokens["user_id"]), caller=OPERATOR)
    await settle(harness)
    left = await harness.database["audit"].find({"clientIp": {"$type": "string"}}).to_list()
    assert {entry["clientIp"] for entry in left} == {other.client_ip, OPERATOR.client_ip}
    kept = {"_id": {"$in": [entry["_id"] for entry in before]}}
    assert await harness.database["audit"].count_documents(kept) == len(before)


async def test_what_was_tried_in_a_login_is_found_by_an_index(harness: ServiceHarness) -> None:
    person = DataSubject("user_1", (ADDRESS,), ())
    query = harness.context.people.tried(["authzcode_1", "authzcode_2"]).query(person)
    plan = await harness.database["audit"].find(query).explain()
    assert "COLLSCAN" not in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)


async def test_a_new_login_after_an_erasure_makes_a_new_user(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await settle(harness)
    assert (await logged_in(harness))["user_id"] != tokens["user_id"]


async def test_an_erasure_that_comes_twice_is_one(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    order, message_id = EraseUser(user_id=tokens["user_id"]), new_message_id()
    answers = [await harness.deliver(order, id=message_id) for _ in range(2)]
    later = await harness.deliver(order)
    assert answers[0] == answers[1] == later
    assert await harness.database["user_processes"].count_documents({}) == 1
    assert await refusal(harness, EraseUser(user_id="nobody")) == ("not_found", "not_found")
    assert await refusal(harness, ExportUser(user_id=tokens["user_id"])) == ("not_found", "not_found")


async def test_what_no_service_has_done_in_an_hour_is_ordered_again(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await settle(harness)
    waiting = [message for _, message in await harness.delayed() if isinstance(message, ContinueUserProcess)]
    harness.clear()
    await harness.deliver(waiting[0])
    assert [type(order).service for order in harness.published if isinstance(order, EraseUserData)] == list(OTHERS)
    await answered_by_others(harness, process, "erase")
    harness.clear()
    await harness.deliver(ContinueUserProcess(process_id=process["id"]))
    assert harness.published == []


async def test_a_repeated_part_changes_nothing_and_a_late_one_is_dropped(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    for _ in range(2):
        await answered_by_others(harness, process, "export")
    assert await harness.database["user_export_parts"].count_documents({}) == len(OTHERS)
    await harness.deliver(ConfirmErasure(process_id="gone", holder="news"))


async def test_a_process_says_whom_a_service_waits_for_until_it_is_done(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"]))

    async def mailers() -> dict[str, Any]:
        view = await harness.deliver(GetUserProcess(process_id=process["id"]))
        part: dict[str, Any] = next(part for part in view["services"] if part["service"] == "mailer")
        return part

    assert (await mailers())["waits_for"] is None
    noted = {"process_id": process["id"], "holder": "mailer", "waits_for": "mailchimp"}
    await harness.deliver(NoteErasureWait(**noted, reason="503 Fault"))
    since = (await mailers())["waits_since"]
    harness.now += timedelta(minutes=1)
    await harness.deliver(NoteErasureWait(**noted, reason="401 API Key Invalid"))
    waits = {"waits_for": "mailchimp", "waits_since": since, "reason": "401 API Key Invalid"}
    assert await mailers() == {"service": "mailer", "done_at": None, **waits}
    await harness.deliver(ConfirmErasure(process_id=process["id"], holder="mailer"))
    await harness.deliver(NoteErasureWait(**noted, reason="late"))
    done = await mailers()
    assert (done["done_at"] is not None, done["waits_for"], done["reason"]) == (True, None, None)
    await harness.deliver(NoteErasureWait(**{**noted, "process_id": "gone"}, reason="late"))


async def test_no_link_of_before_makes_a_user_after(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    code = await ordered_code(harness)
    await harness.deliver(EraseUser(user_id=user_id))
    # Auth's part has not even begun.
    assert await refusal(harness, redemption(code)) == ("not_found", "token_not_found")
    assert await harness.database["users"].count_documents({}) == 0


async def test_of_a_link_and_an_erasure_at_once_the_link_is_unknown_or_its_session_ends(
    harness: ServiceHarness,
) -> None:
    for _ in range(50):
        user_id = (await logged_in(harness))["user_id"]
        code = await ordered_code(harness)
        orders = [harness.deliver(redemption(code)), harness.deliver(EraseUser(user_id=user_id))]
        if random.random() < 0.5:
            orders.reverse()
        done = await asyncio.gather(*orders, return_exceptions=True)
        [login] = [each for each in done if not (isinstance(each, dict) and each.get("kind") == "erasure")]
        assert login["user_id"] == user_id if isinstance(login, dict) else isinstance(login, Refused)
        await settle(harness)
        harness.clear()
        for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens"):
            assert await harness.database[name].count_documents({}) == 0, name


async def test_nobody_is_left_with_a_session_by_logging_in_while_being_erased(harness: ServiceHarness) -> None:
    for _ in range(20):
        user_id = (await logged_in(harness))["user_id"]
        code = await ordered_code(harness)
        ensure = EnsureUser(reference="other", email=ADDRESS)
        done = await asyncio.gather(
            harness.deliver(redemption(code)),
            harness.deliver(EraseUser(user_id=user_id)),
            harness.deliver(ensure),
            return_exceptions=True,
        )
        assert isinstance(done[1], dict)
        await settle(harness)
        harness.clear()
        known = {document["_id"] async for document in harness.database["users"].find()}
        assert user_id not in known
        for name in ("identifiers", "access_tokens", "refresh_tokens"):
            assert await harness.database[name].count_documents({"userId": user_id}) == 0


async def test_an_export_goes_with_its_user_finished_or_not(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    finished, running = [await harness.deliver(ExportUser(user_id=tokens["user_id"])) for _ in range(2)]
    await settle(harness)
    await answered_by_others(harness, finished, "export")
    harness.clear()
    await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await settle(harness)
    await answered_by_others(harness, running, "export")
    assert await harness.database["user_export_parts"].count_documents({}) == 0
    for process in (finished, running):
        assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")
