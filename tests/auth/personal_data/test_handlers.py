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
    code_of,
    log_in,
    mailed_link,
    redemption,
    refresh,
    refusal,
    request_code,
    send_magic_link,
    store_access_tokens_apart,
)
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal", client_ip="198.51.100.9")
OTHER_SERVICES = ("billing", "mailer", "news")


@pytest.fixture
async def harness(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> ServiceHarness:
    """Auth without dead letters; their erasure has its own tests on Kafka."""

    async def none(*_: object, **__: object) -> Page:
        return Page([], None)

    monkeypatch.setattr(harness.context.dead_letters, "oldest", none)
    return harness


def find_user(value: str, kind: Any = "email") -> FindUser:
    return FindUser(identifier_type=kind, identifier_value=Sealed.of(value))


async def run_own_parts(harness: ServiceHarness) -> None:
    """Deliver the commands of exports and erasures that auth has published to itself, until there are none."""
    delivered = 0
    while delivered < len(harness.published):
        message = harness.published[delivered]
        delivered += 1
        own = isinstance(message, ExportUserFromAuth | EraseUserFromAuth | AddExportedPart | ConfirmErasure)
        if own and isinstance(message, Command) and not getattr(message, "again", False):
            await harness.deliver(message)


async def finish_other_parts(harness: ServiceHarness, process: dict[str, Any], kind: str) -> None:
    """Deliver the results of the other services."""
    for holder in OTHER_SERVICES:
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


async def test_user_is_found_by_any_spelling_of_the_address(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    for spelling in ("ANA@Example.com", " ana@example.com\r\n"):
        assert (await harness.deliver(find_user(spelling)))["id"] == tokens["user_id"]
    assert await refusal(harness, find_user("nobody@example.com")) == ("not_found", "not_found")
    assert await refusal(harness, find_user("not an address")) == ("invalid", "invalid_email")
    assert await refusal(harness, find_user("12", "phone")) == ("invalid", "invalid_phone_number")


async def test_export_orders_every_part_and_finishes_with_the_last(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await store_access_tokens_apart(harness)
    harness.clear()
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]), caller=OPERATOR)
    parts = [message for message in harness.published if isinstance(message, ExportUserData)]
    assert [type(part).service for part in parts] == ["auth", *OTHER_SERVICES]
    assert [entry.action for entry in harness.audited] == ["export_user"]
    assert (process["kind"], process["state"], process["finished_at"]) == ("export", "running", None)
    await run_own_parts(harness)
    running = await harness.deliver(GetUserProcess(process_id=process["id"]))
    assert [part["service"] for part in running["services"] if part["done_at"]] == ["auth"]
    assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("conflict", "user_export_not_finished")
    await finish_other_parts(harness, process, "export")
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


