"""Keys follow each other on the real database, by order and by the clock."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import KEPT
from shared.messages.auth.signing_keys import (
    KeepSigningKeys,
    ListSigningKeys,
    RotateSigningKeys,
    SigningKeyPublished,
    SigningKeyWithdrawn,
)
from tests.auth.flows import logged_in, refresh
from tests.desk import Desk
from tests.stack import eventually

LEAD = timedelta(seconds=900)
PERIOD = timedelta(days=90)


async def states(desk: Desk) -> list[str]:
    listed = await desk.perform(ListSigningKeys())
    return [key["state"] for key in listed["keys"]]


async def looks(desk: Desk) -> list[datetime]:
    """When the keys will be looked after."""
    return [at for at, message in await desk.later() if isinstance(message, KeepSigningKeys)]


async def pass_time(desk: Desk, at: datetime) -> None:
    """Let it become later, and the timer that is due by then come."""
    desk.now = at
    await desk.perform(KeepSigningKeys(due=at))


def to_the_millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


async def test_a_rotation_publishes_a_key_then_lets_it_sign_then_forgets_the_old_one(desk: Desk) -> None:
    keyring: Keyring = desk.context.keyring
    old = keyring.signing.kid
    began = to_the_millisecond(desk.now)

    answer = await desk.perform(RotateSigningKeys())
    assert [key["state"] for key in answer["keys"]] == ["active", "published"]
    [said] = desk.said(SigningKeyPublished)
    assert said.kid == answer["keys"][1]["kid"]
    assert await looks(desk) == [began + LEAD]
    assert keyring.signing.kid == old

    await pass_time(desk, began + LEAD)
    assert await states(desk) == ["retired", "active"]
    await eventually(lambda: keyring.signing.kid == said.kid)
    assert keyring.find(old) is not None
    assert began + LEAD + KEPT in await looks(desk)

    await pass_time(desk, began + LEAD + KEPT)
    assert await states(desk) == ["active"]
    assert [type(message) for message in desk.published].count(SigningKeyWithdrawn) == 1
    assert keyring.announced == {said.kid}
    assert began + LEAD + PERIOD in await looks(desk)


async def test_a_repeated_order_makes_no_second_key(desk: Desk) -> None:
    first = await desk.perform(RotateSigningKeys())
    assert await desk.perform(RotateSigningKeys()) == first
    assert len(desk.said(SigningKeyPublished)) == 1


async def test_a_leaked_key_is_replaced_at_once_and_refresh_tokens_go_on(desk: Desk) -> None:
    tokens = await logged_in(desk)
    keyring: Keyring = desk.context.keyring
    old = keyring.signing.kid
    desk.clear()

    answer = await desk.perform(RotateSigningKeys(emergency=True))
    assert [key["state"] for key in answer["keys"]] == ["retired", "active"]
    new = answer["keys"][1]["kid"]
    # Everybody hears of the new one before the old one is withdrawn.
    assert [type(message) for message in desk.published] == [SigningKeyPublished, SigningKeyPublished, KeepSigningKeys]
    await eventually(lambda: keyring.signing.kid == new)
    await desk.perform(KeepSigningKeys())
    assert await states(desk) == ["active"]
    assert keyring.announced == {new}
    assert old not in keyring.announced
    renewed = await desk.perform(refresh(tokens["refresh_token"]))
    assert renewed["user_id"] == tokens["user_id"]


async def test_the_private_half_of_a_replaced_key_is_deleted_with_the_same_write(
    desk: Desk, mongo_client: Any, database_name: str
) -> None:
    await desk.perform(RotateSigningKeys(emergency=True))
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert [key["private"] is None for key in document["keys"]] == [True, False]


async def test_any_number_of_starts_and_instances_leave_one_look_for_one_time(
    desk: Desk, new_desk: Callable[..., Desk]
) -> None:
    for _ in range(3):
        await desk.perform(KeepSigningKeys(algorithm="ES256"))
    async with new_desk() as second:
        second.now = desk.now + timedelta(hours=1)
        await second.perform(KeepSigningKeys(algorithm="ES256"))
    assert len(await looks(desk)) == 1


async def test_the_schedule_goes_on_by_itself(desk: Desk) -> None:
    await desk.perform(KeepSigningKeys())
    kids = set()
    for _ in range(9):
        [*_, due] = [at for at in await looks(desk) if at > desk.now] or [None]
        assert due is not None
        await pass_time(desk, min(at for at in await looks(desk) if at > desk.now))
        listed = await desk.perform(ListSigningKeys())
        kids |= {key["kid"] for key in listed["keys"]}
    # Published, signing, old one forgotten: three looks a key.
    assert len(kids) == 4


async def test_a_look_that_comes_early_by_this_instances_clock_is_not_lost(desk: Desk) -> None:
    answer = await desk.perform(RotateSigningKeys())
    due = datetime.fromisoformat(answer["keys"][1]["signs_from"])
    desk.now = due - timedelta(seconds=5)
    await desk.perform(KeepSigningKeys(due=due))
    assert await states(desk) == ["retired", "active"]


async def test_an_announced_key_that_nobody_keeps_is_withdrawn(desk: Desk) -> None:
    stranger = SigningKeyPublished(key="stranger", kid="stranger", jwk=desk.announced[0].jwk)  # type: ignore[attr-defined]
    await desk._announce(stranger)
    assert "stranger" in desk.context.keyring.announced
    await desk.perform(KeepSigningKeys())
    assert "stranger" not in desk.context.keyring.announced


async def test_another_algorithm_follows_after_its_lead_time(desk: Desk) -> None:
    began = to_the_millisecond(desk.now)
    await desk.perform(KeepSigningKeys(algorithm="EdDSA"))
    listed = await desk.perform(ListSigningKeys())
    assert [(key["algorithm"], key["state"]) for key in listed["keys"]] == [("ES256", "active"), ("EdDSA", "published")]
    desk.now = began + LEAD
    await desk.perform(KeepSigningKeys(algorithm="EdDSA"))
    await eventually(lambda: desk.context.keyring.signing.algorithm == "EdDSA")


async def test_what_is_listed_has_no_private_half(desk: Desk) -> None:
    [key] = (await desk.perform(ListSigningKeys()))["keys"]
    assert key.keys() == {"kid", "algorithm", "state", "created_at", "signs_from", "verifies_until"}


@pytest.mark.parametrize("emergency", [False, True])
async def test_an_order_that_is_delivered_twice_is_carried_out_once(desk: Desk, emergency: bool) -> None:  # noqa: FBT001
    order = RotateSigningKeys(emergency=emergency)
    first = await desk.perform(order, id="a" * 32)
    assert await desk.perform(order, id="a" * 32) == first
    assert len(await states(desk)) == 2
