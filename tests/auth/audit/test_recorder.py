"""Each audited message leaves one entry: who, what, when, from where, and the outcome."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.auth.audit.recorder import pseudonym
from services.auth.handlers import HANDLERS
from services.auth.magic_links.handlers import send_magic_link as send_magic_link_handler
from services.gateway import accounts, phone
from services.gateway.methods import PATHS
from shared.ids import new_message_id
from shared.messages import Caller, Command, Sealed, iso_milliseconds
from shared.messages.auth.audit import NOTE_FIELDS, AuditEntryView, ListAuditEntries, RecordAuditEntry
from shared.messages.auth.checkouts import CreateCheckout
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
    create_application,
    log_in_owner,
    new_owner,
    new_user,
)
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    OTHER_CLIENT,
    REDIRECT_URI,
    WRONG_VERIFIER,
    log_in,
    redemption,
    refresh,
    refusal,
    request_code,
    send_magic_link,
)
from tests.service_harness import ServiceHarness

USER_CALLER = Caller(client_ip="192.0.2.7")
OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")


async def entries_in(harness: ServiceHarness) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = await harness.database["audit"].find().sort("_id").to_list()
    return documents


def audited(harness: ServiceHarness) -> list[tuple[str, str | None]]:
    """Action and refusal of every published entry."""
    return [(entry.action, entry.code) for entry in harness.audited]


async def page(harness: ServiceHarness, **filters: Any) -> Any:
    return await harness.deliver(ListAuditEntries(**filters), caller=OPERATOR)


async def test_login_is_audited_with_all_fields(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    harness.clear()
    message_id = new_message_id()
    tokens = await harness.deliver(redemption(code), caller=USER_CALLER, id=message_id)

    (entry,) = harness.audited
    identifier = await harness.database["identifiers"].find_one({"userId": tokens["user_id"]})
    assert identifier is not None
    assert entry == AuditEntryView(
        id=entry.id,
        at=entry.at,
        action="log_in",
        outcome="done",
        code=None,
        caller="anonymous",
        caller_user_id=None,
        user_id=tokens["user_id"],
        client_id=CLIENT,
        session_id=code.partition(".")[0],
        identifier_id=identifier["_id"],
        client_ip="192.0.2.7",
        message_id=message_id,
    )
    assert iso_milliseconds(entry.at) == iso_milliseconds(harness.now)


async def test_link_request_and_its_login_have_the_same_session_id(harness: ServiceHarness) -> None:
    await log_in(harness)
    link_request, login = harness.audited
    assert (link_request.action, login.action) == ("send_magic_link", "log_in")
    assert link_request.session_id == login.session_id is not None
    assert link_request.user_id is None


async def test_only_the_verifying_login_has_an_identifier_id(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await log_in(harness)
    logins = [entry for entry in harness.audited if entry.action == "log_in"]
    assert [entry.user_id for entry in logins] == [first["user_id"]] * 2
    assert [entry.identifier_id is not None for entry in logins] == [True, False]


async def test_published_and_stored_entries_are_equal(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await harness.deliver(refresh(tokens["refresh_token"]), caller=USER_CALLER)
    assert [row["_id"] for row in await entries_in(harness)][-3:] == [entry.id for entry in harness.audited]
    listed = (await page(harness, limit=3))["entries"]
    assert [AuditEntryView.model_validate(entry) for entry in reversed(listed)] == harness.audited


async def test_refusal_stores_an_entry_and_nothing_else(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    before = await harness.database["authorizations"].find().to_list()
    harness.clear()
    await refusal(harness, redemption(code, client_id=OTHER_CLIENT), caller=USER_CALLER)

    (entry,) = harness.audited
    assert (entry.action, entry.outcome, entry.code) == ("log_in", "refused", "incorrect_client")
    # The client of the code, since the client ID of the request may be false.
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
async def test_refusal_is_audited_with_its_code(harness: ServiceHarness, message: Any, entry: tuple[str, str]) -> None:
    _, code = await refusal(harness, message)
    assert (audited(harness), code) == ([entry], entry[1])


async def test_refusal_by_an_index_at_the_commit_is_audited(harness: ServiceHarness) -> None:
    command = CreateClient(id=CLIENT, name="Another", redirect_uris=(REDIRECT_URI,))
    await refusal(harness, command, caller=OPERATOR)
    assert audited(harness) == [("create_client", "client_already_exists")]
    assert [(row["outcome"], row["caller"]) for row in await entries_in(harness)][-1] == ("refused", "internal")


async def test_theft_is_audited_beside_the_refusal(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    successor = await harness.deliver(refresh(tokens["refresh_token"]))
    await harness.deliver(refresh(successor["refresh_token"]))
    harness.clear()
    await refusal(harness, refresh(tokens["refresh_token"]), caller=USER_CALLER)

    assert audited(harness) == [("end_stolen_chain", None), ("refresh", "token_used")]
    assert {entry.user_id for entry in harness.audited} == {tokens["user_id"]}
    assert len({entry.session_id for entry in harness.audited}) == 1
    assert {entry.client_ip for entry in harness.audited} == {"192.0.2.7"}


async def test_stored_refusal_keeps_its_state_and_its_entry(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    harness.clear()
    await refusal(harness, redemption(code, code_verifier=WRONG_VERIFIER))
    assert audited(harness) == [("log_in", "incorrect_code_verifier")]
    document = await harness.database["authorizations"].find_one({"_id": code.partition(".")[0]})
    assert document is not None
    assert document["wrongVerifiers"] == 1


async def test_second_delivery_adds_no_entry(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(send_magic_link(), id=message_id)
    assert len([row for row in await entries_in(harness) if row["messageId"] == message_id]) == 1
    assert len(harness.audited) == 1


async def test_each_concurrent_redemption_adds_one_entry(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    harness.clear()
    await asyncio.gather(*(harness.deliver(redemption(code)) for _ in range(10)), return_exceptions=True)
    assert sorted(audited(harness), key=str) == [("log_in", "token_used")] * 9 + [("log_in", None)]
    assert len(await entries_in(harness)) == len({row["messageId"] for row in await entries_in(harness)})


async def test_entry_of_another_service_is_stored_once(harness: ServiceHarness) -> None:
    harness.clear()
    message_id = new_message_id()
    command = RecordAuditEntry(
        action="an_action_of_a_newer_service",
        refused_as="stripe_run_under_way",
        at=harness.now - timedelta(hours=1),
        message_id=message_id,
        resource_id="striperun_1",
    )
    command_id = new_message_id()
    for _ in range(2):
        await harness.deliver(command, caller=OPERATOR, id=command_id)
    # A redelivered query was handled at another time, but it is the same query.
    later = command.model_copy(update={"at": harness.now})
    await refusal(harness, later, caller=OPERATOR, id=command_id)

    (row,) = [row for row in await entries_in(harness) if row["messageId"] == message_id]
    assert (row["action"], row["outcome"], row["code"]) == (command.action, "refused", "stripe_run_under_way")
    assert (row["messageId"], row["resourceId"], row["clientIp"]) == (message_id, "striperun_1", OPERATOR.client_ip)
    assert iso_milliseconds(row["at"]) == iso_milliseconds(command.at)
    assert [entry.id for entry in harness.audited] == [row["_id"]]
    # It is listed at its own time, not at that of its arrival.
    await harness.deliver(send_magic_link())
    (listed,) = (await page(harness, until=harness.now - timedelta(minutes=1), limit=1))["entries"]
    assert AuditEntryView.model_validate(listed) == harness.audited[0]


async def test_entry_without_resource_id_is_read(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link())
    await harness.database["audit"].update_many({}, {"$unset": {"resourceId": ""}})
    assert {entry["resource_id"] for entry in (await page(harness))["entries"]} == {None}


async def test_entries_contain_no_address_and_no_secret(harness: ServiceHarness) -> None:
    code = await request_code(harness, identifier_value=ADDRESS)
    await refusal(harness, redemption(f"{code}x"))
    await refusal(harness, redemption(code, code_verifier=WRONG_VERIFIER))
    tokens = await harness.deliver(redemption(code))
    await refusal(harness, refresh(f"{tokens['refresh_token']}x"))
    await harness.deliver(refresh(tokens["refresh_token"]))

    text = json.dumps(await entries_in(harness), default=str) + json.dumps(
        [entry.model_dump_json() for entry in harness.audited]
    )
    key, refresh_key = code.partition(".")[2], tokens["refresh_token"].rpartition(".")[2]
    for secret in (ADDRESS, key, WRONG_VERIFIER, refresh_key, tokens["access_token"]):
        assert secret not in text


async def test_entries_contain_no_text_from_the_client(harness: ServiceHarness) -> None:
    """Text from a client could be a secret in the wrong field."""
    typed = "my-password-in-the-wrong-field"
    await refusal(harness, send_magic_link(client_id=typed))
    await refusal(harness, AuthenticateUser(client_id=typed, grant_type=typed))
    await refusal(harness, redemption(f"{typed}.{typed}", client_id=typed))
    assert len(harness.audited) == 3
    assert typed not in json.dumps(await entries_in(harness), default=str)


async def test_operators_filter_the_audit(harness: ServiceHarness) -> None:
    ana, ben = await log_in(harness), await log_in(harness, identifier_value="ben@example.com")
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


async def test_pages_have_no_gap_and_no_repetition(harness: ServiceHarness) -> None:
    for number in range(7):
        await harness.deliver(send_magic_link(identifier_value=f"p{number}@example.com"))
    everything = (await page(harness))["entries"]
    pages, cursor = [], None
    while True:
        view = await page(harness, limit=2, cursor=cursor)
        pages.append(view["entries"])
        cursor = view["next_cursor"]
        if cursor is None:
            break
    assert [entry for part in pages for entry in part] == everything
    assert {len(part) for part in pages[:-1]} == {2}
    assert [entry["id"] for entry in everything] == sorted((entry["id"] for entry in everything), reverse=True)


async def test_audited_handler_keeps_its_name_and_docstring() -> None:
    assert send_magic_link_handler.__name__ == "send_magic_link"
    assert send_magic_link_handler.__doc__ is not None


async def test_unknown_annotation_is_an_error(harness: ServiceHarness) -> None:
    with pytest.raises(TypeError, match="unknown audit annotations: email"):
        harness.context.audit.record(SimpleNamespace(annotations={"email": ADDRESS}), "log_in")


def test_entry_has_a_field_for_each_annotation() -> None:
    assert AuditEntryView.model_fields.keys() >= NOTE_FIELDS


async def test_each_revoked_session_is_audited(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await log_in(harness)
    harness.clear()
    await harness.deliver(RevokeSessions(user_id=tokens["user_id"], which="all"), caller=OPERATOR)
    assert sorted(audited(harness)) == [("end_session", None), ("end_session", None), ("revoke_sessions", None)]
    assert {entry.user_id for entry in harness.audited} == {tokens["user_id"]}
    assert len({entry.session_id for entry in harness.audited if entry.action == "end_session"}) == 2


async def test_rotation_is_audited_unless_nothing_is_due(harness: ServiceHarness) -> None:
    await harness.deliver(RotateSigningKeys(emergency=True), caller=OPERATOR)
    assert [(entry.action, entry.caller) for entry in harness.audited] == [("rotate_signing_keys", "internal")]
    harness.clear()
    await harness.deliver(KeepSigningKeys(key=KEYRING))
    assert audited(harness) == [("keep_signing_keys", None)]  # deletes the retired keys
    harness.clear()
    await harness.deliver(KeepSigningKeys(key=KEYRING))
    assert harness.audited == []


async def test_code_request_and_its_login_have_the_same_session_id(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(text_countries=("all",)) as harness:
        await harness.deliver(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        harness.clear()
        nonce = (await harness.deliver(SendPhoneCode(phone_number="+41791234567"), caller=USER_CALLER))["nonce"]
        guess = VerifyPhoneCode(code=Sealed.of("wrong!"), nonce=Sealed.of(nonce), clientid=CLIENT)
        await refusal(harness, guess, caller=USER_CALLER)
        code_request, login = harness.audited
        assert audited(harness) == [("send_phone_code", None), ("verify_phone_code", "phone_code_not_found")]
        assert code_request.session_id == login.session_id is not None
        text = json.dumps(await entries_in(harness), default=str)
        assert not [secret for secret in ("791234567", nonce, "wrong!") if secret in text]


async def test_owners_and_applications_are_audited_by_pseudonym(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as harness:
        owner = await new_owner(harness)
        application = await harness.deliver(create_application(owner["uuid"]))
        user, _ = await new_user(harness, application["apiKey"])
        await refusal(harness, log_in_owner(password=OTHER_PASSWORD))
        assert audited(harness) == [
            ("register_owner", None),
            ("create_application", None),
            ("sign_up", None),
            ("sign_in_with_email", None),
            ("log_in_owner", "wrong_credentials"),
        ]
        registered, created, signed_up, signed_in, wrong = harness.audited
        assert registered.user_id == created.user_id == wrong.user_id == pseudonym("owner", owner["uuid"])
        assert created.client_id == signed_up.client_id == signed_in.client_id
        assert signed_up.user_id == signed_in.user_id
        text = json.dumps(await entries_in(harness), default=str) + str(harness.audited)
        for secret in (owner["uuid"], application["uuid"], application["apiKey"], user["uuid"], PASSWORD):
            assert secret not in text


def test_every_command_of_a_client_is_audited() -> None:
    messages = {
        *(method.message for method in PATHS.values()),
        *(call.message for call in (*accounts.ROUTES, *phone.ROUTES, phone.TEST_LOGIN)),
    }
    commands = {kind for kind in messages if kind is not None and issubclass(kind, Command) and kind in HANDLERS}
    not_decorated = {kind.__name__ for kind in commands if not hasattr(HANDLERS[kind], "__wrapped__")}
    # They change nothing in auth; if an operator sends one, it is audited like a query.
    assert not_decorated == {"SetMarketingConsent", "CreateCheckout"}
    assert SetMarketingConsent.audited
    assert CreateCheckout.audited
