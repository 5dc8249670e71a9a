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
from shared.bus.inbox import Outcome
from shared.bus.work import Work
from shared.messages import Caller
from shared.messages.auth.clients import CreateClient
from tests.auth.accounts.flows import CHEAP, PASSWORD, log_in_owner, new_application, new_user, sign_in_with_email
from tests.auth.flows import (
    CLIENT,
    OTHER_CLIENT,
    REDIRECT_URI,
    WRONG_VERIFIER,
    log_in,
    redemption,
    request_code,
)
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


@pytest.mark.parametrize("wrong", [2, 3], ids=["limit_not_reached", "limit_reached"])
async def test_right_verifier_that_loses_the_race_is_compared_again(
    new_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    async with AsyncExitStack() as stack:
        slow, fast = [
            await stack.enter_async_context(new_harness(limit_guesses_per_identifier="3/1h")) for _ in range(2)
        ]
        for client_id in (CLIENT, OTHER_CLIENT):
            await fast.deliver(CreateClient(id=client_id, name="An app", redirect_uris=(REDIRECT_URI,)))
        code, code_of_another_app = await request_code(fast), await request_code(fast, client_id=OTHER_CLIENT)
        commit, runs = slow.inbox.commit, 0

        async def commit_after_wrong_guesses(work: Work, outcome_of_work: Outcome) -> None:
            nonlocal runs
            runs += 1
            for _ in range(wrong if runs == 1 else 0):
                guess = redemption(code_of_another_app, client_id=OTHER_CLIENT, code_verifier=WRONG_VERIFIER)
                assert await outcome(fast, guess) == "incorrect_code_verifier"
            await commit(work, outcome_of_work)

        monkeypatch.setattr(slow.inbox, "commit", commit_after_wrong_guesses)
        assert await outcome(slow, redemption(code)) == ("throttled" if wrong == 3 else "done")
        assert runs == 2, "its first commit failed"


async def test_right_verifier_writes_nothing_under_its_limit(harness: ServiceHarness) -> None:
    await log_in(harness)
    assert await harness.database["limits"].count_documents({"times": []}) == 0
