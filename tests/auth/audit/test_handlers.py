"""Audit entries of operators' queries about a person."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from shared.dead_letters.queue import Page
from shared.ids import new_message_id
from shared.messages import Caller, Sealed
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.sessions import ListSessions
from shared.messages.auth.users import GetUser, ListUsers, SetMarketingConsent
from shared.messages.personal_data import EraseUser, ExportUser, FindUser, GetUserExport
from tests.auth.audit.test_recorder import OPERATOR, USER_CALLER, entries_in, page
from tests.auth.flows import ADDRESS, log_in, redemption, refusal, request_code
from tests.auth.personal_data.test_handlers import finish_other_parts, run_own_parts
from tests.service_harness import ServiceHarness


@pytest.fixture(autouse=True)
def no_dead_letters(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the search of an erasure in the dead letters, which has its own tests on Kafka."""

    async def none(*_: object, **__: object) -> Page:
        return Page([], None)

    monkeypatch.setattr(harness.context.dead_letters, "oldest", none)


async def test_query_of_a_user_about_themselves_is_not_audited(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    before = await entries_in(harness)
    for query in (GetUser(user_id=user_id), ListSessions(user_id=user_id)):
        await harness.deliver(query, caller=Caller(kind="user", user_id=user_id))
    assert (harness.recorded, await entries_in(harness)) == ([], before)


@pytest.mark.parametrize(
    ("query", "action"),
    [
        (lambda user_id: GetUser(user_id=user_id), "get_user"),
        (lambda _: ListUsers(search=Sealed.of(ADDRESS)), "list_users"),
        (lambda _: FindUser(identifier_type="email", identifier_value=Sealed.of(ADDRESS)), "find_user"),
        (lambda user_id: ListSessions(user_id=user_id), "list_sessions"),
        (lambda user_id: ListAuditEntries(user_id=user_id), "list_audit_entries"),
    ],
)
async def test_operators_query_about_a_person_is_audited(
    harness: ServiceHarness, query: Callable[[str], Any], action: str
) -> None:
    user_id = (await log_in(harness))["user_id"]
    harness.clear()
    message_id = new_message_id()
    await harness.deliver(query(user_id), caller=OPERATOR, id=message_id)
    (recorded,) = harness.recorded
    await harness.deliver(recorded, caller=OPERATOR)

    (entry,) = harness.audited
    assert (entry.action, entry.outcome, entry.code) == (action, "done", None)
    assert (entry.user_id, entry.message_id, entry.at) == (user_id, message_id, recorded.at)
    assert (entry.caller, entry.caller_user_id, entry.client_ip) == ("internal", None, OPERATOR.client_ip)


async def test_query_that_finds_nobody_is_audited_without_its_text(harness: ServiceHarness) -> None:
    for query in (
        GetUser(user_id="user_typed"),
        FindUser(identifier_type="email", identifier_value=Sealed.of("typed@example.com")),
        ListSessions(user_id="user_typed"),
    ):
        await refusal(harness, query, caller=OPERATOR)
    await page(harness, user_id="user_typed")
    assert [(each.action, each.refused_as) for each in harness.recorded] == [
        ("get_user", "not_found"),
        ("find_user", "not_found"),
        ("list_sessions", "not_found"),
        ("list_audit_entries", None),
    ]
    assert "typed" not in json.dumps([each.model_dump_json() for each in harness.recorded])


async def test_consent_set_by_an_operator_is_audited_and_by_the_user_not(
    harness: ServiceHarness,
) -> None:
    user_id = (await log_in(harness))["user_id"]
    command = SetMarketingConsent(user_id=user_id, level="none")
    await harness.deliver(command, caller=Caller(kind="user", user_id=user_id))
    assert harness.recorded == []
    await harness.deliver(command, caller=OPERATOR)
    assert [(each.action, each.user_id) for each in harness.recorded] == [("set_marketing_consent", user_id)]


async def test_reading_an_export_is_audited_with_its_process(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    process = await harness.deliver(ExportUser(user_id=user_id), caller=OPERATOR)
    await refusal(harness, GetUserExport(process_id=process["id"]), caller=OPERATOR)
    await run_own_parts(harness)
    await finish_other_parts(harness, process, "export")
    await harness.deliver(GetUserExport(process_id=process["id"]), caller=OPERATOR)
    assert [(each.action, each.refused_as, each.user_id, each.resource_id) for each in harness.recorded] == [
        ("get_user_export", "user_export_not_finished", user_id, process["id"]),
        ("get_user_export", None, user_id, process["id"]),
    ]


async def test_export_contains_no_ip_address_of_operators(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await harness.deliver(ListSessions(user_id=user_id), caller=OPERATOR)
    await harness.deliver(harness.recorded[-1], caller=OPERATOR)
    code = await request_code(harness)
    await harness.deliver(redemption(code), caller=USER_CALLER)
    process = await harness.deliver(ExportUser(user_id=user_id), caller=OPERATOR)
    await run_own_parts(harness)
    await finish_other_parts(harness, process, "export")
    exported = (await harness.deliver(GetUserExport(process_id=process["id"])))["services"]["auth"]["audit"]
    assert [(entry["action"], entry["clientIp"]) for entry in exported] == [
        ("log_in", None),
        ("list_sessions", None),
        ("log_in", USER_CALLER.client_ip),
        ("export_user", None),
    ]


async def test_erasure_keeps_operators_entries_without_personal_data(
    harness: ServiceHarness,
) -> None:
    tokens = await log_in(harness)
    user_id = tokens["user_id"]
    await harness.deliver(redemption(await request_code(harness)), caller=USER_CALLER)
    for query in (
        FindUser(identifier_type="email", identifier_value=Sealed.of(ADDRESS)),
        ListUsers(search=Sealed.of(ADDRESS)),
        GetUser(user_id=user_id),
        ListSessions(user_id=user_id),
        ListAuditEntries(user_id=user_id),
    ):
        await harness.deliver(query, caller=OPERATOR)
    *recorded, late = harness.recorded
    for entry in recorded:
        await harness.deliver(entry, caller=OPERATOR)
    await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR)
    await run_own_parts(harness)
    # This entry was under way during the erasure.
    await harness.deliver(late, caller=OPERATOR)
    await refusal(harness, GetUser(user_id=user_id), caller=OPERATOR)
    await harness.deliver(harness.recorded[-1], caller=OPERATOR)

    about = [row for row in await entries_in(harness) if row["userId"] == user_id]
    queries = {"find_user", "get_user", "list_users", "list_sessions", "list_audit_entries"}
    assert queries <= {row["action"] for row in about}
    assert {row["clientIp"] for row in about} == {OPERATOR.client_ip, None}
    text = json.dumps(await entries_in(harness), default=str)
    for personal in (ADDRESS, "ana", USER_CALLER.client_ip):
        # As a word: the letters may occur in a random ID.
        assert not re.search(rf"\b{re.escape(str(personal))}\b", text)


async def test_erasure_is_audited_with_its_process_and_no_typed_id(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    harness.clear()
    process_id = (await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR))["id"]
    await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR)
    for command in (EraseUser(user_id="user_typed"), ExportUser(user_id="user_typed")):
        await refusal(harness, command, caller=OPERATOR)
    assert [(entry.code, entry.user_id, entry.resource_id) for entry in harness.audited] == [
        (None, user_id, process_id),
        (None, user_id, process_id),
        ("not_found", None, None),
        ("not_found", None, None),
    ]
