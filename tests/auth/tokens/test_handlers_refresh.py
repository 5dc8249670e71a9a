import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import jwt
import pytest

from services.auth.tokens.credentials import hash_key
from services.auth.tokens.handlers import SUCCESSORS
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.sessions import RevokeSessions
from shared.messages.auth.tokens import AccessTokenRevoked, RefreshTokenReused, TokenView
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    OTHER_CLIENT,
    REDIRECT_URI,
    disable_client,
    log_in,
    redeliverable,
    refresh,
    refusal,
)
from tests.service_harness import ServiceHarness

GRACE_PERIOD = timedelta(seconds=30)


def token_id(refresh_token: str) -> str:
    return refresh_token.split(".")[1]


async def refused(harness: ServiceHarness, refresh_token: str | None, client_id: str = CLIENT) -> tuple[str, str]:
    """Send a refresh token that is refused, and return the refusal's kind and code."""
    return await refusal(harness, refresh(refresh_token, client_id))


async def unrevoked_tokens(harness: ServiceHarness) -> list[str]:
    """IDs of the refresh tokens that are not revoked; with each goes an access token."""
    assert await harness.database["access_tokens"].count_documents({}) == 0
    return [token["_id"] for token in await harness.database["refresh_tokens"].find({"revokedAt": None}).to_list()]


async def exchanges(harness: ServiceHarness) -> int:
    """How often the refresh token of the only session was exchanged."""
    [token] = await harness.database["refresh_tokens"].find().to_list()
    return int(token["version"]) - 1


async def log_in_and_refresh_twice(harness: ServiceHarness) -> dict[str, Any]:
    """Log in and use the first refresh token and its successor; return the tokens of the login."""
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    await harness.deliver(refresh(second["refresh_token"]))
    return first


