"""Stripe runs over the account of the double, advanced as by timers and Kafka."""

from __future__ import annotations

from typing import Any

from shared.bus.inbox import Inbox
from shared.messages import MESSAGES, Command, Message
from shared.messages.billing.runs import ContinueStripeRun, GetStripeRun, ListStripeDifferences
from shared.messages.billing.subscriptions import CheckSubscriptionAccess, CheckSubscriptionRenewal
from tests.billing.conftest import Shop


async def run(shop: Shop, run_id: str) -> dict[str, Any]:
    """The view of a run for operators."""
    found: dict[str, Any] = await shop.harness.deliver(GetStripeRun(run_id=run_id))
    return found


async def differences(shop: Shop, finished: dict[str, Any]) -> list[dict[str, Any]]:
    """All differences that a run found, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await shop.harness.deliver(ListStripeDifferences(run_id=finished["id"], limit=7, cursor=cursor))
        found += page["differences"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def deliver_timers(shop: Shop) -> None:
    """Advance the clock to the outbox timers and deliver their messages, except those of a month ahead."""
    rows = shop.harness.database[Inbox.TIMERS]
    for row in (
        await rows.find({"type": {"$nin": [CheckSubscriptionAccess.wire, CheckSubscriptionRenewal.wire]}})
        .sort("at")
        .to_list()
    ):
        await rows.delete_one({"_id": row["_id"]})
        message: Message = MESSAGES[row["type"]].model_validate_json(row["body"])
        shop.harness.now = max(shop.harness.now, row["at"])
        await shop.harness.deliver(message.model_copy(update={"key": row["key"]}), id=row["_id"])


async def finish(shop: Shop, command: Command) -> dict[str, Any]:
    """Begin a run, advance it and the commands that it publishes to their end, and return its view."""
    begun = await shop.harness.deliver(command)
    await settle(shop, begun["id"])
    return await run(shop, begun["id"])


async def settle(shop: Shop, run_id: str) -> None:
    """Advance a run and the commands that it publishes to their end."""
    for _ in range(200):
        await shop.settle()
        if (await run(shop, run_id))["status"] not in ("running", "waiting"):
            return
        await deliver_timers(shop)
    raise AssertionError("the run does not end")


def steps(shop: Shop) -> list[ContinueStripeRun]:
    """The steps ordered so far."""
    found: list[ContinueStripeRun] = shop.harness.published_of(ContinueStripeRun)
    return found
