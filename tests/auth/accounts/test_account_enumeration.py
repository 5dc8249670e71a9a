"""Replies and their timing do not reveal whether an address has an account."""

import statistics
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.auth.accounts.flows import USER, log_in_owner, new_application, new_owner, sign_in_with_email, sign_up
from tests.auth.flows import refusal
from tests.service_harness import ServiceHarness

SAMPLES = 1_000
WRONG_CREDENTIALS = ("unauthenticated", "wrong_credentials")


async def _probability_of_longer(
    known: Callable[[], Awaitable[float]], unknown: Callable[[], Awaitable[float]]
) -> float:
    """Probability that a random call for a known address takes longer than one for an unknown address.

    0.5 if the durations reveal nothing (Mann and Whitney, 1947). The calls alternate, so that other load affects both.
    """
    times: list[tuple[float, bool]] = []
    for n in range(SAMPLES):
        pair = [(known, True), (unknown, False)]
        for call, is_known in pair if n % 2 else reversed(pair):
            times.append((await call(), is_known))
    ranks = sum(rank for rank, (_, is_known) in enumerate(sorted(times), start=1) if is_known)
    return (ranks - SAMPLES * (SAMPLES + 1) / 2) / SAMPLES**2


@pytest.mark.slow
@pytest.mark.parametrize("account", ["owner", "user"])
async def test_wrong_password_takes_as_long_as_an_unknown_address(
    new_harness: Callable[..., ServiceHarness], account: str
) -> None:
    # A tenth of the default hash, so that other differences are more visible.
    async with new_harness(password_memory=6, password_passes=3, limit_passwords_per_user="none") as harness:
        await new_owner(harness)
        key = (await new_application(harness, email="other@example.com"))["apiKey"]
        await harness.deliver(sign_up(key))

        async def timed(email: str) -> float:
            command = log_in_owner(email, "wrong") if account == "owner" else sign_in_with_email(key, email, "wrong")
            began = time.perf_counter()
            assert await refusal(harness, command) == WRONG_CREDENTIALS
            return time.perf_counter() - began

        address = "ada@example.com" if account == "owner" else USER["email"]
        # The same length, so that only the existence of the account differs.
        unknown = "x" * len(address.partition("@")[0]) + "@" + address.partition("@")[2]
        for _ in range(50):
            await timed(address)
            await timed(unknown)

        probability = await _probability_of_longer(lambda: timed(address), lambda: timed(unknown))

    # Three standard deviations of chance for 2 x 1,000 samples, and a margin for a busy machine.
    chance = statistics.NormalDist(0.5, (1 / (6 * SAMPLES)) ** 0.5)
    assert abs(probability - 0.5) < 3 * chance.stdev + 0.03
