import asyncio
from datetime import timedelta

import pytest

from shared.messages.auth.tokens import AccessTokenRevoked, RefreshTokenReused
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import ADDRESS, CLIENT, OTHER_CLIENT, logged_in, one_delivery, refresh, refusal
from tests.desk import Desk

GRACE_PERIOD = timedelta(seconds=30)


def id_in(refresh_token: str) -> str:
    return refresh_token.split(".")[1]


async def refused(desk: Desk, refresh_token: str | None, client_id: str = CLIENT) -> tuple[str, str]:
    """The kind and the code of the refusal that a refresh meets."""
    return await refusal(desk, refresh(refresh_token, client_id))


async def open_tokens(desk: Desk) -> list[str]:
    """The ids of all tokens that are not revoked."""
    names = ("access_tokens", "refresh_tokens")
    return [token["_id"] for name in names for token in await desk.database[name].find({"revokedAt": None}).to_list()]


async def test_a_refresh_token_is_exchanged_for_its_successor(desk: Desk) -> None:
    first = await logged_in(desk)
    desk.clear()
    desk.now += timedelta(minutes=50)
    second = await desk.perform(refresh(first["refresh_token"]))
    assert second["user_id"] == first["user_id"]
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == 3600
    assert second["expires_at"] > first["expires_at"]


