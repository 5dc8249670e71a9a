"""Whatever somebody tries leaves one entry that says who, what, when, from where, and what came of it."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.auth.audit.models import AuditEntry, pseudonym
from services.auth.handlers import HANDLERS
from services.auth.magic_links.handlers import send_magic_link as send_magic_link_handler
from services.gateway import accounts, phone
from services.gateway.methods import PATHS
from shared.ids import new_message_id
from shared.messages import Caller, Command, Sealed, iso_milliseconds
from shared.messages.auth.audit import NOTE_FIELDS, AuditEntryView, ListAuditEntries, RecordAuditEntry
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.phone import SendPhoneCode, VerifyPhoneCode
from shared.messages.auth.sessions import RevokeSessions
from shared.messages.auth.signing_keys import KEYRING, KeepSigningKeys, RotateSigningKeys
from shared.messages.auth.tokens import AuthenticateUser
from shared.messages.auth.users import EnsureUser, SetMarketingConsent
from tests.auth.accounts.flows import (
    CHEAP,
    OTHER_PASSWORD,
    PASSWORD,
    an_owner,
    create_application,
    log_in_owner,
    signed_in,
)
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    OTHER_CLIENT,
    REDIRECT_URI,
    WRONG_VERIFIER,
    logged_in,
    ordered_code,
    redemption,
    refresh,
    refusal,
    send_magic_link,
)
from tests.service_harness import ServiceHarness

FROM = Caller(client_ip="192.0.2.7")
OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")


async def rows(harness: ServiceHarness) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await harness.database["audit"].find().sort("_id").to_list()
    return found


def told(harness: ServiceHarness) -> list[tuple[str, str | None]]:
    """Action and refusal of every entry that was announced."""
    return [(entry.action, entry.code) for entry in harness.audited]


async def page(harness: ServiceHarness, **filters: Any) -> Any:
    return await harness.deliver(ListAuditEntries(**filters), caller=OPERATOR)


async def test_a_login_leaves_who_what_when_and_from_where(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    harness.clear()
    message_id = new_message_id()
    answer = await harness.deliver(redemption(code), caller=FROM, id=message_id)

    (entry,) = harness.audited
    identifier = await harness.database["identifiers"].find_one({"userId": answer["user_id"]})
    assert identifier is not None
    assert entry == AuditEntryView(
        id=entry.id,
        at=entry.at,
        action="log_in",
        outcome="done",
        code=None,
        caller="anonymous",
        caller_user_id=None,
        user_id=answer["user_id"],
        client_id=CLIENT,
        session_id=code.partition(".")[0],
        identifier_id=identifier["_id"],
        client_ip="192.0.2.7",
        message_id=message_id,
    )
    assert iso_milliseconds(entry.at) == iso_milliseconds(harness.now)


async def test_the_order_of_a_link_and_the_login_by_it_name_the_same_session(harness: ServiceHarness) -> None:
    await logged_in(harness)
    ordered, came = harness.audited
    assert (ordered.action, came.action) == ("send_magic_link", "log_in")
    assert ordered.session_id == came.session_id is not None
    assert ordered.user_id is None


async def test_only_the_login_that_verifies_an_identifier_names_it(harness: ServiceHarness) -> None:
    first = await logged_in(harness)
    await logged_in(harness)
    logins = [entry for entry in harness.audited if entry.action == "log_in"]
    assert [entry.user_id for entry in logins] == [first["user_id"]] * 2
    assert [entry.identifier_id is not None for entry in logins] == [True, False]


async def test_what_is_announced_is_what_is_stored(harness: ServiceHarness) -> None:
    answer = await logged_in(harness)
    await harness.deliver(refresh(answer["refresh_token"]), caller=FROM)
    assert [row["_id"] for row in await rows(harness)][-3:] == [entry.id for entry in harness.audited]
    listed = (await page(harness, limit=3))["entries"]
    assert [AuditEntryView.model_validate(entry) for entry in reversed(listed)] == harness.audited


async def test_a_refusal_leaves_an_entry_and_nothing_else(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    before = await harness.database["authorizations"].find().to_list()
    harness.clear()
    await refusal(harness, redemption(code, client_id=OTHER_CLIENT), caller=FROM)

    (entry,) = harness.audited
    assert (entry.action, entry.outcome, entry.code) == ("log_in", "refused", "incorrect_client")
    # The app the code was made for: what the other one said of itself is not known to be true.
    assert (entry.client_id, entry.session_id) == (CLIENT, code.partition(".")[0])
    assert entry.client_ip == "192.0.2.7"
    assert harness.published == []
    assert await harness.database["authorizations"].find().to_list() == before


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        (send_magic_link(client_id="client_none"), ("send_magic_link", "client_not_found")),
        (send_magic_link(redirect_uri="https://evil.example/"), ("send_magic_link", "invalid_redirect_uri")),
        (send_magic_link(identifier_value="nobody"), ("send_magic_link", "invalid_email")),
        (redemption(None), ("log_in", "code_missing")),
        (redemption("no-dot"), ("log_in", "malformed_code")),
        (redemption("authzcode_none.key"), ("log_in", "token_not_found")),
        (refresh(None), ("refresh", "refresh_token_missing")),
        (refresh("01.reftok_none.key"), ("refresh", "token_not_found")),
        (AuthenticateUser(client_id=CLIENT, grant_type="password"), ("authenticate_user", "unsupported_grant_type")),
        (EnsureUser(reference="r", email="nobody"), ("ensure_user", "invalid_email")),
        (CreateClient(id="c", name="An app", redirect_uris=("/",)), ("create_client", "invalid_redirect_uri")),
    ],
)
async def test_every_refusal_is_recorded_by_its_code(
    harness: ServiceHarness, message: Any, entry: tuple[str, str]
) -> None:
    _, code = await refusal(harness, message)
    assert (told(harness), code) == ([entry], entry[1])


async def test_what_an_index_refuses_at_the_commit_is_recorded_as_refused(harness: ServiceHarness) -> None:
    order = CreateClient(id=CLIENT, name="Another", redirect_uris=(REDIRECT_URI,))
    await refusal(harness, order, caller=OPERATOR)
    assert told(harness) == [("create_client", "client_already_exists")]
    assert [(row["outcome"], row["caller"]) for row in await rows(harness)][-1] == ("refused", "internal")


async def test_a_theft_is_an_entry_of_its_own_beside_the_refusal(harness: ServiceHarness) -> None:
    answer = await logged_in(harness)
    await harness.deliver(refresh(answer["refresh_token"]))
    harness.now += timedelta(minutes=1)
    harness.clear()
    await refusal(harness, refresh(answer["refresh_token"]), caller=FROM)

    assert told(harness) == [("end_stolen_chain", None), ("refresh", "token_used")]
    assert {entry.user_id for entry in harness.audited} == {answer["user_id"]}
    assert len({entry.session_id for entry in harness.audited}) == 1
    assert {entry.client_ip for entry in harness.audited} == {"192.0.2.7"}


async def test_a_remembered_refusal_keeps_its_state_and_its_entry(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    harness.clear()
    await refusal(harness, redemption(code, code_verifier=WRONG_VERIFIER))
    assert told(harness) == [("log_in", "incorrect_code_verifier")]
    kept = await harness.database["authorizations"].find_one({"_id": code.partition(".")[0]})
    assert kept is not None
    assert kept["wrongVerifiers"] == 1


async def test_a_second_delivery_leaves_no_second_entry(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(send_magic_link(), id=message_id)
    assert len([row for row in await rows(harness) if row["messageId"] == message_id]) == 1
    assert len(harness.audited) == 1


async def test_of_parallel_redemptions_each_leaves_one_entry(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    harness.clear()
    await asyncio.gather(*(harness.deliver(redemption(code)) for _ in range(10)), return_exceptions=True)
    assert sorted(told(harness), key=str) == [("log_in", "token_used")] * 9 + [("log_in", None)]
    assert len(await rows(harness)) == len({row["messageId"] for row in await rows(harness)})


async def test_what_another_service_tells_is_written_once(harness: ServiceHarness) -> None:
    harness.clear()
    asked = new_message_id()
    told = RecordAuditEntry(
        action="an_action_of_a_newer_service",
        refused_as="stripe_run_under_way",
        at=harness.now - timedelta(hours=1),
        message_id=asked,
        resource_id="striperun_1",
    )
    delivery = new_message_id()
    for _ in range(2):
        await harness.deliver(told, caller=OPERATOR, id=delivery)
    # A question that came again was asked at another moment: it is still the one.
    later = told.model_copy(update={"at": harness.now})
    await refusal(harness, later, caller=OPERATOR, id=delivery)

    (row,) = [row for row in await rows(harness) if row["messageId"] == asked]
    assert (row["action"], row["outcome"], row["code"]) == (told.action, "refused", "stripe_run_under_way")
    assert (row["messageId"], row["resourceId"], row["clientIp"]) == (asked, "striperun_1", OPERATOR.client_ip)
    assert iso_milliseconds(row["at"]) == iso_milliseconds(told.at)
    assert [entry.id for entry in harness.audited] == [row["_id"]]
    (listed,) = (await page(harness, limit=1))["entries"]
    assert AuditEntryView.model_validate(listed) == harness.audited[0]


async def test_an_entry_of_before_there_were_resources_is_read(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link())
    await harness.database["audit"].update_many({}, {"$unset": {"resourceId": ""}})
    assert {entry["resource_id"] for entry in (await page(harness))["entries"]} == {None}


async def test_an_entry_holds_neither_address_nor_secret(harness: ServiceHarness) -> None:
    code = await ordered_code(harness, identifier_value=ADDRESS)
    await refusal(harness, redemption(f"{code}x"))
    await refusal(harness, redemption(code, code_verifier=WRONG_VERIFIER))
    answer = await harness.deliver(redemption(code))
    await refusal(harness, refresh(f"{answer['refresh_token']}x"))
    await harness.deliver(refresh(answer["refresh_token"]))

    text = json.dumps(await rows(harness), default=str) + json.dumps(
        [entry.model_dump_json() for entry in harness.audited]
    )
    key, refresh_key = code.partition(".")[2], answer["refresh_token"].rpartition(".")[2]
    for secret in (ADDRESS, "ana", key, WRONG_VERIFIER, refresh_key, answer["access_token"]):
        assert secret not in text


async def test_what_a_client_typed_is_not_written_down(harness: ServiceHarness) -> None:
    """A secret in the wrong field must not end here: only ids that auth has made or found do."""
    typed = "my-password-in-the-wrong-field"
    await refusal(harness, send_magic_link(client_id=typed))
    await refusal(harness, AuthenticateUser(client_id=typed, grant_type=typed))
    await refusal(harness, redemption(f"{typed}.{typed}", client_id=typed))
    assert len(harness.audited) == 3
    assert typed not in json.dumps(await rows(harness), default=str)


async def test_operators_filter_the_audit(harness: ServiceHarness) -> None:
    ana, ben = await logged_in(harness), await logged_in(harness, identifier_value="ben@example.com")
    harness.now += timedelta(hours=1)
    await harness.deliver(refresh(ana["refresh_token"]))
    await refusal(harness, refresh("01.reftok_none.key"))

    async def actions(**filters: Any) -> list[str]:
        return [entry["action"] for entry in (await page(harness, **filters))["entries"]]

    assert await actions(user_id=ana["user_id"]) == ["refresh", "log_in"]
    assert await actions(user_id=ben["user_id"]) == ["log_in"]
    assert await actions(user_id="user_none") == []
    assert await actions(action="refresh") == ["refresh", "refresh"]
    assert await actions(action="refresh", outcome="refused") == ["refresh"]
    assert await actions(since=harness.now) == ["refresh", "refresh"]
    assert await actions(until=harness.now, action="log_in") == ["log_in", "log_in"]
    assert await actions(since=harness.now + timedelta(milliseconds=1)) == []


async def test_pages_follow_each_other_without_gap_or_repeat(harness: ServiceHarness) -> None:
    for number in range(7):
        await harness.deliver(send_magic_link(identifier_value=f"p{number}@example.com"))
    whole = (await page(harness))["entries"]
    pages, cursor = [], None
    while True:
        answer = await page(harness, limit=2, cursor=cursor)
        pages.append(answer["entries"])
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert [entry for part in pages for entry in part] == whole
    assert {len(part) for part in pages[:-1]} == {2}
    assert [entry["id"] for entry in whole] == sorted((entry["id"] for entry in whole), reverse=True)


async def test_a_handler_that_wears_it_reads_as_before() -> None:
    assert send_magic_link_handler.__name__ == "send_magic_link"
    assert send_magic_link_handler.__doc__ is not None


async def test_a_note_that_the_audit_does_not_keep_is_a_bug(harness: ServiceHarness) -> None:
    with pytest.raises(TypeError, match="keeps no email"):
        harness.context.audit.record(SimpleNamespace(notes={"email": ADDRESS}), "log_in")


def test_all_that_can_be_noted_is_in_an_entry() -> None:
    assert {field.name for field in dataclasses.fields(AuditEntry)} >= NOTE_FIELDS


async def test_ended_sessions_are_entries_of_their_own(harness: ServiceHarness) -> None:
    answer = await logged_in(harness)
    await logged_in(harness)
    harness.clear()
    await harness.deliver(RevokeSessions(user_id=answer["user_id"], which="all"), caller=OPERATOR)
    assert sorted(told(harness)) == [("end_session", None), ("end_session", None), ("revoke_sessions", None)]
    assert {entry.user_id for entry in harness.audited} == {answer["user_id"]}
    assert len({entry.session_id for entry in harness.audited if entry.action == "end_session"}) == 2


async def test_a_rotation_is_recorded_and_a_look_that_finds_nothing_due_is_not(harness: ServiceHarness) -> None:
    await harness.deliver(RotateSigningKeys(emergency=True), caller=OPERATOR)
    assert [(entry.action, entry.caller) for entry in harness.audited] == [("rotate_signing_keys", "internal")]
    harness.clear()
    await harness.deliver(KeepSigningKeys(key=KEYRING))
    assert told(harness) == [("keep_signing_keys", None)]  # the other keys are gone
    harness.clear()
    await harness.deliver(KeepSigningKeys(key=KEYRING))
    assert harness.audited == []


async def test_a_login_by_phone_and_its_order_name_the_same_session(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(text_countries=("all",)) as harness:
        await harness.deliver(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        harness.clear()
        nonce = (await harness.deliver(SendPhoneCode(phone_number="+41791234567"), caller=FROM))["nonce"]
        guess = VerifyPhoneCode(code=Sealed.of("wrong!"), nonce=Sealed.of(nonce), clientid=CLIENT)
        await refusal(harness, guess, caller=FROM)
        ordered, guessed = harness.audited
        assert told(harness) == [("send_phone_code", None), ("verify_phone_code", "phone_code_not_found")]
        assert ordered.session_id == guessed.session_id is not None
        text = json.dumps(await rows(harness), default=str)
        assert not [secret for secret in ("791234567", nonce, "wrong!") if secret in text]


async def test_owners_and_applications_are_named_so_that_no_door_opens(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as harness:
        owner = await an_owner(harness)
        application = await harness.deliver(create_application(owner["uuid"]))
        user, _ = await signed_in(harness, application["apiKey"])
        await refusal(harness, log_in_owner(password=OTHER_PASSWORD))
        assert told(harness) == [
            ("register_owner", None),
            ("create_application", None),
            ("sign_up", None),
            ("sign_in_with_email", None),
            ("log_in_owner", "wrong_credentials"),
        ]
        first, made, signed_up, came, wrong = harness.audited
        assert first.user_id == made.user_id == wrong.user_id == pseudonym("owner", owner["uuid"])
        assert made.client_id == signed_up.client_id == came.client_id
        assert signed_up.user_id == came.user_id
        text = json.dumps(await rows(harness), default=str) + str(harness.audited)
        for secret in (owner["uuid"], application["uuid"], application["apiKey"], user["uuid"], PASSWORD):
            assert secret not in text


def test_whatever_a_client_can_order_of_auth_is_audited() -> None:
    ordered = {
        *(method.message for method in PATHS.values()),
        *(call.message for call in (*accounts.ROUTES, *phone.ROUTES, phone.TEST_LOGIN)),
    }
    commands = {kind for kind in ordered if kind is not None and issubclass(kind, Command) and kind in HANDLERS}
    unworn = {kind.__name__ for kind in commands if not hasattr(HANDLERS[kind], "__wrapped__")}
    # It logs nobody in and changes nothing of auth's; what operators choose for somebody is recorded.
    assert unworn == {"SetMarketingConsent"}
    assert SetMarketingConsent.audited
