import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from services.auth.sessions import handlers
from shared.ids import derived_message_id
from shared.messages import Caller, Sealed
from shared.messages.auth.sessions import FindLastLogin, ListSessions, RevokeSessions, SessionRevoked
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.messages.mailer.mails import LastLogin, SendMail
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    OTHER_CLIENT,
    log_in,
    redeliverable,
    redemption,
    refresh,
    refusal,
    request_code,
    store_access_tokens_apart,
)
from tests.auth.sessions.test_geoip import database
from tests.auth.tokens.test_store import make_older
from tests.service_harness import Refused, ServiceHarness

INTERNAL = Caller(kind="internal")
DEVICE = {"platform": "mac", "fingerprint": "f1"}


def token_id(tokens: dict[str, Any]) -> str:
    return str(jwt.decode(tokens["access_token"], options={"verify_signature": False})["jti"])


def caller(tokens: dict[str, Any], ip: str | None = None) -> Caller:
    """The caller that the gateway derives from an access token."""
    return Caller(kind="user", user_id=tokens["user_id"], token_id=token_id(tokens), client_ip=ip)


async def list_sessions(harness: ServiceHarness, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = await harness.deliver(
        ListSessions(user_id=tokens["user_id"]), caller=caller(tokens)
    )
    return sessions


async def revoke(harness: ServiceHarness, tokens: dict[str, Any], by: Caller | None = None, **selection: Any) -> int:
    command = RevokeSessions(user_id=tokens["user_id"], **selection)
    ended: int = (await harness.deliver(command, caller=by or caller(tokens)))["ended"]
    return ended


async def can_refresh(harness: ServiceHarness, tokens: dict[str, Any]) -> bool:
    """Whether a refresh token can still be exchanged."""
    try:
        await harness.deliver(refresh(tokens["refresh_token"], tokens["client_id"]))
    except Refused:
        return False
    return True


async def test_session_is_listed_with_client_device_times_and_place(harness: ServiceHarness) -> None:
    began = harness.now
    tokens = await log_in(harness, device=DEVICE)
    harness.now += timedelta(minutes=30)
    tokens = await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    [session] = await list_sessions(harness, tokens)

    def formatted(moment: Any) -> str:
        return str(moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    assert session.pop("id").partition("_")[0] == "test"
    assert session == {
        "client_id": CLIENT,
        "device": {"platform": "mac"},
        "created_at": formatted(began),
        "last_used_at": formatted(harness.now),
        "expires_at": formatted(harness.now + timedelta(days=60)),
        "place": {"network": "203.0.113.0/24", "country": None, "city": None},
        "current": True,
    }


async def test_only_the_prefix_of_the_ip_address_is_stored(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    documents = await harness.database["refresh_tokens"].find().to_list()
    assert any(document["cidrBlocks"] == ["203.0.113.0/24"] for document in documents)
    assert "203.0.113.77" not in repr(documents)


async def test_country_and_city_are_listed_with_a_geoip_database(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness, tmp_path: Path
) -> None:
    tokens = await log_in(harness)
    tokens = await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    async with new_harness(places_database=database(tmp_path)) as with_geoip:
        [session] = await list_sessions(with_geoip, tokens)
    assert session["place"] == {"network": "203.0.113.0/24", "country": "DE", "city": "Berlin"}


async def test_current_session_is_marked(harness: ServiceHarness) -> None:
    phone, laptop = await log_in(harness), await log_in(harness, client_id=OTHER_CLIENT)
    for tokens in (phone, laptop):
        [current] = [session for session in await list_sessions(harness, tokens) if session["current"]]
        assert current["client_id"] == tokens["client_id"]
    sessions = await harness.deliver(ListSessions(user_id=phone["user_id"]), caller=INTERNAL)
    assert [session["current"] for session in sessions] == [False, False]


async def test_session_stays_current_after_a_refresh_of_its_token(
    harness: ServiceHarness,
) -> None:
    old = tokens = await log_in(harness)
    await log_in(harness)
    for _ in range(2):
        refreshed = await harness.deliver(refresh(tokens["refresh_token"]))
        for known in (tokens, refreshed):
            listed = {session["current"]: session for session in await list_sessions(harness, known)}
            assert listed[True]["created_at"] <= listed[False]["created_at"]
        replaced, tokens = tokens, refreshed
    assert [session["current"] for session in await list_sessions(harness, old)] == [False, False]
    assert await revoke(harness, replaced, which="others") == 1
    assert await revoke(harness, replaced, which="others") == 0


async def test_ended_and_expired_sessions_are_not_listed(harness: ServiceHarness) -> None:
    ended, expired = await log_in(harness), await log_in(harness)
    harness.now += timedelta(days=59)
    ended = await harness.deliver(refresh(ended["refresh_token"]))
    await revoke(harness, ended, which="current")
    harness.now += timedelta(days=1)
    live = await log_in(harness)
    assert [session["current"] for session in await list_sessions(harness, live)] == [True]
    assert expired["user_id"] == live["user_id"]


async def test_tokens_without_later_fields_are_sessions_and_refreshable(
    harness: ServiceHarness,
) -> None:
    tokens = await log_in(harness)
    await store_access_tokens_apart(harness)
    await make_older(harness)
    later_fields = {"network": "", "platform": "", "accessTokenId": "", "chainBeganAt": ""}
    for name in ("access_tokens", "refresh_tokens"):
        await harness.database[name].update_many({}, {"$unset": later_fields})
    [session] = await list_sessions(harness, tokens)
    assert (session["place"], session["device"], session["current"]) == (None, None, True)
    assert session["created_at"] == session["last_used_at"]
    harness.clear()
    await harness.deliver(refresh(tokens["refresh_token"]))
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [token_id(tokens)]


async def test_revocation_of_a_session_is_published(harness: ServiceHarness) -> None:
    phone, laptop = await log_in(harness), await log_in(harness)
    [other] = [session for session in await list_sessions(harness, laptop) if not session["current"]]
    harness.clear()
    assert await revoke(harness, laptop, session_id=other["id"]) == 1
    [revoked] = harness.published_of(AccessTokenRevoked)
    assert revoked.token_id == token_id(phone)
    [event] = harness.published_of(SessionRevoked)
    assert (event.user_id, event.client_id, event.session_id, event.by) == (
        phone["user_id"],
        CLIENT,
        other["id"],
        "user",
    )
    assert not await can_refresh(harness, phone)
    assert await can_refresh(harness, laptop)


@pytest.mark.parametrize(
    ("selection", "ended", "left"),
    [
        ({"which": "others"}, 2, [True, False, False]),
        ({"which": "current"}, 1, [False, True, True]),
        ({"which": "all"}, 3, [False, False, False]),
        ({}, 3, [False, False, False]),
    ],
)
async def test_selected_sessions_are_revoked(
    harness: ServiceHarness, selection: dict[str, Any], ended: int, left: list[bool]
) -> None:
    devices = [await log_in(harness) for _ in range(3)]
    other_user = await log_in(harness, identifier_value="other@example.com")
    harness.clear()
    assert await revoke(harness, devices[0], **selection) == ended
    assert len(harness.published_of(AccessTokenRevoked)) == len(harness.published_of(SessionRevoked)) == ended
    assert [await can_refresh(harness, device) for device in devices] == left
    assert await can_refresh(harness, other_user)


async def test_access_token_without_refresh_token_is_a_session(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    # As after a login by phone.
    await store_access_tokens_apart(harness)
    await harness.database["refresh_tokens"].delete_many({})
    [session] = await list_sessions(harness, tokens)
    assert session["current"]
    harness.clear()
    assert await revoke(harness, tokens, session_id=session["id"]) == 1
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [token_id(tokens)]
    assert await list_sessions(harness, tokens) == []


async def test_operator_revokes_all_sessions_of_a_user(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    harness.clear()
    assert await revoke(harness, tokens, by=INTERNAL) == 1
    assert [event.by for event in harness.published_of(SessionRevoked)] == ["internal"]
    assert not await can_refresh(harness, tokens)


async def test_second_revocation_of_all_sessions_changes_nothing(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await revoke(harness, tokens)
    harness.clear()
    assert await revoke(harness, tokens) == 0
    assert harness.published == []


async def test_second_delivery_returns_the_same_reply_and_publishes_nothing(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    command = RevokeSessions(user_id=tokens["user_id"])
    delivery = redeliverable(harness, command)
    harness.clear()
    replies = await asyncio.gather(
        *(harness.deliver(command, caller=caller(tokens), **delivery) for _ in range(2)),
        harness.deliver(command, caller=caller(tokens), **delivery),
    )
    assert replies == [{"ended": 1}] * 3
    assert len(harness.published_of(SessionRevoked)) == 1


async def test_session_of_another_user_is_not_found(harness: ServiceHarness) -> None:
    ana, eve = await log_in(harness), await log_in(harness, identifier_value="eve@example.com")
    [anas] = await list_sessions(harness, ana)
    # The gateway accepts only Eve's own user ID from her.
    command = RevokeSessions(user_id=eve["user_id"], session_id=anas["id"])
    assert await refusal(harness, command, caller=caller(eve)) == ("not_found", "not_found")
    assert await can_refresh(harness, ana)


async def test_unknown_user_is_not_found(harness: ServiceHarness) -> None:
    for message in (ListSessions(user_id="user_nobody"), RevokeSessions(user_id="user_nobody")):
        assert await refusal(harness, message, caller=INTERNAL) == ("not_found", "not_found")


@pytest.mark.parametrize("which", ["others", "current"])
async def test_operator_has_no_current_session(harness: ServiceHarness, which: Any) -> None:
    tokens = await log_in(harness)
    command = RevokeSessions(user_id=tokens["user_id"], which=which)
    assert await refusal(harness, command, caller=INTERNAL) == ("invalid", "no_current_session")
    assert await can_refresh(harness, tokens)


async def test_revoked_session_can_not_revoke_others(harness: ServiceHarness) -> None:
    thief, owner = await log_in(harness), await log_in(harness)
    await revoke(harness, owner, which="others")
    command = RevokeSessions(user_id=thief["user_id"], which="others")
    # In the second after the revocation a gateway may still accept the thief's token.
    assert await refusal(harness, command, caller=caller(thief)) == ("invalid", "no_current_session")
    assert await can_refresh(harness, owner)


def test_session_id_and_which_are_exclusive() -> None:
    with pytest.raises(ValidationError, match="give session_id or which, not both"):
        RevokeSessions(user_id="u", session_id="s", which="all")


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_revocation_racing_a_refresh_revokes_all_tokens(harness: ServiceHarness, rounds: int) -> None:
    for _ in range(rounds):
        tokens = await log_in(harness)
        results = await asyncio.gather(
            harness.deliver(refresh(tokens["refresh_token"])), revoke(harness, tokens), return_exceptions=True
        )
        assert results[1] == 1
        assert await harness.database["refresh_tokens"].count_documents({"revokedAt": None}) == 0


@pytest.mark.parametrize("apart", [False, True])
async def test_erasure_publishes_revocations_and_deletes_all_tokens(
    harness: ServiceHarness,
    monkeypatch: pytest.MonkeyPatch,
    apart: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(handlers, "MAX_REMOVED", 3)
    logins = [await log_in(harness) for _ in range(5)]
    other_user = await log_in(harness, identifier_value="other@example.com")
    tokens = logins[0] = await harness.deliver(refresh(logins[0]["refresh_token"]))
    if apart:
        await store_access_tokens_apart(harness)
    harness.clear()
    rounds = await _remove_sessions(harness, tokens["user_id"])
    assert rounds == 2
    revoked = [event.token_id for event in harness.published_of(AccessTokenRevoked)]
    assert sorted(revoked) == sorted(map(token_id, logins))
    for name in ("access_tokens", "refresh_tokens") if apart else ("refresh_tokens",):
        assert {token["userId"] for token in await harness.database[name].find().to_list()} == {other_user["user_id"]}
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("not_found", "token_not_found")


async def _remove_sessions(harness: ServiceHarness, user_id: str) -> int:
    """Call ``remove_sessions`` in a handler until no token is left, and return the number of calls."""
    left, rounds = True, 0

    async def erase(command: RevokeSessions, work: Any, auth: Any) -> None:
        nonlocal left
        left = await handlers.remove_sessions(command.user_id, work, auth)

    harness._handling._handlers[RevokeSessions.wire] = (RevokeSessions, erase)
    while left:
        rounds += 1
        await harness.deliver(RevokeSessions(user_id=user_id))
    return rounds


async def last_login(harness: ServiceHarness, address: str = ADDRESS) -> LastLogin:
    """Auth's answer to the mailer, with which it orders the mail again."""
    sealed = Sealed(harness.sealer.seal("mailer", address.encode()))
    order = SendMail(template="welcome", to=sealed, variables=sealed, order_id="a" * 32)
    harness.clear()
    await harness.deliver(FindLastLogin(key="k", address=Sealed.of(address), mail=order))
    (again,) = harness.published_of(SendMail)
    assert (again.template, again.order_id) == (order.template, order.order_id)
    assert harness.unseal_secret("mailer", again.to) == address
    assert again.last_login is not None
    return again.last_login


async def test_last_login_of_a_mails_recipient_is_the_link_redeemed_last(harness: ServiceHarness) -> None:
    codes = {client: await request_code(harness, client_id=client) for client in (CLIENT, OTHER_CLIENT)}
    assert await last_login(harness) == LastLogin()
    harness.now = harness.now.replace(microsecond=0)
    for client in (OTHER_CLIENT, CLIENT):
        harness.now += timedelta(seconds=1)
        tokens = await harness.deliver(redemption(codes[client], client_id=client))
        expected = LastLogin(order_id=derived_message_id("link", codes[client].partition(".")[0]), at=harness.now)
        assert await last_login(harness, "Ana@EXAMPLE.com") == expected
    harness.now += timedelta(seconds=1)
    await harness.deliver(refresh(tokens["refresh_token"]))
    await harness.deliver(RevokeSessions(user_id=tokens["user_id"], which="all"), caller=INTERNAL)
    assert await last_login(harness) == expected
    assert await last_login(harness, "other@example.com") == LastLogin()
