import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from services.auth.sessions import handlers
from shared.messages import Caller
from shared.messages.auth.sessions import ListSessions, RevokeSessions, SessionRevoked
from shared.messages.auth.tokens import AccessTokenRevoked
from tests.auth.flows import CLIENT, OTHER_CLIENT, logged_in, one_delivery, refresh, refusal
from tests.auth.sessions.test_geoip import database
from tests.service_harness import Refused, ServiceHarness

INTERNAL = Caller(kind="internal")
DEVICE = {"platform": "mac", "fingerprint": "f1"}


def token_id(tokens: dict[str, Any]) -> str:
    return str(jwt.decode(tokens["access_token"], options={"verify_signature": False})["jti"])


def caller(tokens: dict[str, Any], ip: str | None = None) -> Caller:
    """Whom the gateway makes of a bearer."""
    return Caller(kind="user", user_id=tokens["user_id"], token_id=token_id(tokens), client_ip=ip)


async def listed(harness: ServiceHarness, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await harness.deliver(ListSessions(user_id=tokens["user_id"]), caller=caller(tokens))
    return found


async def revoke(harness: ServiceHarness, tokens: dict[str, Any], by: Caller | None = None, **chosen: Any) -> int:
    command = RevokeSessions(user_id=tokens["user_id"], **chosen)
    ended: int = (await harness.deliver(command, caller=by or caller(tokens)))["ended"]
    return ended


async def works(harness: ServiceHarness, tokens: dict[str, Any]) -> bool:
    """Whether a refresh token can still be exchanged."""
    try:
        await harness.deliver(refresh(tokens["refresh_token"], tokens["client_id"]))
    except Refused:
        return False
    return True


async def test_a_session_is_listed_with_its_device_app_times_and_place(harness: ServiceHarness) -> None:
    began = harness.now
    tokens = await logged_in(harness, device=DEVICE)
    harness.now += timedelta(minutes=30)
    tokens = await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    [session] = await listed(harness, tokens)

    def told(moment: Any) -> str:
        return str(moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    assert session.pop("id").partition("_")[0] == "test"
    assert session == {
        "client_id": CLIENT,
        "device": {"platform": "mac"},
        "created_at": told(began),
        "last_used_at": told(harness.now),
        "expires_at": told(harness.now + timedelta(days=60)),
        "place": {"network": "203.0.113.0/24", "country": None, "city": None},
        "current": True,
    }


async def test_nothing_but_the_prefix_of_an_address_is_kept(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    for name in ("access_tokens", "refresh_tokens"):
        documents = await harness.database[name].find().to_list()
        assert any(document["network"] == "203.0.113.0/24" for document in documents)
        assert "203.0.113.77" not in repr(documents)


async def test_where_a_database_says_so_the_country_and_city_are_told(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness, tmp_path: Path
) -> None:
    tokens = await logged_in(harness)
    tokens = await harness.deliver(refresh(tokens["refresh_token"]), caller=Caller(client_ip="203.0.113.77"))
    async with new_harness(places_database=database(tmp_path)) as informed:
        [session] = await listed(informed, tokens)
    assert session["place"] == {"network": "203.0.113.0/24", "country": "DE", "city": "Berlin"}


async def test_the_callers_own_session_is_marked(harness: ServiceHarness) -> None:
    phone, laptop = await logged_in(harness), await logged_in(harness, client_id=OTHER_CLIENT)
    for tokens in (phone, laptop):
        [current] = [session for session in await listed(harness, tokens) if session["current"]]
        assert current["client_id"] == tokens["client_id"]
    seen = await harness.deliver(ListSessions(user_id=phone["user_id"]), caller=INTERNAL)
    assert [session["current"] for session in seen] == [False, False]


async def test_the_session_stays_the_current_one_when_its_token_was_just_refreshed_away(
    harness: ServiceHarness,
) -> None:
    old = await logged_in(harness)
    await harness.deliver(refresh(old["refresh_token"]))
    assert [session["current"] for session in await listed(harness, old)] == [True]
    assert await revoke(harness, old, which="others") == 0


async def test_sessions_that_are_over_are_not_listed(harness: ServiceHarness) -> None:
    ended, expired = await logged_in(harness), await logged_in(harness)
    harness.now += timedelta(days=59)
    ended = await harness.deliver(refresh(ended["refresh_token"]))
    await revoke(harness, ended, which="current")
    harness.now += timedelta(days=1)
    live = await logged_in(harness)
    assert [session["current"] for session in await listed(harness, live)] == [True]
    assert expired["user_id"] == live["user_id"]


async def test_tokens_stored_before_sessions_were_told_are_sessions_and_can_be_refreshed(
    harness: ServiceHarness,
) -> None:
    tokens = await logged_in(harness)
    new = {"network": "", "platform": "", "accessTokenId": "", "chainBeganAt": ""}
    for name in ("access_tokens", "refresh_tokens"):
        await harness.database[name].update_many({}, {"$unset": new})
    [session] = await listed(harness, tokens)
    assert (session["place"], session["device"], session["current"]) == (None, None, True)
    assert session["created_at"] == session["last_used_at"]
    harness.clear()
    await harness.deliver(refresh(tokens["refresh_token"]))
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [token_id(tokens)]


async def test_one_session_is_ended_and_told_to_gateways_and_services(harness: ServiceHarness) -> None:
    phone, laptop = await logged_in(harness), await logged_in(harness)
    [other] = [session for session in await listed(harness, laptop) if not session["current"]]
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
    assert not await works(harness, phone)
    assert await works(harness, laptop)


@pytest.mark.parametrize(
    ("chosen", "ended", "left"),
    [
        ({"which": "others"}, 2, [True, False, False]),
        ({"which": "current"}, 1, [False, True, True]),
        ({"which": "all"}, 3, [False, False, False]),
        ({}, 3, [False, False, False]),
    ],
)
async def test_several_sessions_are_ended(
    harness: ServiceHarness, chosen: dict[str, Any], ended: int, left: list[bool]
) -> None:
    devices = [await logged_in(harness) for _ in range(3)]
    somebody = await logged_in(harness, identifier_value="somebody@example.com")
    harness.clear()
    assert await revoke(harness, devices[0], **chosen) == ended
    assert len(harness.published_of(AccessTokenRevoked)) == len(harness.published_of(SessionRevoked)) == ended
    assert [await works(harness, device) for device in devices] == left
    assert await works(harness, somebody)


async def test_a_token_that_nothing_renews_is_a_session_too(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    # As phone logins leave it.
    await harness.database["refresh_tokens"].delete_many({})
    [session] = await listed(harness, tokens)
    assert session["current"]
    harness.clear()
    assert await revoke(harness, tokens, session_id=session["id"]) == 1
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [token_id(tokens)]
    assert await listed(harness, tokens) == []


async def test_an_operator_ends_all_sessions_of_a_user(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    harness.clear()
    assert await revoke(harness, tokens, by=INTERNAL) == 1
    assert [event.by for event in harness.published_of(SessionRevoked)] == ["internal"]
    assert not await works(harness, tokens)


async def test_ending_all_again_ends_nothing(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    await revoke(harness, tokens)
    harness.clear()
    assert await revoke(harness, tokens) == 0
    assert harness.published == []


async def test_a_second_delivery_gives_the_same_answer_and_says_nothing_more(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    command = RevokeSessions(user_id=tokens["user_id"])
    delivery = one_delivery(harness, command)
    harness.clear()
    answers = await asyncio.gather(
        *(harness.deliver(command, caller=caller(tokens), **delivery) for _ in range(2)),
        harness.deliver(command, caller=caller(tokens), **delivery),
    )
    assert answers == [{"ended": 1}] * 3
    assert len(harness.published_of(SessionRevoked)) == 1


async def test_nobody_reaches_a_session_of_another_user(harness: ServiceHarness) -> None:
    ana, eve = await logged_in(harness), await logged_in(harness, identifier_value="eve@example.com")
    [anas] = await listed(harness, ana)
    # The gateway lets Eve ask about herself alone, so this is all that she can try.
    command = RevokeSessions(user_id=eve["user_id"], session_id=anas["id"])
    assert await refusal(harness, command, caller=caller(eve)) == ("not_found", "not_found")
    assert await works(harness, ana)


async def test_an_unknown_user_is_not_found(harness: ServiceHarness) -> None:
    for message in (ListSessions(user_id="user_nobody"), RevokeSessions(user_id="user_nobody")):
        assert await refusal(harness, message, caller=INTERNAL) == ("not_found", "not_found")


@pytest.mark.parametrize("which", ["others", "current"])
async def test_an_operator_has_no_current_session(harness: ServiceHarness, which: Any) -> None:
    tokens = await logged_in(harness)
    command = RevokeSessions(user_id=tokens["user_id"], which=which)
    assert await refusal(harness, command, caller=INTERNAL) == ("invalid", "no_current_session")
    assert await works(harness, tokens)


async def test_whoever_was_logged_out_ends_no_other_session(harness: ServiceHarness) -> None:
    thief, owner = await logged_in(harness), await logged_in(harness)
    await revoke(harness, owner, which="others")
    command = RevokeSessions(user_id=thief["user_id"], which="others")
    # Within the second in which a gateway may still let the thief's token pass.
    assert await refusal(harness, command, caller=caller(thief)) == ("invalid", "no_current_session")
    assert await works(harness, owner)


def test_one_way_of_choosing_is_enough() -> None:
    with pytest.raises(ValidationError, match="give session_id or which, not both"):
        RevokeSessions(user_id="u", session_id="s", which="all")


async def test_what_is_ended_while_it_refreshes_stays_ended(harness: ServiceHarness) -> None:
    for _ in range(10):
        tokens = await logged_in(harness)
        answers = await asyncio.gather(
            harness.deliver(refresh(tokens["refresh_token"])), revoke(harness, tokens), return_exceptions=True
        )
        assert answers[1] == 1
        assert await harness.database["refresh_tokens"].count_documents({"revokedAt": None}) == 0
        assert await harness.database["access_tokens"].count_documents({"revokedAt": None}) == 0


async def test_an_erased_users_tokens_are_announced_and_nothing_of_them_is_kept(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "REMOVED_AT_ONCE", 3)
    tokens, somebody = await logged_in(harness), await logged_in(harness, identifier_value="somebody@example.com")
    for _ in range(4):
        tokens = await harness.deliver(refresh(tokens["refresh_token"]))
    harness.clear()
    rounds = await _removed(harness, tokens["user_id"])
    assert rounds == 2
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [token_id(tokens)]
    for name in ("access_tokens", "refresh_tokens"):
        assert {token["userId"] for token in await harness.database[name].find().to_list()} == {somebody["user_id"]}
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("not_found", "token_not_found")


async def _removed(harness: ServiceHarness, user_id: str) -> int:
    """Let a handler that erases run until nothing is left; returns how often."""
    left, rounds = True, 0

    async def erase(command: RevokeSessions, work: Any, auth: Any) -> None:
        nonlocal left
        left = await handlers.remove_sessions(command.user_id, work, auth)

    harness._handling._handlers[RevokeSessions.wire] = (RevokeSessions, erase)
    while left:
        rounds += 1
        await harness.deliver(RevokeSessions(user_id=user_id))
    return rounds
