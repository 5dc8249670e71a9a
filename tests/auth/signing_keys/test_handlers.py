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
from tests.service_harness import ServiceHarness
from tests.stack import eventually

LEAD = timedelta(seconds=900)
PERIOD = timedelta(days=90)


async def states(harness: ServiceHarness) -> list[str]:
    listed = await harness.deliver(ListSigningKeys())
    return [key["state"] for key in listed["keys"]]


async def looks(harness: ServiceHarness) -> list[datetime]:
    """When the keys will be looked after."""
    return [at for at, message in await harness.delayed() if isinstance(message, KeepSigningKeys)]


async def pass_time(harness: ServiceHarness, at: datetime) -> None:
    """Let it become later, and the timer that is due by then come."""
    harness.now = at
    await harness.deliver(KeepSigningKeys(due=at))


def to_the_millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


async def test_a_rotation_publishes_a_key_then_lets_it_sign_then_forgets_the_old_one(harness: ServiceHarness) -> None:
    keyring: Keyring = harness.context.keyring
    old = keyring.signing.kid
    began = to_the_millisecond(harness.now)

    answer = await harness.deliver(RotateSigningKeys())
    assert [key["state"] for key in answer["keys"]] == ["active", "published"]
    [said] = harness.published_of(SigningKeyPublished)
    assert said.kid == answer["keys"][1]["kid"]
    assert await looks(harness) == [began + LEAD]
    assert keyring.signing.kid == old

    await pass_time(harness, began + LEAD)
    assert await states(harness) == ["retired", "active"]
    await eventually(lambda: keyring.signing.kid == said.kid)
    assert keyring.find(old) is not None
    assert began + LEAD + KEPT in await looks(harness)

    await pass_time(harness, began + LEAD + KEPT)
    assert await states(harness) == ["active"]
    assert [type(message) for message in harness.published].count(SigningKeyWithdrawn) == 1
    assert keyring.announced == {said.kid}
    assert began + LEAD + PERIOD in await looks(harness)


async def test_a_repeated_order_makes_no_second_key(harness: ServiceHarness) -> None:
    first = await harness.deliver(RotateSigningKeys())
    assert await harness.deliver(RotateSigningKeys()) == first
    assert len(harness.published_of(SigningKeyPublished)) == 1


async def test_a_leaked_key_is_replaced_at_once_and_refresh_tokens_go_on(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    keyring: Keyring = harness.context.keyring
    old = keyring.signing.kid
    harness.clear()

    answer = await harness.deliver(RotateSigningKeys(emergency=True))
    assert [key["state"] for key in answer["keys"]] == ["retired", "active"]
    new = answer["keys"][1]["kid"]
    # Everybody hears of the new one before the old one is withdrawn.
    assert [type(message) for message in harness.published] == [
        SigningKeyPublished,
        SigningKeyPublished,
        KeepSigningKeys,
    ]
    await eventually(lambda: keyring.signing.kid == new)
    await harness.deliver(KeepSigningKeys())
    assert await states(harness) == ["active"]
    assert keyring.announced == {new}
    assert old not in keyring.announced
    renewed = await harness.deliver(refresh(tokens["refresh_token"]))
    assert renewed["user_id"] == tokens["user_id"]


async def test_the_private_half_of_a_replaced_key_is_deleted_with_the_same_write(
    harness: ServiceHarness, mongo_client: Any, database_name: str
) -> None:
    await harness.deliver(RotateSigningKeys(emergency=True))
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert [key["private"] is None for key in document["keys"]] == [True, False]


async def test_any_number_of_starts_and_instances_leave_one_look_for_one_time(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    for _ in range(3):
        await harness.deliver(KeepSigningKeys(algorithm="ES256"))
    async with new_harness() as second:
        second.now = harness.now + timedelta(hours=1)
        await second.deliver(KeepSigningKeys(algorithm="ES256"))
    assert len(await looks(harness)) == 1


async def test_the_schedule_goes_on_by_itself(harness: ServiceHarness) -> None:
    await harness.deliver(KeepSigningKeys())
    kids = set()
    for _ in range(9):
        [*_, due] = [at for at in await looks(harness) if at > harness.now] or [None]
        assert due is not None
        await pass_time(harness, min(at for at in await looks(harness) if at > harness.now))
        listed = await harness.deliver(ListSigningKeys())
        kids |= {key["kid"] for key in listed["keys"]}
    # Published, signing, old one forgotten: three looks a key.
    assert len(kids) == 4


async def test_a_look_that_comes_early_by_this_instances_clock_is_not_lost(harness: ServiceHarness) -> None:
    answer = await harness.deliver(RotateSigningKeys())
    due = datetime.fromisoformat(answer["keys"][1]["signs_from"])
    harness.now = due - timedelta(seconds=5)
    await harness.deliver(KeepSigningKeys(due=due))
    assert await states(harness) == ["retired", "active"]


async def test_an_announced_key_that_nobody_keeps_is_withdrawn(harness: ServiceHarness) -> None:
    stranger = SigningKeyPublished(key="stranger", kid="stranger", jwk=harness.published_at_start[0].jwk)  # type: ignore[attr-defined]
    await harness._publish_at_start(stranger)
    assert "stranger" in harness.context.keyring.announced
    await harness.deliver(KeepSigningKeys())
    assert "stranger" not in harness.context.keyring.announced


async def test_another_algorithm_follows_after_its_lead_time(harness: ServiceHarness) -> None:
    began = to_the_millisecond(harness.now)
    await harness.deliver(KeepSigningKeys(algorithm="EdDSA"))
    listed = await harness.deliver(ListSigningKeys())
    assert [(key["algorithm"], key["state"]) for key in listed["keys"]] == [("ES256", "active"), ("EdDSA", "published")]
    harness.now = began + LEAD
    await harness.deliver(KeepSigningKeys(algorithm="EdDSA"))
    await eventually(lambda: harness.context.keyring.signing.algorithm == "EdDSA")


async def test_what_is_listed_has_no_private_half(harness: ServiceHarness) -> None:
    [key] = (await harness.deliver(ListSigningKeys()))["keys"]
    assert key.keys() == {"kid", "algorithm", "state", "created_at", "signs_from", "verifies_until"}


@pytest.mark.parametrize("emergency", [False, True])
async def test_an_order_that_is_delivered_twice_is_carried_out_once(harness: ServiceHarness, emergency: bool) -> None:  # noqa: FBT001
    order = RotateSigningKeys(emergency=emergency)
    first = await harness.deliver(order, id="a" * 32)
    assert await harness.deliver(order, id="a" * 32) == first
    assert len(await states(harness)) == 2