async def test_export_is_stored_sealed_and_expires(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    await run_own_parts(harness)
    await finish_other_parts(harness, process, "export")
    for name in ("user_processes", "user_export_parts"):
        assert ADDRESS not in repr(await harness.database[name].find().to_list())
    harness.now += timedelta(days=7, seconds=1)
    assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")


async def test_long_export_is_read_in_pages(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    await run_own_parts(harness)
    for number in range(3):
        rows = json.dumps([{"id": f"{number}/{row}", "text": "x" * 1000} for row in range(150)])
        part = {"process_id": process["id"], "run": 1, "number": number, "collection": "things"}
        await harness.deliver(AddExportedPart(**part, holder="billing", documents=Sealed.of(rows), last=number == 2))
    for holder in ("mailer", "news"):
        part = {"process_id": process["id"], "run": 1, "number": 0, "collection": "things"}
        await harness.deliver(AddExportedPart(**part, holder=holder, documents=Sealed.of("[]"), last=True))
    cursor, read = 0, []
    while cursor is not None:
        page = await harness.deliver(GetUserExport(process_id=process["id"], cursor=cursor))
        read += [row["id"] for row in page["services"].get("billing", {}).get("things", ())]
        assert page["next_cursor"] is None or page["next_cursor"] > cursor
        cursor = page["next_cursor"]
    assert read == [f"{number}/{row}" for number in range(3) for row in range(150)]


async def test_erasure_deletes_the_user_and_ends_the_sessions(harness: ServiceHarness) -> None:
    tokens = await log_in(harness, device={"platform": "mac", "beak_id": "b", "fingerprint": "f"})
    open_code = await request_code(harness)
    harness.clear()
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"], delete_stripe_customer=True), caller=OPERATOR)
    parts = [message for message in harness.published if isinstance(message, EraseUserData)]
    assert [(type(part).service, part.delete_stripe_customer) for part in parts] == [
        (name, True) for name in ("auth", *OTHER_SERVICES)
    ]
    await run_own_parts(harness)
    await finish_other_parts(harness, process, "erasure")
    view = await harness.deliver(GetUserProcess(process_id=process["id"]))
    assert (view["state"], view["expires_at"]) == ("done", None)
    assert harness.published_of(AccessTokenRevoked)
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("not_found", "token_not_found")
    assert await refusal(harness, redemption(open_code)) == ("not_found", "token_not_found")
    assert await refusal(harness, find_user(ADDRESS)) == ("not_found", "not_found")
    for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens", "limits", "familiars"):
        assert await harness.database[name].count_documents({}) == 0, name
    audit = await harness.database["audit"].find({"userId": tokens["user_id"]}).to_list()
    assert [entry["clientIp"] for entry in audit if entry["action"] == "erase_user"] == ["198.51.100.9"]
    assert all(entry["clientIp"] is None for entry in audit if entry["caller"] != "internal")


async def test_erasure_deletes_ip_addresses_of_link_requests_and_guesses(harness: ServiceHarness) -> None:
    person, other = (Caller(kind="anonymous", client_ip=ip) for ip in ("203.0.113.77", "203.0.113.78"))

    async def request_code_from(caller: Caller, address: str) -> str:
        await harness.deliver(send_magic_link(identifier_value=address), caller=caller)
        return code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))

    code = await request_code_from(person, ADDRESS)
    assert (await refusal(harness, redemption(code, code_verifier="w" * 43), caller=person))[0] == "invalid"
    tokens = await harness.deliver(redemption(code), caller=person)
    await request_code_from(person, ADDRESS)
    await request_code_from(other, "bob@example.com")
    before = await harness.database["audit"].find({"clientIp": person.client_ip}).to_list()
    assert {entry["userId"] for entry in before} == {None, tokens["user_id"]}
    await harness.deliver(EraseUser(user_id=tokens["user_id"]), caller=OPERATOR)
    await run_own_parts(harness)
    left = await harness.database["audit"].find({"clientIp": {"$type": "string"}}).to_list()
    assert {entry["clientIp"] for entry in left} == {other.client_ip, OPERATOR.client_ip}
    same_entries = {"_id": {"$in": [entry["_id"] for entry in before]}}
    assert await harness.database["audit"].count_documents(same_entries) == len(before)


async def test_audit_entries_of_a_login_are_found_by_an_index(harness: ServiceHarness) -> None:
    subject = DataSubject("user_1", (ADDRESS,), ())
    source = harness.context.personal_data.audit_before_login(["authzcode_1", "authzcode_2"])
    query = source.query(subject)
    plan = await harness.database["audit"].find(query).explain()
    assert "COLLSCAN" not in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)