async def test_refresh_token_is_exchanged_for_its_successor(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    harness.clear()
    harness.now += timedelta(minutes=50)
    second = await harness.deliver(refresh(first["refresh_token"]))
    assert second["user_id"] == first["user_id"]
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == 3600
    assert second["expires_at"] > first["expires_at"]


async def test_refresh_revokes_the_previous_tokens_in_the_same_commit(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    old = await harness.database["refresh_tokens"].find_one({})
    harness.clear()
    harness.now += timedelta(minutes=50)
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    second = await harness.deliver(refresh(first["refresh_token"]))
    assert harness.published == [
        AccessTokenRevoked(token_id=old["accessTokenId"], expires_at=old["accessTokenExpiresAt"])
    ]
    [successor] = await harness.database["refresh_tokens"].find().to_list()
    changed = {name for name, value in successor.items() if value != old[name]}
    assert changed == {
        "key",
        "previousKey",
        "chainKey",
        "grant",
        "createdAt",
        "expiresAt",
        "accessTokenId",
        "accessTokenExpiresAt",
        "previousAccessTokenId",
        "sealedReply",
        "version",
    }
    assert token_id(second["refresh_token"]) == token_id(first["refresh_token"]) == successor["_id"]
    assert successor["key"] == hash_key(second["refresh_token"].split(".")[2])
    assert successor["previousKey"] == old["key"] == hash_key(first["refresh_token"].split(".")[2])
    assert successor["grant"] == {"type": "refresh_token", "value": old["_id"]}
    assert (successor["createdAt"], successor["expiresAt"]) == (now, now + timedelta(days=60))
    assert len(await unrevoked_tokens(harness)) == 1


async def test_keys_of_a_token_family_begin_alike_and_end_at_random(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    keys = []
    for _ in range(5):
        keys.append(tokens["refresh_token"].split(".")[2])
        tokens = await harness.deliver(refresh(tokens["refresh_token"]))
    assert {len(key) for key in keys} == {64}
    assert len({key[:24] for key in keys}) == 1
    # 160 bits differ (RFC 6749 section 10.10); two keys agree in 40 random digits at about 3 places.
    for earlier, later in combinations(keys, 2):
        assert sum(a == b for a, b in zip(earlier[24:], later[24:], strict=True)) < 20
    other = await log_in(harness)
    assert other["refresh_token"].split(".")[2][:24] != keys[0][:24]


async def test_revocation_of_an_expired_access_token_is_not_published(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    harness.clear()
    harness.now += timedelta(hours=1)
    await harness.deliver(refresh(first["refresh_token"]))
    assert harness.published == []
    assert len(await unrevoked_tokens(harness)) == 1


async def test_second_delivery_of_a_refresh_returns_the_same_tokens(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    command = refresh(first["refresh_token"])
    delivery = redeliverable(harness, command)
    answers = [await harness.deliver(command, **delivery) for _ in range(2)]
    assert answers[0] == answers[1]
    assert await exchanges(harness) == 1


async def test_repeat_within_30_seconds_gets_the_same_successor(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    answer = await harness.deliver(refresh(first["refresh_token"]))
    harness.clear()
    harness.now += GRACE_PERIOD
    assert await harness.deliver(refresh(first["refresh_token"])) == answer
    assert harness.published == []
    harness.now += timedelta(days=1)
    await harness.deliver(refresh(answer["refresh_token"]))


async def test_concurrent_refreshes_get_one_successor(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    answers = await asyncio.gather(*(harness.deliver(refresh(first["refresh_token"])) for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert await exchanges(harness) == 1


@pytest.mark.parametrize(
    "after", [timedelta(seconds=31), timedelta(minutes=59), timedelta(hours=1), timedelta(days=1), timedelta(days=59)]
)
async def test_repeat_gets_the_same_successor_until_it_is_used(harness: ServiceHarness, after: timedelta) -> None:
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    harness.clear()
    harness.now += after
    for _ in range(2):
        repeated = await harness.deliver(refresh(first["refresh_token"]))
        assert repeated["refresh_token"] == second["refresh_token"]
        expiry = datetime.fromisoformat(repeated["expires_at"])
        # The handler's clock has whole milliseconds, and the reply whole seconds.
        assert abs((expiry - harness.now).total_seconds() - repeated["expires_in"]) <= 1
        assert (repeated["access_token"] == second["access_token"]) == (after < timedelta(hours=1))
        harness.now += timedelta(seconds=45)
    assert harness.published == []
    assert len(await unrevoked_tokens(harness)) == 1
    third = await harness.deliver(refresh(second["refresh_token"]))
    assert await refused(harness, first["refresh_token"]) == ("conflict", "token_used")
    assert await unrevoked_tokens(harness) == []
    assert await refused(harness, third["refresh_token"]) == ("not_found", "authorization_not_found")


async def test_renewed_access_token_ends_with_its_session(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.deliver(refresh(first["refresh_token"]))
    harness.now += timedelta(hours=2)
    repeated = await harness.deliver(refresh(first["refresh_token"]))
    harness.clear()
    await harness.deliver(refresh(repeated["refresh_token"]))
    [revoked] = harness.published_of(AccessTokenRevoked)
    assert revoked.token_id == jwt.decode(repeated["access_token"], options={"verify_signature": False})["jti"]


async def test_repeat_is_refused_once_the_successor_has_expired(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.deliver(refresh(first["refresh_token"]))
    harness.now += timedelta(days=60)
    assert await refused(harness, first["refresh_token"]) == ("gone", "token_expired")
    assert harness.published_of(RefreshTokenReused) == []


async def test_repeat_without_the_sealing_key_needs_a_login(new_harness: Callable[..., ServiceHarness]) -> None:
    old, new = {"old": bytes(range(32))}, {"new": bytes(32)}
    async with new_harness(old) as harness:
        await harness.deliver(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        first = await log_in(harness)
        second = await harness.deliver(refresh(first["refresh_token"]))
    async with new_harness({**new, **old}):
        pass  # The start seals the signing keys with the new key.
    async with new_harness(new) as harness:
        assert await refused(harness, first["refresh_token"]) == ("conflict", "token_used")
        assert harness.published_of(RefreshTokenReused) == []
        await harness.deliver(refresh(second["refresh_token"]))


async def test_concurrent_late_repeats_get_one_access_token(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.deliver(refresh(first["refresh_token"]))
    harness.now += timedelta(hours=2)
    answers = await asyncio.gather(*(harness.deliver(refresh(first["refresh_token"])) for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await unrevoked_tokens(harness)) == 1


async def test_repeat_after_use_of_the_successor_is_theft(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    third = await harness.deliver(refresh(second["refresh_token"]))
    assert await refused(harness, first["refresh_token"]) == ("conflict", "token_used")
    assert await unrevoked_tokens(harness) == []
    assert await refused(harness, third["refresh_token"]) == ("not_found", "authorization_not_found")


@pytest.mark.parametrize("back", [2, 3, 6])
async def test_reuse_of_any_older_token_is_theft(harness: ServiceHarness, back: int) -> None:
    tokens = [await log_in(harness)]
    for _ in range(6):
        harness.now += timedelta(minutes=55)
        tokens.append(await harness.deliver(refresh(tokens[-1]["refresh_token"])))
    assert await refused(harness, tokens[-1 - back]["refresh_token"]) == ("conflict", "token_used")
    assert len(harness.published_of(RefreshTokenReused)) == 1
    assert await refused(harness, tokens[-1]["refresh_token"]) == ("not_found", "authorization_not_found")


async def test_repeat_by_another_client_is_theft(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.deliver(refresh(first["refresh_token"]))
    assert await refused(harness, first["refresh_token"], OTHER_CLIENT) == ("conflict", "token_used")
    assert await unrevoked_tokens(harness) == []


async def test_theft_is_published_and_mailed_to_the_user(harness: ServiceHarness) -> None:
    first = await log_in_and_refresh_twice(harness)
    live = (await harness.database["refresh_tokens"].find_one({"revokedAt": None}))["accessTokenId"]
    harness.clear()
    harness.now += GRACE_PERIOD * 2
    await refused(harness, first["refresh_token"])
    [revoked] = harness.published_of(AccessTokenRevoked)
    assert revoked.token_id == live
    [reused] = harness.published_of(RefreshTokenReused)
    root_grant = (await harness.database["refresh_tokens"].find_one({}))["rootGrant"]["value"]
    assert (reused.user_id, reused.client_id, reused.root_grant) == (first["user_id"], CLIENT, root_grant)
    [mail] = harness.published_of(SendMail)
    assert (mail.template, harness.unseal_secret("mailer", mail.to)) == ("session-theft", ADDRESS)


async def test_theft_delivered_twice_sends_one_mail(harness: ServiceHarness) -> None:
    first = await log_in_and_refresh_twice(harness)
    harness.clear()
    harness.now += GRACE_PERIOD * 2
    command = refresh(first["refresh_token"])
    delivery = redeliverable(harness, command)
    for _ in range(2):
        assert await refusal(harness, command, **delivery) == ("conflict", "token_used")
    assert len(harness.published_of(SendMail)) == 1


async def test_repeated_theft_sends_one_mail(harness: ServiceHarness) -> None:
    first = await log_in_and_refresh_twice(harness)
    harness.clear()
    harness.now += GRACE_PERIOD * 2
    answers = await asyncio.gather(*(refused(harness, first["refresh_token"]) for _ in range(20)))
    assert set(answers) == {("conflict", "token_used")}
    assert len(harness.published_of(SendMail)) == 1
    assert len(harness.published_of(RefreshTokenReused)) == 1


async def test_theft_does_not_affect_other_sessions(harness: ServiceHarness) -> None:
    phone, laptop = await log_in_and_refresh_twice(harness), await log_in(harness)
    harness.now += GRACE_PERIOD * 2
    await refused(harness, phone["refresh_token"])
    assert (await harness.deliver(refresh(laptop["refresh_token"])))["user_id"] == laptop["user_id"]


async def test_theft_racing_a_refresh_revokes_all_tokens(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    third = await harness.deliver(refresh(second["refresh_token"]))
    await asyncio.gather(
        harness.deliver(refresh(third["refresh_token"])),
        refused(harness, first["refresh_token"]),
        return_exceptions=True,
    )
    assert await unrevoked_tokens(harness) == []


@pytest.mark.parametrize("empty", [None, ""])
async def test_missing_refresh_token_is_named(harness: ServiceHarness, empty: str | None) -> None:
    assert await refused(harness, empty) == ("invalid", "refresh_token_missing")


@pytest.mark.parametrize(
    "text", ["id", "01.id", "02.id.key", "1.id.key", "01..key", "01.id.", "01.id.key.more", "id.key"]
)
async def test_other_formats_are_malformed(harness: ServiceHarness, text: str) -> None:
    assert await refused(harness, text) == ("invalid", "malformed_refresh_token")


async def test_unknown_id_and_wrong_key_are_refused_alike(harness: ServiceHarness) -> None:
    answer = await log_in(harness)
    _, id_, key = answer["refresh_token"].split(".")
    for wrong in (f"01.reftok_unknown.{key}", f"01.{id_}.{'0' * 64}"):
        assert await refused(harness, wrong) == ("not_found", "token_not_found")
    await harness.deliver(refresh(answer["refresh_token"]))


@pytest.mark.parametrize("kept", [0, 23])
async def test_used_token_with_a_wrong_key_is_no_theft(harness: ServiceHarness, kept: int) -> None:
    """Token IDs are not secret: a caller who knows only the ID cannot end the session."""
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    _, id_, key = first["refresh_token"].split(".")
    wrong = key[:kept] + ("0" if key[kept] != "0" else "1") + key[kept + 1 :]
    assert await refused(harness, f"01.{id_}.{wrong}") == ("not_found", "token_not_found")
    await harness.deliver(refresh(second["refresh_token"]))


async def test_other_client_is_refused_and_the_token_stays_open(harness: ServiceHarness) -> None:
    answer = await log_in(harness)
    for client_id in (OTHER_CLIENT, "client_unknown"):
        assert await refused(harness, answer["refresh_token"], client_id) == ("forbidden", "incorrect_client")
    await harness.deliver(refresh(answer["refresh_token"]))


async def test_client_disabled_meanwhile_is_refused(harness: ServiceHarness) -> None:
    answer = await log_in(harness)
    await disable_client(harness)
    assert await refused(harness, answer["refresh_token"]) == ("forbidden", "client_disabled")


async def test_repeat_for_a_disabled_client_is_refused(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.deliver(refresh(first["refresh_token"]))
    await disable_client(harness)
    assert await refused(harness, first["refresh_token"]) == ("forbidden", "client_disabled")
    assert len(await unrevoked_tokens(harness)) == 1


async def test_theft_is_recognized_for_a_disabled_client(harness: ServiceHarness) -> None:
    first = await log_in_and_refresh_twice(harness)
    await disable_client(harness)
    harness.now += GRACE_PERIOD * 2
    assert await refused(harness, first["refresh_token"]) == ("conflict", "token_used")
    assert await unrevoked_tokens(harness) == []


async def test_unused_refresh_token_expires_after_60_days(harness: ServiceHarness) -> None:
    answer = await log_in(harness)
    harness.now += timedelta(days=60)
    assert await refused(harness, answer["refresh_token"]) == ("gone", "token_expired")


async def test_token_family_ends_after_a_year(harness: ServiceHarness) -> None:
    answer = await log_in(harness)
    for _ in range(7):
        harness.now += timedelta(days=52)
        answer = await harness.deliver(refresh(answer["refresh_token"]))
    harness.now += timedelta(days=1)
    assert await refused(harness, answer["refresh_token"]) == ("gone", "token_expired")


async def test_stored_reply_can_be_unsealed_for_its_purpose_only(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    second = await harness.deliver(refresh(first["refresh_token"]))
    unused = await harness.database["refresh_tokens"].find_one({"_id": token_id(second["refresh_token"])})
    assert second["refresh_token"].split(".")[2] not in str(unused)
    for receiver in ("gateway", "mailer", "auth"):
        with pytest.raises(Exception, match="not sealed for"):
            harness.sealer.unseal(receiver, unused["sealedReply"])


async def test_only_the_reply_with_an_unused_token_is_stored(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    stored = harness.database["refresh_tokens"]
    assert (await stored.find_one({}))["sealedReply"] is None
    for _ in range(3):
        tokens = await harness.deliver(refresh(tokens["refresh_token"]))
        token = await stored.find_one({})
        assert TokenView.model_validate_json(harness.sealer.unseal(SUCCESSORS, token["sealedReply"])) == TokenView(
            **tokens
        )
    await harness.deliver(RevokeSessions(user_id=tokens["user_id"], which="all"))
    assert (await stored.find_one({}))["sealedReply"] is None
