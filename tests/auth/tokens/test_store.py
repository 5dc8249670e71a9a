"""Tokens that were stored by earlier releases."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import jwt
import pytest

from services.auth.app import MIGRATIONS
from services.auth.tokens import store as token_store
from services.auth.tokens.handlers import SUCCESSORS
from shared.messages import Caller
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.tokens import AccessTokenRevoked, TokenView
from tests.auth.flows import log_in, refresh, refresh_in_two_documents, refusal, store_access_tokens_apart
from tests.service_harness import ServiceHarness

HOME = Caller(client_ip="203.0.113.77")
COLLECTIONS = ("access_tokens", "refresh_tokens")


async def make_older(harness: ServiceHarness) -> None:
    """Give all tokens the shape that they had before 2026-11-28."""
    older = {
        "rootGrant": "$rootGrant.value",
        "network": {"$ifNull": [{"$first": "$cidrBlocks"}, None]},
        "cidrBlocks": [],
    }
    for name in COLLECTIONS:
        await harness.database[name].update_many({}, [{"$set": older}])


async def stored(harness: ServiceHarness) -> list[dict[str, Any]]:
    return [document for name in COLLECTIONS for document in await harness.database[name].find().sort("_id").to_list()]


def jti(tokens: dict[str, Any]) -> str:
    token_id: str = jwt.decode(tokens["access_token"], options={"verify_signature": False})["jti"]
    return token_id


async def sessions(harness: ServiceHarness, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    caller = Caller(kind="user", user_id=tokens["user_id"], token_id=jti(tokens))
    listed: list[dict[str, Any]] = await harness.deliver(ListSessions(user_id=tokens["user_id"]), caller=caller)
    return listed


async def logins_of_every_kind(harness: ServiceHarness) -> dict[str, Any]:
    """Log in by link, by phone and for tests, with and without a known network; return the tokens of a refresh."""
    tokens = await log_in(harness)
    tokens = await refresh_in_two_documents(harness, tokens["refresh_token"], caller=HOME)
    await store_access_tokens_apart(harness)
    template = await harness.database["access_tokens"].find_one({})
    for kind in ("phone_code", "test_login"):
        grant = {"type": kind, "value": f"{kind}_1"}
        changes = {"_id": f"acstok_{kind}", "grant": grant, "rootGrant": grant, "userId": "user_of_a_phone"}
        await harness.database["access_tokens"].insert_one({**template, **changes})
    return tokens


async def test_tokens_of_before_are_read(harness: ServiceHarness) -> None:
    tokens = await logins_of_every_kind(harness)
    listed = await sessions(harness, tokens)
    assert listed[0]["place"]["network"] == "203.0.113.0/24"
    await make_older(harness)
    assert await sessions(harness, tokens) == listed
    refreshed = await harness.deliver(refresh(tokens["refresh_token"]), caller=HOME)
    [session] = await sessions(harness, refreshed)
    assert (session["id"], session["current"]) == (listed[0]["id"], True)


@pytest.mark.parametrize("end", ["session", "refresh", "theft"])
async def test_access_token_that_is_a_document_is_revoked_with_its_refresh_token(
    harness: ServiceHarness, end: str
) -> None:
    first = await log_in(harness)
    tokens = await harness.deliver(refresh(first["refresh_token"]))
    if end == "theft":
        tokens = await harness.deliver(refresh(tokens["refresh_token"]))
    await store_access_tokens_apart(harness)
    harness.clear()
    harness.now += timedelta(minutes=1)
    if end == "session":
        await harness.deliver(RevokeSessions(user_id=tokens["user_id"]))
    elif end == "refresh":
        await harness.deliver(refresh(tokens["refresh_token"]))
    else:
        assert await refusal(harness, refresh(first["refresh_token"])) == ("conflict", "token_used")
    assert [event.token_id for event in harness.published_of(AccessTokenRevoked)] == [jti(tokens)]
    assert await harness.database["access_tokens"].count_documents({"revokedAt": None}) == 0


async def test_job_rewrites_tokens_of_before(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.migrations.BATCH", 2)
    await logins_of_every_kind(harness)
    before = await stored(harness)
    roots = [document["rootGrant"]["type"] for document in before]
    assert sorted(roots) == ["authorization_code"] * 4 + ["phone_code", "test_login"]
    await make_older(harness)
    assert await stored(harness) != before
    assert await harness.migrate(MIGRATIONS) == len(before)
    assert await stored(harness) == before


async def refreshed_before(harness: ServiceHarness) -> list[dict[str, Any]]:
    """Refresh a login twice and give the tokens the shape that they had before 2026-11-29; return all replies."""
    replies = [await log_in(harness)]
    for _ in range(2):
        replies.append(await refresh_in_two_documents(harness, replies[-1]["refresh_token"]))
    tokens = harness.database["refresh_tokens"]
    for reply, following in pairwise(replies):
        sealed = harness.sealer.seal(SUCCESSORS, TokenView(**following).model_dump_json().encode())
        await tokens.update_one({"_id": reply["refresh_token"].split(".")[1]}, {"$set": {"successor.sealed": sealed}})
    await tokens.update_many({}, {"$unset": {"sealedReply": ""}})
    return replies


@pytest.mark.parametrize("migrated", [False, True])
async def test_replies_of_before_are_repeated(harness: ServiceHarness, migrated: bool) -> None:  # noqa: FBT001
    replies = await refreshed_before(harness)
    if migrated:
        assert await harness.migrate(MIGRATIONS) == 2
        documents = await harness.database["refresh_tokens"].find().sort("createdAt").to_list()
        assert [bool(each.get("sealedReply")) for each in documents] == [False, False, True]
        assert [each["successor"]["sealed"] for each in documents[:2]] == ["", ""]
    assert await harness.deliver(refresh(replies[1]["refresh_token"])) == replies[2]
    assert await refusal(harness, refresh(replies[0]["refresh_token"])) == ("conflict", "token_used")


async def test_used_token_that_is_a_document_is_repeated_until_its_successor_is_used(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    second = await refresh_in_two_documents(harness, first["refresh_token"])
    assert await harness.deliver(refresh(first["refresh_token"])) == second
    harness.now += timedelta(hours=2)
    renewed = await harness.deliver(refresh(first["refresh_token"]))
    assert (renewed["refresh_token"], jti(renewed) == jti(second)) == (second["refresh_token"], False)
    third = await harness.deliver(refresh(second["refresh_token"]))
    assert await harness.database["refresh_tokens"].count_documents({}) == 2
    assert await harness.deliver(refresh(second["refresh_token"])) == third
    assert await refusal(harness, refresh(first["refresh_token"])) == ("conflict", "token_used")
    assert await refusal(harness, refresh(third["refresh_token"])) == ("not_found", "authorization_not_found")


@pytest.mark.parametrize("number", [0, 1, 2, 3])
async def test_reuse_of_a_token_of_before_is_theft(harness: ServiceHarness, number: int) -> None:
    """The first of four used tokens is a document of its own; the second one was stored like that before its use."""
    replies = [await log_in(harness)]
    replies.append(await refresh_in_two_documents(harness, replies[0]["refresh_token"]))
    for _ in range(3):
        replies.append(await harness.deliver(refresh(replies[-1]["refresh_token"])))
    if number == 3:
        assert await harness.deliver(refresh(replies[number]["refresh_token"])) == replies[4]
        replies.append(await harness.deliver(refresh(replies[4]["refresh_token"])))
    assert await refusal(harness, refresh(replies[number]["refresh_token"])) == ("conflict", "token_used")
    assert await harness.database["refresh_tokens"].count_documents({"revokedAt": None}) == 0


async def test_older_tokens_are_found_by_an_index(harness: ServiceHarness) -> None:
    for migration in (*token_store.MIGRATIONS, token_store.REPLIES_MIGRATION):
        plan = await harness.database[migration.collection].find(migration.older).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
