"""Records that expire while their consumer is away: they are reported, and their messages take effect once."""

from __future__ import annotations

import random

from structlog.testing import capture_logs

from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append

SUBJECTS = [str(number) for number in range(6)]


async def test_expired_records_are_reported_and_their_messages_take_effect_once(
    bus: BusHarness, chaos: random.Random, rounds: int
) -> None:
    expected: dict[str, list[int]] = {subject: [] for subject in SUBJECTS}

    async def append(count: int) -> None:
        for _ in range(count):
            subject = chaos.choice(SUBJECTS)
            number = len(expected[subject])
            await bus.call(Append(subject=subject, number=number, key=subject))
            expected[subject].append(number)

    async def healed() -> bool:
        return all([sorted(await bus.numbers(each, "audit")) == expected[each] for each in SUBJECTS])

    async with bus.running():
        for _ in range(rounds):
            async with bus.running("audit"):
                await append(chaos.randint(1, 10))
                await bus.drained("audit")
            await append(chaos.randint(10, 40))
            handled = sum((await bus.committed("audit")).values())
            await bus.expire_records("ledger.events", keep=chaos.randint(0, 3))
            with capture_logs() as logs:
                async with bus.running("audit"):
                    # New records meanwhile.
                    await append(chaos.randint(0, 10))
                    await wait_until(healed, 30, "the expired messages were not sent again")
                    await bus.drained("audit")
            missed = sum(entry["count"] for entry in logs if entry["event"] == "records expired unread")
            assert missed > 0, "no record expired unread: the fault did not happen"
            assert sum((await bus.committed("audit")).values()) >= handled + missed
    assert await bus.records("ledger.events.dead") == []
