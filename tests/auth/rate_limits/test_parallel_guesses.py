"""Guesses that are handled at the same time: what is decided on a count is held until the commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from services.auth.accounts.hash_queue import HashCaller
from shared.messages import Caller
from tests.auth.accounts.flows import CHEAP, PASSWORD, log_in_owner, new_application, new_user, sign_in_with_email
from tests.auth.flows import log_in
from tests.service_harness import Refused, ServiceHarness
from tests.stack import eventually

ALLOWED = 10
"""Wrong passwords for one user in 15 minutes."""


async def outcome(harness: ServiceHarness, message: Any, number: int = 0) -> str:
    """Deliver a guess from a network of its own, and return ``done`` or the code of the refusal."""
    try:
        await harness.deliver(message, caller=Caller(client_ip=f"203.0.{number}.1"))
    except Refused as refused:
        return refused.code
    return "done"


@pytest.mark.parametrize("earlier", [0, 3], ids=["first_guesses", "after_earlier_guesses"])
@pytest.mark.parametrize("kind", ["owner", "application_user"])
async def test_right_password_that_loses_the_race_is_throttled(
    new_harness: Callable[..., ServiceHarness], kind: str, earlier: int
) -> None:
    async with AsyncExitStack() as stack:
        slow, fast = [
            await stack.enter_async_context(new_harness(**CHEAP, password_threads=1, password_wait_seconds=60))
            for _ in range(2)
        ]
        slow.now = fast.now = datetime.now(UTC)
        application = await new_application(fast)
        user, _ = await new_user(fast, application["apiKey"])

        def guess(password: str) -> Any:
            if kind == "owner":
                return log_in_owner(password=password)
            return sign_in_with_email(application["apiKey"], user["email"], password)

        for number in range(earlier):
            assert await outcome(fast, guess("wrong"), number) == "wrong_credentials"
        gate = threading.Event()
        occupied = asyncio.create_task(slow.context.passwords.queue.run(gate.wait, HashCaller()))
        # The right password has read the limit, and waits for a thread.
        right = asyncio.create_task(outcome(slow, guess(PASSWORD), 200))
        await eventually(lambda: slow.context.passwords.queue.in_progress == 2)
        wrong = [await outcome(fast, guess(f"wrong{number}"), number) for number in range(ALLOWED)]
        gate.set()
        await occupied

        assert wrong.count("wrong_credentials") == ALLOWED - earlier
        assert await right == "throttled"


async def test_right_password_alone_is_accepted_each_time(accounts: ServiceHarness) -> None:
    await new_application(accounts)
    outcomes = await asyncio.gather(*(outcome(accounts, log_in_owner(), number) for number in range(5)))
    assert set(outcomes) == {"done"}


async def test_right_verifier_holds_the_limit_of_guesses(harness: ServiceHarness) -> None:
    for _ in range(3):
        await log_in(harness)
    logs = await harness.database["limits"].find({"times": []}).to_list()
    assert [log["version"] for log in logs] == [1], "held by the first login"
    assert [log["holds"] for log in logs] == [2], "and by the two others"
