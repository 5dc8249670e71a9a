"""Operators who read of a person leave an entry about that, which outlives the person and says nothing of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.dead_letters.queue import Page
from shared.ids import new_message_id
from shared.messages import Caller, Sealed
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.sessions import ListSessions
from shared.messages.auth.users import GetUser, SetMarketingConsent
from shared.messages.personal_data import EraseUser, ExportUser, FindUser, GetUserExport
from tests.auth.audit.test_recorder import FROM, OPERATOR, page, rows
from tests.auth.flows import ADDRESS, logged_in, ordered_code, redemption, refusal
from tests.auth.personal_data.test_handlers import answered_by_others, settle
from tests.service_harness import ServiceHarness


@pytest.fixture(autouse=True)
def no_dead_letters(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure looks among the dead letters too: those are on Kafka, and have tests of their own."""

    async def none(*_: object, **__: object) -> Page:
        return Page([], None)

    monkeypatch.setattr(harness.context.dead_letters, "oldest", none)


async def test_who_reads_what_is_theirs_leaves_no_entry(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    before = await rows(harness)
    for query in (GetUser(user_id=user_id), ListSessions(user_id=user_id)):
        await harness.deliver(query, caller=Caller(kind="user", user_id=user_id))
    assert (harness.recorded, await rows(harness)) == ([], before)


@pytest.mark.parametrize(
    ("query", "action"),
    [
        (lambda user_id: GetUser(user_id=user_id), "get_user"),
        (lambda _: FindUser(identifier_type="email", identifier_value=Sealed.of(ADDRESS)), "find_user"),
        (lambda user_id: ListSessions(user_id=user_id), "list_sessions"),
        (lambda user_id: ListAuditEntries(user_id=user_id), "list_audit_entries"),
    ],
)
async def test_an_operator_who_reads_of_a_person_leaves_an_entry_about_them(
    harness: ServiceHarness, query: Callable[[str], Any], action: str
) -> None:
    user_id = (await logged_in(harness))["user_id"]
    harness.clear()
    asked = new_message_id()
    await harness.deliver(query(user_id), caller=OPERATOR, id=asked)
    (told,) = harness.recorded
    await harness.deliver(told, caller=OPERATOR)

    (entry,) = harness.audited
    assert (entry.action, entry.outcome, entry.code) == (action, "done", None)
    assert (entry.user_id, entry.message_id, entry.at) == (user_id, asked, told.at)
    assert (entry.caller, entry.caller_user_id, entry.client_ip) == ("internal", None, OPERATOR.client_ip)


async def test_an_operator_who_finds_nobody_leaves_an_entry_without_what_was_typed(harness: ServiceHarness) -> None:
    for query in (
        GetUser(user_id="user_typed"),
        FindUser(identifier_type="email", identifier_value=Sealed.of("typed@example.com")),
        ListSessions(user_id="user_typed"),
    ):
        await refusal(harness, query, caller=OPERATOR)
    await page(harness, user_id="user_typed")
    assert [(told.action, told.refused_as) for told in harness.recorded] == [
        ("get_user", "not_found"),
        ("find_user", "not_found"),
        ("list_sessions", "not_found"),
        ("list_audit_entries", None),
    ]
    assert "typed" not in json.dumps([told.model_dump_json() for told in harness.recorded])


async def test_a_choice_that_an_operator_makes_for_a_user_is_recorded_and_their_own_is_not(
    harness: ServiceHarness,
) -> None:
    user_id = (await logged_in(harness))["user_id"]
    choice = SetMarketingConsent(user_id=user_id, level="none")
    await harness.deliver(choice, caller=Caller(kind="user", user_id=user_id))
    assert harness.recorded == []
    await harness.deliver(choice, caller=OPERATOR)
    assert [(told.action, told.user_id) for told in harness.recorded] == [("set_marketing_consent", user_id)]


async def test_who_reads_an_export_leaves_an_entry_that_names_it(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    process = await harness.deliver(ExportUser(user_id=user_id), caller=OPERATOR)
    await refusal(harness, GetUserExport(process_id=process["id"]), caller=OPERATOR)
    await settle(harness)
    await answered_by_others(harness, process, "export")
    await harness.deliver(GetUserExport(process_id=process["id"]), caller=OPERATOR)
    assert [(told.action, told.refused_as, told.user_id, told.resource_id) for told in harness.recorded] == [
        ("get_user_export", "user_export_not_finished", user_id, process["id"]),
        ("get_user_export", None, user_id, process["id"]),
    ]


async def test_a_person_is_shown_what_operators_did_and_not_from_where(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    await harness.deliver(ListSessions(user_id=user_id), caller=OPERATOR)
    await harness.deliver(harness.recorded[-1], caller=OPERATOR)
    code = await ordered_code(harness)
    await harness.deliver(redemption(code), caller=FROM)
    process = await harness.deliver(ExportUser(user_id=user_id), caller=OPERATOR)
    await settle(harness)
    await answered_by_others(harness, process, "export")
    shown = (await harness.deliver(GetUserExport(process_id=process["id"])))["services"]["auth"]["audit"]
    assert [(entry["action"], entry["clientIp"]) for entry in shown] == [
        ("log_in", None),
        ("list_sessions", None),
        ("log_in", FROM.client_ip),
        ("export_user", None),
    ]


async def test_an_erasure_leaves_that_operators_looked_and_nothing_that_leads_to_the_person(
    harness: ServiceHarness,
) -> None:
    tokens = await logged_in(harness)
    user_id = tokens["user_id"]
    await harness.deliver(redemption(await ordered_code(harness)), caller=FROM)
    for query in (
        FindUser(identifier_type="email", identifier_value=Sealed.of(ADDRESS)),
        GetUser(user_id=user_id),
        ListSessions(user_id=user_id),
        ListAuditEntries(user_id=user_id),
    ):
        await harness.deliver(query, caller=OPERATOR)
    *told, late = harness.recorded
    for entry in told:
        await harness.deliver(entry, caller=OPERATOR)
    await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR)
    await settle(harness)
    # One was on its way meanwhile.
    await harness.deliver(late, caller=OPERATOR)
    await refusal(harness, GetUser(user_id=user_id), caller=OPERATOR)
    await harness.deliver(harness.recorded[-1], caller=OPERATOR)

    about = [row for row in await rows(harness) if row["userId"] == user_id]
    looked = {"find_user", "get_user", "list_sessions", "list_audit_entries"}
    assert looked <= {row["action"] for row in about}
    assert {row["clientIp"] for row in about} == {OPERATOR.client_ip, None}
    text = json.dumps(await rows(harness), default=str)
    for personal in (ADDRESS, "ana", FROM.client_ip):
        assert str(personal) not in text


async def test_an_erasure_is_named_by_its_process_and_nobody_by_what_was_typed(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    harness.clear()
    process_id = (await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR))["id"]
    await harness.deliver(EraseUser(user_id=user_id), caller=OPERATOR)
    for order in (EraseUser(user_id="user_typed"), ExportUser(user_id="user_typed")):
        await refusal(harness, order, caller=OPERATOR)
    assert [(entry.code, entry.user_id, entry.resource_id) for entry in harness.audited] == [
        (None, user_id, process_id),
        (None, user_id, process_id),
        ("not_found", None, None),
        ("not_found", None, None),
    ]
