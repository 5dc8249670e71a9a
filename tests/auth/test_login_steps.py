"""Metrics of logins: one count for each step, none for a second delivery, and refusals by code."""

from __future__ import annotations

from tests.auth.flows import WRONG_VERIFIER, log_in, redeliverable, redemption, refresh, refusal, request_code
from tests.auth.flows import send_magic_link as link
from tests.metrics import increments
from tests.service_harness import ServiceHarness


async def test_a_login_by_mail_counts_each_step_once(harness: ServiceHarness) -> None:
    with increments("nest_logins_total") as steps, increments("nest_logins_refused_total") as refused:
        tokens = await log_in(harness)
        await harness.deliver(refresh(tokens["refresh_token"]))
        order = link(identifier_value="twice@example.com")
        repeated = redeliverable(harness, order)
        for _ in range(2):
            await harness.deliver(order, **repeated)
    assert (steps, refused) == ({("mail", "asked"): 2, ("mail", "redeemed"): 1}, {})


async def test_refused_steps_are_counted_by_their_code(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    with increments("nest_logins_total") as steps, increments("nest_logins_refused_total") as refused:
        codes = [
            await refusal(harness, link(identifier_value="not an address")),
            await refusal(harness, redemption(code, code_verifier=WRONG_VERIFIER)),
        ]
    assert steps == {}
    assert refused == {("mail", "asked", codes[0][1]): 1, ("mail", "redeemed", codes[1][1]): 1}
