"""Nobody learns from an answer, or from how long it took, whether an address has an account."""

import statistics
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.auth.accounts.flows import USER, an_application, an_owner, log_in_owner, sign_in_with_email, sign_up
from tests.auth.flows import refusal
from tests.service_harness import ServiceHarness

SAMPLES = 1_000
WRONG = ("unauthenticated", "wrong_credentials")


async def _compared(known: Callable[[], Awaitable[float]], unknown: Callable[[], Awaitable[float]]) -> float:
    """The probability that a random known one takes longer than a random unknown one; 0.5 when nothing is told.

    Taken in turns, so that whatever else the machine does meets both alike (Mann and Whitney, 1947).
    """
    times: list[tuple[float, bool]] = []
    for n in range(SAMPLES):
        pair = [(known, True), (unknown, False)]
        for ask, is_known in pair if n % 2 else reversed(pair):
            times.append((await ask(), is_known))
    ranks = sum(rank for rank, (_, is_known) in enumerate(sorted(times), start=1) if is_known)
    return (ranks - SAMPLES * (SAMPLES + 1) / 2) / SAMPLES**2


@pytest.mark.slow
@pytest.mark.parametrize("who", ["owner", "user"])
async def test_a_wrong_password_takes_as_long_as_an_unknown_address(
    new_harness: Callable[..., ServiceHarness], who: str
) -> None:
    # A tenth of the usual hash: what else differs shows more clearly beside it.
    async with new_harness(password_memory=6, password_passes=3, limit_passwords_per_user="none") as harness:
        await an_owner(harness)
        key = (await an_application(harness, email="other@example.com"))["apiKey"]
        await harness.deliver(sign_up(key))

        async def timed(email: str) -> float:
            order = log_in_owner(email, "wrong") if who == "owner" else sign_in_with_email(key, email, "wrong")
            began = time.perf_counter()
            assert await refusal(harness, order) == WRONG
            return time.perf_counter() - began

        address = "ada@example.com" if who == "owner" else USER["email"]
        # Of the same length, so that only the account differs.
        stranger = "x" * len(address.partition("@")[0]) + "@" + address.partition("@")[2]
        for _ in range(50):
            await timed(address)
            await timed(stranger)

        told = await _compared(lambda: timed(address), lambda: timed(stranger))

    # Three standard deviations of what chance alone gives for 2 x 1,000 samples, and the noise of a busy machine.
    chance = statistics.NormalDist(0.5, (1 / (6 * SAMPLES)) ** 0.5)
    assert abs(told - 0.5) < 3 * chance.stdev + 0.03
