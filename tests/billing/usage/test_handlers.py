"""Usage: accepted once by the caller's identifier, sent to Stripe in the background."""

from datetime import timedelta
from typing import Any

import pytest

from services.billing.usage.handlers import PER_COMMAND
from services.stripe_double import FaultKind
from shared.messages.billing.usage import ReportUsage, SendUsage, Usage
from tests.billing.conftest import ADA, Shop, counter, post
from tests.service_harness import Refused

EVENTS = "/v1/billing/meter_events"


def usage(identifier: str = "job-1", value: int = 5, **changed: Any) -> Usage:
    return Usage(**{"identifier": identifier, "user_id": "user_ada", "event_name": "api", "value": value, **changed})


async def subscribed(shop: Shop) -> dict[str, Any]:
    """A subscription of Ada in an account with a meter."""
    meter = {"display_name": "Calls", "event_name": "api", "default_aggregation[formula]": "sum"}
    await post(shop.double, "/v1/billing/meters", **meter)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.now = shop.double.clock.time
    return made


def sent(shop: Shop) -> list[tuple[str, str, str]]:
    """Identifier, customer and value of the usage that Stripe has counted."""
    return sorted(
        (call.params["identifier"], call.params["payload"]["stripe_customer_id"], call.params["payload"]["value"])
        for call in shop.double.log
        if call.path == EVENTS and call.executed
    )


async def report(shop: Shop, *entries: Usage) -> dict[str, int]:
    reply: dict[str, int] = await shop.harness.deliver(ReportUsage(usage=entries))
    return reply


async def refusal(shop: Shop, *entries: Usage) -> tuple[str, str, Any]:
    with pytest.raises(Refused) as refused:
        await report(shop, *entries)
    assert await shop.count("usage") == 0
    return refused.value.kind, refused.value.code, refused.value.meta["positions"]


async def test_usage_is_stored_by_the_call_and_sent_to_stripe_afterwards(shop: Shop) -> None:
    made = await subscribed(shop)
    calls = len(shop.double.log)
    assert await report(shop, usage(), usage("job-2", 7)) == {"accepted": 2, "repeated": 0}
    assert len(shop.double.log) == calls
    await shop.settle()
    assert sent(shop) == [("job-1", made["customer"], "5"), ("job-2", made["customer"], "7")]
    rows = await shop.harness.database["usage"].find().to_list()
    assert {row["outcome"] for row in rows} == {"sent"}


async def test_a_repeated_identifier_counts_once(shop: Shop) -> None:
    await subscribed(shop)
    await report(shop, usage())
    await shop.settle()
    assert await report(shop, usage(), usage("job-2")) == {"accepted": 1, "repeated": 1}
    assert await report(shop, usage("job-3"), usage("job-3")) == {"accepted": 1, "repeated": 1}
    await shop.settle()
    assert [name for name, _, _ in sent(shop)] == ["job-1", "job-2", "job-3"]
    with pytest.raises(Refused) as refused:
        await report(shop, usage(value=6), usage("job-4"))
    assert (refused.value.code, refused.value.meta) == ("usage_identifier_reused", {"positions": [0]})


async def test_a_second_delivery_sends_nothing_again(shop: Shop) -> None:
    await subscribed(shop)
    await report(shop, usage())
    (command,) = shop.harness.published_of(SendUsage)
    await shop.harness.deliver(command)
    await shop.harness.deliver(command)
    assert len(sent(shop)) == 1


async def test_a_hundred_entries_are_sent_by_commands_of_twenty(shop: Shop) -> None:
    await subscribed(shop)
    await report(shop, *(usage(f"job-{number}") for number in range(100)))
    commands = shop.harness.published_of(SendUsage)
    assert [len(command.usage_ids) for command in commands] == [PER_COMMAND] * 5


async def test_a_user_without_customer_is_refused_and_nothing_is_accepted(shop: Shop) -> None:
    await subscribed(shop)
    entries = usage(), usage("job-2", user_id="user_bob")
    assert await refusal(shop, *entries) == ("not_found", "user_without_customer", [1])


# https://docs.stripe.com/api/billing/meter-event/create
@pytest.mark.parametrize(
    ("age", "accepted"),
    [
        (timedelta(days=35), True),
        (timedelta(days=35, seconds=1), False),
        (timedelta(minutes=-5), True),
        (timedelta(minutes=-5, seconds=-1), False),
    ],
)
async def test_usage_is_accepted_within_the_times_of_stripe(
    age: timedelta,
    accepted: bool,  # noqa: FBT001
    shop: Shop,
) -> None:
    await subscribed(shop)
    entry = usage(at=shop.harness.now - age)
    if accepted:
        assert (await report(shop, entry))["accepted"] == 1
    else:
        assert await refusal(shop, entry) == ("invalid", "usage_out_of_time", [0])


async def test_usage_waits_while_stripe_is_away_and_is_counted_once(shop: Shop) -> None:
    await subscribed(shop)
    await report(shop, usage())
    (command,) = shop.harness.published_of(SendUsage)
    # Stripe counts the entry, but its responses are lost.
    shop.double.faults.add(FaultKind.RESET, times=3, path=EVENTS, after_work=True)
    await shop.harness.deliver(command)
    assert (await shop.harness.database["usage"].find_one())["outcome"] is None
    [(_, retry)] = [each for each in await shop.harness.delayed() if isinstance(each[1], SendUsage)]
    await shop.harness.deliver(retry)
    assert (await shop.harness.database["usage"].find_one())["outcome"] == "sent"
    assert len(sent(shop)) == 1


async def test_usage_that_stripe_refuses_is_counted_for_operators(shop: Shop) -> None:
    await subscribed(shop)
    before = counter("nest_usage_settled", outcome="refused")
    await report(shop, usage(event_name="no-meter"))
    await shop.settle()
    assert counter("nest_usage_settled", outcome="refused") == before + 1
    assert (await shop.harness.database["usage"].find_one())["outcome"] == "refused"


async def test_usage_that_became_too_old_expires(shop: Shop) -> None:
    await subscribed(shop)
    await report(shop, usage())
    shop.harness.now += timedelta(days=36)
    before = counter("nest_usage_settled", outcome="expired")
    await shop.settle()
    assert (sent(shop), counter("nest_usage_settled", outcome="expired")) == ([], before + 1)


async def test_reports_of_stripe_about_rejected_usage_are_counted(shop: Shop) -> None:
    before = counter("nest_usage_error_reports")
    for number, related in enumerate(({"id": "mtr_1", "type": "billing.meter"}, None)):
        kind = "error_report_triggered" if related else "no_meter_found"
        event = {
            "id": f"evt_{number}",
            "object": "v2.core.event",
            "type": f"v1.billing.meter.{kind}",
            "livemode": False,
            "related_object": related,
        }
        await shop.deliver_thin(event)
    assert counter("nest_usage_error_reports") == before + 2
    assert {row["outcome"] for row in await shop.event_rows()} == {"read"}
