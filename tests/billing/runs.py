"""Runs over the double's account, moved on as timers and Kafka would."""

from __future__ import annotations

from typing import Any

from shared.bus.inbox import Inbox
from shared.messages import MESSAGES, Command, Message
from shared.messages.billing.runs import ContinueStripeRun, GetStripeRun, ListStripeDifferences
from tests.billing.conftest import Shop


async def run(shop: Shop, run_id: str) -> dict[str, Any]:
    """How far a run is, as operators read it."""
    found: dict[str, Any] = await shop.harness.deliver(GetStripeRun(run_id=run_id))
    return found


async def differences(shop: Shop, of: dict[str, Any]) -> list[dict[str, Any]]:
    """All that a run has found."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await shop.harness.deliver(ListStripeDifferences(run_id=of["id"], limit=7, cursor=cursor))
        found += page["differences"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def due(shop: Shop) -> None:
    """Let the time of everything that waits for it come."""
    rows = shop.harness.database[Inbox.TIMERS]
    for row in await rows.find().sort("at").to_list():
        await rows.delete_one({"_id": row["_id"]})
        message: Message = MESSAGES[row["type"]].model_validate_json(row["body"])
        shop.harness.now = max(shop.harness.now, row["at"])
        await shop.harness.deliver(message.model_copy(update={"key": row["key"]}), id=row["_id"])


async def finish(shop: Shop, order: Command) -> dict[str, Any]:
    """Begin a run and move it, and all that it orders, to its end."""
    begun = await shop.harness.deliver(order)
    await settle(shop, begun["id"])
    return await run(shop, begun["id"])


async def settle(shop: Shop, run_id: str) -> None:
    """Move a run, and all that it orders, to its end."""
    for _ in range(200):
        await shop.settle()
        if (await run(shop, run_id))["status"] not in ("running", "waiting"):
            return
        await due(shop)
    raise AssertionError("a run that never ends")


def steps(shop: Shop) -> list[ContinueStripeRun]:
    """The steps ordered so far."""
    found: list[ContinueStripeRun] = shop.harness.published_of(ContinueStripeRun)
    return found