async def test_login_after_an_erasure_creates_a_new_user(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await run_own_parts(harness)
    assert (await log_in(harness))["user_id"] != tokens["user_id"]


async def test_second_delivery_and_second_erasure_return_the_first(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    command, message_id = EraseUser(user_id=tokens["user_id"]), new_message_id()
    first, second = [await harness.deliver(command, id=message_id) for _ in range(2)]
    assert first == second == await harness.deliver(command)
    assert await harness.database["user_processes"].count_documents({}) == 1
    assert await refusal(harness, EraseUser(user_id="nobody")) == ("not_found", "not_found")
    assert await refusal(harness, ExportUser(user_id=tokens["user_id"])) == ("not_found", "not_found")


async def test_pending_parts_are_ordered_again_after_an_hour(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await run_own_parts(harness)
    scheduled = [message for _, message in await harness.delayed() if isinstance(message, ContinueUserProcess)]
    harness.clear()
    await harness.deliver(scheduled[0])
    assert [type(part).service for part in harness.published if isinstance(part, EraseUserData)] == list(OTHER_SERVICES)
    await finish_other_parts(harness, process, "erasure")
    harness.clear()
    await harness.deliver(ContinueUserProcess(process_id=process["id"]))
    assert harness.published == []


async def test_repeated_and_late_parts_change_nothing(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    process = await harness.deliver(ExportUser(user_id=tokens["user_id"]))
    for _ in range(2):
        await finish_other_parts(harness, process, "export")
    assert await harness.database["user_export_parts"].count_documents({}) == len(OTHER_SERVICES)
    await harness.deliver(ConfirmErasure(process_id="gone", holder="news"))


async def test_process_shows_what_a_service_waits_for(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    process = await harness.deliver(EraseUser(user_id=tokens["user_id"]))

    async def mailer_part() -> dict[str, Any]:
        view = await harness.deliver(GetUserProcess(process_id=process["id"]))
        part: dict[str, Any] = next(part for part in view["services"] if part["service"] == "mailer")
        return part

    assert (await mailer_part())["waits_for"] is None
    fields = {"process_id": process["id"], "holder": "mailer", "waits_for": "mailchimp"}
    await harness.deliver(NoteErasureWait(**fields, reason="503 Fault"))
    since = (await mailer_part())["waits_since"]
    harness.now += timedelta(minutes=1)
    await harness.deliver(NoteErasureWait(**fields, reason="401 API Key Invalid"))
    waits = {"waits_for": "mailchimp", "waits_since": since, "reason": "401 API Key Invalid"}
    assert await mailer_part() == {"service": "mailer", "done_at": None, **waits}
    await harness.deliver(ConfirmErasure(process_id=process["id"], holder="mailer"))
    await harness.deliver(NoteErasureWait(**fields, reason="late"))
    finished = await mailer_part()
    assert (finished["done_at"] is not None, finished["waits_for"], finished["reason"]) == (True, None, None)
    await harness.deliver(NoteErasureWait(**{**fields, "process_id": "gone"}, reason="late"))


async def test_old_link_creates_no_user_after_an_erasure(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    code = await request_code(harness)
    await harness.deliver(EraseUser(user_id=user_id))
    # Before auth has begun its part.
    assert await refusal(harness, redemption(code)) == ("not_found", "token_not_found")
    assert await harness.database["users"].count_documents({}) == 0


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.slow)])
async def test_login_racing_an_erasure_is_refused_or_its_session_ends(harness: ServiceHarness, rounds: int) -> None:
    for _ in range(rounds):
        user_id = (await log_in(harness))["user_id"]
        code = await request_code(harness)
        deliveries = [harness.deliver(redemption(code)), harness.deliver(EraseUser(user_id=user_id))]
        if random.random() < 0.5:
            deliveries.reverse()
        results = await asyncio.gather(*deliveries, return_exceptions=True)
        [login] = [each for each in results if not (isinstance(each, dict) and each.get("kind") == "erasure")]
        assert login["user_id"] == user_id if isinstance(login, dict) else isinstance(login, Refused)
        await run_own_parts(harness)
        harness.clear()
        for name in ("users", "identifiers", "authorizations", "access_tokens", "refresh_tokens"):
            assert await harness.database[name].count_documents({}) == 0, name


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
async def test_login_racing_an_erasure_leaves_no_session(harness: ServiceHarness, rounds: int) -> None:
    for _ in range(rounds):
        user_id = (await log_in(harness))["user_id"]
        code = await request_code(harness)
        ensure = EnsureUser(reference="other", email=ADDRESS)
        results = await asyncio.gather(
            harness.deliver(redemption(code)),
            harness.deliver(EraseUser(user_id=user_id)),
            harness.deliver(ensure),
            return_exceptions=True,
        )
        assert isinstance(results[1], dict)
        await run_own_parts(harness)
        harness.clear()
        user_ids = {document["_id"] async for document in harness.database["users"].find()}
        assert user_id not in user_ids
        for name in ("identifiers", "access_tokens", "refresh_tokens"):
            assert await harness.database[name].count_documents({"userId": user_id}) == 0


async def test_erasure_deletes_finished_and_running_exports(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    finished, running = [await harness.deliver(ExportUser(user_id=tokens["user_id"])) for _ in range(2)]
    await run_own_parts(harness)
    await finish_other_parts(harness, finished, "export")
    harness.clear()
    await harness.deliver(EraseUser(user_id=tokens["user_id"]))
    await run_own_parts(harness)
    await finish_other_parts(harness, running, "export")
    assert await harness.database["user_export_parts"].count_documents({}) == 0
    for process in (finished, running):
        assert await refusal(harness, GetUserExport(process_id=process["id"])) == ("not_found", "not_found")