async def test_a_refresh_ends_the_tokens_before_in_the_same_step(desk: Desk) -> None:
    first = await logged_in(desk)
    old = await desk.database["access_tokens"].find_one({})
    desk.clear()
    desk.now += timedelta(minutes=50)
    now = desk.now.replace(microsecond=desk.now.microsecond // 1000 * 1000)
    second = await desk.perform(refresh(first["refresh_token"]))
    assert desk.published == [AccessTokenRevoked(token_id=old["_id"], expires_at=old["expiresAt"])]
    used = await desk.database["refresh_tokens"].find_one({"_id": id_in(first["refresh_token"])})
    assert (used["usedAt"], used["revokedAt"]) == (now, now)
    successor = await desk.database["refresh_tokens"].find_one({"_id": id_in(second["refresh_token"])})
    assert successor["grant"] == {"type": "refresh_token", "value": used["_id"]}
    assert successor["rootGrant"] == used["rootGrant"]
    assert successor["chainEndsAt"] == used["chainEndsAt"]
    assert successor["expiresAt"] == now + timedelta(days=60)
    assert len(await open_tokens(desk)) == 2


async def test_an_access_token_that_has_expired_is_revoked_without_a_word(desk: Desk) -> None:
    first = await logged_in(desk)
    desk.clear()
    desk.now += timedelta(hours=1)
    await desk.perform(refresh(first["refresh_token"]))
    assert desk.published == []
    assert len(await open_tokens(desk)) == 2


async def test_a_second_delivery_of_a_refresh_gives_the_same_tokens(desk: Desk) -> None:
    first = await logged_in(desk)
    command = refresh(first["refresh_token"])
    delivery = one_delivery(desk, command)
    answers = [await desk.perform(command, **delivery) for _ in range(2)]
    assert answers[0] == answers[1]
    assert await desk.database["refresh_tokens"].count_documents({}) == 2


async def test_a_repeat_within_thirty_seconds_gets_the_same_successor(desk: Desk) -> None:
    first = await logged_in(desk)
    answer = await desk.perform(refresh(first["refresh_token"]))
    desk.clear()
    desk.now += GRACE_PERIOD
    assert await desk.perform(refresh(first["refresh_token"])) == answer
    assert desk.published == []
    desk.now += timedelta(days=1)
    await desk.perform(refresh(answer["refresh_token"]))


async def test_parallel_refreshes_all_get_one_successor(desk: Desk) -> None:
    first = await logged_in(desk)
    answers = await asyncio.gather(*(desk.perform(refresh(first["refresh_token"])) for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert await desk.database["refresh_tokens"].count_documents({}) == 2


async def test_a_repeat_after_thirty_seconds_is_theft(desk: Desk) -> None:
    first = await logged_in(desk)
    second = await desk.perform(refresh(first["refresh_token"]))
    desk.now += GRACE_PERIOD + timedelta(milliseconds=1)
    assert await refused(desk, first["refresh_token"]) == ("conflict", "token_used")
    assert await open_tokens(desk) == []
    assert await refused(desk, second["refresh_token"]) == ("not_found", "authorization_not_found")


async def test_a_repeat_once_the_successor_is_used_is_theft(desk: Desk) -> None:
    first = await logged_in(desk)
    second = await desk.perform(refresh(first["refresh_token"]))
    third = await desk.perform(refresh(second["refresh_token"]))
    assert await refused(desk, first["refresh_token"]) == ("conflict", "token_used")
    assert await open_tokens(desk) == []
    assert await refused(desk, third["refresh_token"]) == ("not_found", "authorization_not_found")


async def test_a_repeat_by_another_client_is_theft(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    assert await refused(desk, first["refresh_token"], OTHER_CLIENT) == ("conflict", "token_used")
    assert await open_tokens(desk) == []


async def test_theft_is_announced_and_told_to_the_user(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    live = (await desk.database["access_tokens"].find_one({"revokedAt": None}))["_id"]
    desk.clear()
    desk.now += GRACE_PERIOD * 2
    await refused(desk, first["refresh_token"])
    [revoked] = desk.said(AccessTokenRevoked)
    assert revoked.token_id == live
    [reused] = desk.said(RefreshTokenReused)
    root_grant = (await desk.database["refresh_tokens"].find_one({}))["rootGrant"]
    assert (reused.user_id, reused.client_id, reused.root_grant) == (first["user_id"], CLIENT, root_grant)
    [mail] = desk.said(SendMail)
    assert (mail.template, desk.reveal("mailer", mail.to)) == ("session-theft", ADDRESS)


async def test_theft_delivered_twice_is_told_once(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    desk.clear()
    desk.now += GRACE_PERIOD * 2
    command = refresh(first["refresh_token"])
    delivery = one_delivery(desk, command)
    for _ in range(2):
        assert await refusal(desk, command, **delivery) == ("conflict", "token_used")
    assert len(desk.said(SendMail)) == 1


async def test_a_thief_who_tries_again_and_again_causes_one_mail(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    desk.clear()
    desk.now += GRACE_PERIOD * 2
    answers = await asyncio.gather(*(refused(desk, first["refresh_token"]) for _ in range(20)))
    assert set(answers) == {("conflict", "token_used")}
    assert len(desk.said(SendMail)) == 1
    assert len(desk.said(RefreshTokenReused)) == 1


async def test_theft_leaves_other_devices_alone(desk: Desk) -> None:
    phone, laptop = await logged_in(desk), await logged_in(desk)
    await desk.perform(refresh(phone["refresh_token"]))
    desk.now += GRACE_PERIOD * 2
    await refused(desk, phone["refresh_token"])
    assert (await desk.perform(refresh(laptop["refresh_token"])))["user_id"] == laptop["user_id"]


async def test_theft_racing_a_refresh_leaves_nothing_open(desk: Desk) -> None:
    first = await logged_in(desk)
    second = await desk.perform(refresh(first["refresh_token"]))
    desk.now += GRACE_PERIOD * 2
    await asyncio.gather(
        desk.perform(refresh(second["refresh_token"])), refused(desk, first["refresh_token"]), return_exceptions=True
    )
    assert await open_tokens(desk) == []


@pytest.mark.parametrize("empty", [None, ""])
async def test_a_missing_refresh_token_is_named(desk: Desk, empty: str | None) -> None:
    assert await refused(desk, empty) == ("invalid", "refresh_token_missing")


@pytest.mark.parametrize(
    "text", ["id", "01.id", "02.id.key", "1.id.key", "01..key", "01.id.", "01.id.key.more", "id.key"]
)
async def test_another_form_is_malformed(desk: Desk, text: str) -> None:
    assert await refused(desk, text) == ("invalid", "malformed_refresh_token")


async def test_an_unknown_id_and_a_wrong_key_are_refused_alike(desk: Desk) -> None:
    answer = await logged_in(desk)
    _, token_id, key = answer["refresh_token"].split(".")
    for wrong in (f"01.reftok_unknown.{key}", f"01.{token_id}.{'0' * 64}"):
        assert await refused(desk, wrong) == ("not_found", "token_not_found")
    await desk.perform(refresh(answer["refresh_token"]))


async def test_a_used_token_with_a_wrong_key_is_no_theft(desk: Desk) -> None:
    first = await logged_in(desk)
    second = await desk.perform(refresh(first["refresh_token"]))
    assert await refused(desk, f"01.{id_in(first['refresh_token'])}.{'0' * 64}") == ("not_found", "token_not_found")
    await desk.perform(refresh(second["refresh_token"]))


async def test_another_client_is_refused_and_takes_nothing_away(desk: Desk) -> None:
    answer = await logged_in(desk)
    for client_id in (OTHER_CLIENT, "client_unknown"):
        assert await refused(desk, answer["refresh_token"], client_id) == ("forbidden", "incorrect_client")
    await desk.perform(refresh(answer["refresh_token"]))


async def test_a_client_disabled_since_is_refused(desk: Desk) -> None:
    answer = await logged_in(desk)
    await desk.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": desk.now}})
    assert await refused(desk, answer["refresh_token"]) == ("forbidden", "client_disabled")


async def test_a_repeat_gets_nothing_for_a_client_disabled_since(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    await desk.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": desk.now}})
    assert await refused(desk, first["refresh_token"]) == ("forbidden", "client_disabled")
    assert len(await open_tokens(desk)) == 2


async def test_a_thief_is_noticed_though_the_client_was_disabled_since(desk: Desk) -> None:
    first = await logged_in(desk)
    await desk.perform(refresh(first["refresh_token"]))
    await desk.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": desk.now}})
    desk.now += GRACE_PERIOD * 2
    assert await refused(desk, first["refresh_token"]) == ("conflict", "token_used")
    assert await open_tokens(desk) == []


async def test_a_refresh_token_expires_after_sixty_days_unused(desk: Desk) -> None:
    answer = await logged_in(desk)
    desk.now += timedelta(days=60)
    assert await refused(desk, answer["refresh_token"]) == ("gone", "token_expired")


async def test_a_chain_ends_after_a_year_however_often_it_is_refreshed(desk: Desk) -> None:
    answer = await logged_in(desk)
    for _ in range(7):
        desk.now += timedelta(days=52)
        answer = await desk.perform(refresh(answer["refresh_token"]))
    desk.now += timedelta(days=1)
    assert await refused(desk, answer["refresh_token"]) == ("gone", "token_expired")


async def test_what_is_kept_for_a_repeat_opens_for_auth_alone(desk: Desk) -> None:
    first = await logged_in(desk)
    second = await desk.perform(refresh(first["refresh_token"]))
    used = await desk.database["refresh_tokens"].find_one({"_id": id_in(first["refresh_token"])})
    assert second["refresh_token"].split(".")[2] not in str(used)
    assert used["successor"]["id"] == id_in(second["refresh_token"])
    for receiver in ("gateway", "mailer", "auth"):
        with pytest.raises(Exception, match="not sealed for"):
            desk.sealer.open(receiver, used["successor"]["sealed"])
