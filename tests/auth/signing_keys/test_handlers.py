"""Rotation of signing keys on the real database, by commands and by time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import RETIREMENT
from shared.messages.auth.signing_keys import (
    KeepSigningKeys,
    ListSigningKeys,
    RotateSigningKeys,
    SigningKeyPublished,
    SigningKeyWithdrawn,
)
from tests.auth.flows import log_in, refresh
from tests.service_harness import ServiceHarness
from tests.stack import eventually

LEAD = timedelta(seconds=900)
PERIOD = timedelta(days=90)


async def states(harness: ServiceHarness) -> list[str]:
    view = await harness.deliver(ListSigningKeys())
    return [key["state"] for key in view["keys"]]


async def scheduled(harness: ServiceHarness) -> list[datetime]:
    """Times for which ``KeepSigningKeys`` is scheduled."""
    return [at for at, message in await harness.delayed() if isinstance(message, KeepSigningKeys)]


async def pass_time(harness: ServiceHarness, at: datetime) -> None:
    """Set the time, and deliver the timer that is due at it."""
    harness.now = at
    await harness.deliver(KeepSigningKeys(due=at))


def in_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


async def test_rotation_publishes_activates_and_deletes_keys_in_turn(harness: ServiceHarness) -> None:
    keyring: Keyring = harness.context.keyring
    old = keyring.active.kid
    began = in_milliseconds(harness.now)

    view = await harness.deliver(RotateSigningKeys())
    assert [key["state"] for key in view["keys"]] == ["active", "published"]
    [event] = harness.published_of(SigningKeyPublished)
    assert event.kid == view["keys"][1]["kid"]
    assert await scheduled(harness) == [began + LEAD]
    assert keyring.active.kid == old

    await pass_time(harness, began + LEAD)
    assert await states(harness) == ["retired", "active"]
    await eventually(lambda: keyring.active.kid == event.kid)
    assert keyring.find(old) is not None
    assert began + LEAD + RETIREMENT in await scheduled(harness)

    await pass_time(harness, began + LEAD + RETIREMENT)
    assert await states(harness) == ["active"]
    assert [type(message) for message in harness.published].count(SigningKeyWithdrawn) == 1
    assert keyring.published == {event.kid}
    assert began + LEAD + PERIOD in await scheduled(harness)


async def test_repeated_rotation_generates_no_second_key(harness: ServiceHarness) -> None:
    first = await harness.deliver(RotateSigningKeys())
    assert await harness.deliver(RotateSigningKeys()) == first
    assert len(harness.published_of(SigningKeyPublished)) == 1


async def test_emergency_rotation_replaces_the_key_and_keeps_refresh_tokens(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    keyring: Keyring = harness.context.keyring
    old = keyring.active.kid
    harness.clear()

    view = await harness.deliver(RotateSigningKeys(emergency=True))
    assert [key["state"] for key in view["keys"]] == ["retired", "active"]
    new = view["keys"][1]["kid"]
    # The new key is published before the old one is withdrawn.
    assert [type(message) for message in harness.published] == [
        SigningKeyPublished,
        SigningKeyPublished,
        KeepSigningKeys,
    ]
    await eventually(lambda: keyring.active.kid == new)
    await harness.deliver(KeepSigningKeys())
    assert await states(harness) == ["active"]
    assert keyring.published == {new}
    assert old not in keyring.published
    refreshed = await harness.deliver(refresh(tokens["refresh_token"]))
    assert refreshed["user_id"] == tokens["user_id"]


async def test_private_key_of_a_replaced_key_is_deleted_in_the_same_write(
    harness: ServiceHarness, mongo_client: Any, database_name: str
) -> None:
    await harness.deliver(RotateSigningKeys(emergency=True))
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert [key["private"] is None for key in document["keys"]] == [True, False]


async def test_all_starts_and_instances_schedule_one_message(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    for _ in range(3):
        await harness.deliver(KeepSigningKeys(algorithm="ES256"))
    async with new_harness() as second:
        second.now = harness.now + timedelta(hours=1)
        await second.deliver(KeepSigningKeys(algorithm="ES256"))
    assert len(await scheduled(harness)) == 1


async def test_each_change_schedules_the_next_one(harness: ServiceHarness) -> None:
    await harness.deliver(KeepSigningKeys())
    kids = set()
    for _ in range(9):
        [*_, due] = [at for at in await scheduled(harness) if at > harness.now] or [None]
        assert due is not None
        await pass_time(harness, min(at for at in await scheduled(harness) if at > harness.now))
        view = await harness.deliver(ListSigningKeys())
        kids |= {key["kid"] for key in view["keys"]}
    # Three messages per key: publish, activate, delete the old one.
    assert len(kids) == 4


async def test_timer_that_is_early_by_the_local_clock_is_not_lost(harness: ServiceHarness) -> None:
    view = await harness.deliver(RotateSigningKeys())
    due = datetime.fromisoformat(view["keys"][1]["signs_from"])
    harness.now = due - timedelta(seconds=5)
    await harness.deliver(KeepSigningKeys(due=due))
    assert await states(harness) == ["retired", "active"]


async def test_published_key_that_is_not_stored_is_withdrawn(harness: ServiceHarness) -> None:
    stranger = SigningKeyPublished(key="stranger", kid="stranger", jwk=harness.published_at_start[0].jwk)  # type: ignore[attr-defined]
    await harness._publish_at_start(stranger)
    assert "stranger" in harness.context.keyring.published
    await harness.deliver(KeepSigningKeys())
    assert "stranger" not in harness.context.keyring.published


async def test_key_of_a_new_algorithm_signs_after_the_lead_time(harness: ServiceHarness) -> None:
    began = in_milliseconds(harness.now)
    await harness.deliver(KeepSigningKeys(algorithm="EdDSA"))
    view = await harness.deliver(ListSigningKeys())
    assert [(key["algorithm"], key["state"]) for key in view["keys"]] == [("ES256", "active"), ("EdDSA", "published")]
    harness.now = began + LEAD
    await harness.deliver(KeepSigningKeys(algorithm="EdDSA"))
    await eventually(lambda: harness.context.keyring.active.algorithm == "EdDSA")


async def test_listed_keys_contain_no_private_key(harness: ServiceHarness) -> None:
    [key] = (await harness.deliver(ListSigningKeys()))["keys"]
    assert key.keys() == {"kid", "algorithm", "state", "created_at", "signs_from", "verifies_until"}


@pytest.mark.parametrize("emergency", [False, True])
async def test_second_delivery_of_a_rotation_changes_nothing(harness: ServiceHarness, emergency: bool) -> None:  # noqa: FBT001
    command = RotateSigningKeys(emergency=emergency)
    first = await harness.deliver(command, id="a" * 32)
    assert await harness.deliver(command, id="a" * 32) == first
    assert len(await states(harness)) == 2
