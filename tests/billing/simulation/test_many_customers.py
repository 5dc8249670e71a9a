"""Many customers over months, with webhooks shuffled, repeated, delayed and lost, and with failures of Stripe.

One call in ten fails after Stripe did the work. At the end our records equal Stripe's objects, each occasion had one
mail, and nothing was created twice in Stripe.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from services.billing.stripe_api.calls import Timeouts
from services.billing.stripe_api.parsing import parse_subscription
from services.stripe_double import FaultKind
from shared.messages import MESSAGES, Command, Message
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.subscriptions import (
    CheckSubscriptionAccess,
    CheckSubscriptionRenewal,
    DuplicateSubscriptionCancelled,
    FollowCustomer,
    SubscriptionEnded,
    SubscriptionStarted,
)
from shared.messages.billing.trials import StartTrial, TrialStarted
from tests.billing.conftest import Shop
from tests.service_harness import Refused
from tests.stripe_double.random_workload import RandomWorkload

FIELDS = {
    "status": "status",
    "stpCustomerId": None,
    "startsAt": "period_start",
    "cancelType": "cancel_type",
    "cancelAt": "cancellation_takes_effect_at",
    "cancelledAt": "canceled_at",
    "collectionPaused": "collection_paused",
    "stpProductId": "product_id",
}
CONCURRENCY = 8
ALL_ACTIONS_FROM = 100
ACTIONS = {
    "authentication",
    "bank_debit",
    "cancel_at_date",
    "cancel_at_period_end",
    "cancel_now",
    "checkout",
    "close_dispute",
    "decline",
    "declined_checkout",
    "delete_customer",
    "dispute",
    "duplicate",
    "reactivate",
    "abandoned_checkout",
    "pause",
    "pause_collection",
    "recover",
    "refund",
    "resume",
    "resume_collection",
    "trial",
    "trial_without_card",
}


def is_delayed(message: Message) -> bool:
    """Whether a published message is a delayed retry."""
    return getattr(message, "attempt", 1) > 1 or getattr(message, "awaited", 0) > 0


class Simulation:
    """A shop, the webhooks on their way to it, and the commands that it still has to handle.

    Attributes:
        trials: the users who started a trial.
    """

    def __init__(self, shop: Shop, random: Random) -> None:
        self.shop = shop
        self.trials: list[str] = []
        self._random = random
        self._known = 0
        self._webhooks: list[tuple[int, dict[str, Any]]] = []
        self._commands: list[Message] = []
        self._collected = 0
        self._today = 0

    async def end_day(self) -> None:
        """Deliver the webhooks that are due, in any order, and some of the commands that follow."""
        self.shop.harness.now = self.shop.double.clock.time
        self._today += 1
        self._collect_events()
        if self._today % 3 == 0:
            await self._start_trial(f"user_trial_{self._today}")
        due = [webhook for webhook in self._webhooks if webhook[0] <= self._today]
        self._webhooks = [webhook for webhook in self._webhooks if webhook[0] > self._today]
        self._random.shuffle(due)
        await self._concurrently([self.shop.deliver(event, process=False) for _, event in due])
        await self._work(rounds=self._random.choice([0, 1, 3]))

    async def finish(self) -> None:
        """Deliver all webhooks and commands until none is left."""
        while True:
            self._collect_events()
            self._collect_commands()
            if not (self._webhooks or self._commands or await self._timers_wait()):
                return
            self.shop.harness.now += timedelta(days=1)
            webhooks, self._webhooks = self._webhooks, []
            await self._concurrently([self.shop.deliver(event, process=False) for _, event in webhooks])
            await self._work(rounds=50)

    async def _timers_wait(self) -> bool:
        # The access of a subscription that lasts is checked at the end of each period.
        waiting = {"type": {"$nin": [CheckSubscriptionAccess.wire, CheckSubscriptionRenewal.wire]}}
        return await self.shop.harness.database["timers"].count_documents(waiting, limit=1) > 0

    async def reconcile(self) -> None:
        """Read all objects again, since webhooks were lost."""
        commands: list[Command] = [FollowCustomer(customer_id=each["id"]) for each in self._objects("customer")]
        commands += [FollowPayment(payment_intent_id=each["id"]) for each in self._objects("payment_intent")]
        commands += [FollowDispute(dispute_id=each["id"]) for each in self._objects("dispute")]
        await self._concurrently([self.shop.harness.deliver(command) for command in commands])
        await self.finish()

    def _objects(self, kind: str) -> list[dict[str, Any]]:
        return self.shop.double.objects(kind)

    def _collect_events(self) -> None:
        events = self._objects("event")
        for event in events[self._known :]:
            lost = self._random.random() < 0.1
            for _ in range(0 if lost else self._random.choice([1, 1, 2, 3])):
                self._webhooks.append((self._today + self._random.choice([0, 0, 0, 1, 4]), event))
        self._known = len(events)

    async def _start_trial(self, user_id: str) -> None:
        self.trials.append(user_id)
        command = StartTrial(
            key=user_id,
            user_id=user_id,
            email=f"{user_id}@example.com",
            client_id="client_1",
            redirect_uri="https://magic.getbeak.app/",
            state="state",
            code_challenge="E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            beak_id=f"beak_of_{user_id}",
        )
        await self.shop.harness.deliver(command)

    async def _work(self, *, rounds: int) -> None:
        """Handle commands and those that follow from them, in so many rounds at most."""
        for _ in range(rounds):
            self._collect_commands()
            await self._collect_due_timers()
            if not self._commands:
                return
            commands, self._commands = self._commands, []
            self._random.shuffle(commands)
            await self._concurrently([self._handle(command) for command in commands])
            self.shop.harness.context.stripe.calls.breaker.succeeded()

    def _collect_commands(self) -> None:
        published = self.shop.harness.published
        for message in published[self._collected :]:
            if isinstance(message, EnsureUser):
                user_id = self.shop.users.setdefault(message.email, f"user_{len(self.shop.users) + 1}")
                self._commands.append(UserEnsured(reference=message.reference, user_id=user_id))
            elif isinstance(message, Command) and message.service == "billing" and not is_delayed(message):
                self._commands.append(message)
        self._collected = len(published)

    async def _collect_due_timers(self) -> None:
        timers = self.shop.harness.database["timers"]
        for row in await timers.find({"at": {"$lte": self.shop.harness.now}}).to_list():
            await timers.delete_one({"_id": row["_id"]})
            self._commands.append(MESSAGES[row["type"]].model_validate_json(row["body"]))

    async def _handle(self, command: Message) -> None:
        try:
            await self.shop.harness.deliver(command)
        except Refused as refused:
            # A person whose trial failed with Stripe starts it again.
            if refused.kind != "unavailable":
                raise
            self._commands.append(command)

    async def _concurrently(self, tasks: list[Any]) -> None:
        limit = asyncio.Semaphore(CONCURRENCY)

        async def one(task: Any) -> None:
            async with limit:
                await task

        await asyncio.gather(*(one(task) for task in tasks))


@pytest.mark.parametrize(
    ("customers", "days", "seed"),
    [(10, 40, 1), pytest.param(200, 90, 2, marks=pytest.mark.slow), pytest.param(60, 120, 3, marks=pytest.mark.slow)],
)
async def test_records_equal_stripe_after_months_of_failures(customers: int, days: int, seed: int, shop: Shop) -> None:
    shop.double.clock.freeze()
    shop.harness.context.stripe.calls.timeouts = Timeouts(retry_pause=0.002)
    faults = [
        shop.double.faults.add(kind, after_work=True, probability=0.05, path="/v1/*")
        for kind in (FaultKind.RESET, FaultKind.SERVER_ERROR)
    ]
    simulation = Simulation(shop, Random(seed))
    workload = RandomWorkload(shop.double, shop.price, seed=seed)
    await workload.run(customers=customers, days=days, after_each_day=simulation.end_day)
    await simulation.finish()
    assert all(fault.hits > 0 for fault in faults)
    # With few customers some actions do not happen.
    assert customers < ALL_ACTIONS_FROM or set(workload.performed) >= ACTIONS
    shop.double.faults.clear()
    await simulation.reconcile()

    await check_records(shop)
    await check_mails(shop)
    await check_nothing_was_created_twice(shop, simulation)
    assert {row["handledAt"] is None for row in await shop.event_rows()} == {False}


async def check_records(shop: Shop) -> None:
    """Check that our records equal the objects of the double, and that none is missing."""
    records = {row["stpSubscriptionId"]: row async for row in shop.harness.database["subscriptions"].find()}
    mapped = {row["providerValue"] async for row in shop.harness.database["provider_mappings"].find()}
    customers = {customer["id"]: customer for customer in shop.double.objects("customer")}
    for json in shop.double.objects("subscription"):
        customer = customers[json["customer"]]
        if customer.get("deleted") and customer["id"] not in mapped:
            # All its webhooks were lost, and its address was deleted: its user can't be found.
            assert json["id"] not in records
            continue
        stripe_subscription = parse_subscription(
            {**json, "customer": customer, "discounts": [], "latest_invoice": None}, json["items"]["data"]
        )
        record = records.pop(json["id"])
        for name, field in FIELDS.items():
            assert record[name] == (
                stripe_subscription.customer.id if field is None else getattr(stripe_subscription, field)
            ), name
        assert record["endsAt"] == (stripe_subscription.ended_at or stripe_subscription.period_end)
        assert (record["overdueSince"] is not None) == (stripe_subscription.status in ("past_due", "unpaid"))
    assert records == {}
    intents = {each["id"]: each["status"] for each in shop.double.objects("payment_intent")}
    assert {r["stpPaymentIntentId"]: r["status"] async for r in shop.harness.database["payments"].find()} == intents
    disputes = {each["id"]: each["status"] for each in shop.double.objects("dispute")}
    assert {r["stpDisputeId"]: r["status"] async for r in shop.harness.database["disputes"].find()} == disputes


def replaced_trials(shop: Shop) -> set[str]:
    """Stripe's IDs of the trials that ended because their users subscribed."""
    return {
        json["id"]
        for json in shop.double.objects("subscription")
        if (json["cancellation_details"]["comment"] or "").startswith("Nest: trial replaced")
    }


async def check_mails(shop: Shop) -> None:
    """Check that each occasion had one mail and one event."""
    records = await shop.harness.database["subscriptions"].find().to_list()
    mails = Counter(template for template, _ in shop.mails())
    assert mails["welcome"] + mails["welcome-trial"] == sum(row["welcomedAt"] is not None for row in records)
    replaced = replaced_trials(shop)
    duplicates = [row for row in records if row["duplicateOf"] is not None and row["stpSubscriptionId"] not in replaced]
    deleted = {each["id"] for each in shop.double.objects("customer") if each.get("deleted")}
    lasting = [row for row in duplicates if row["stpCustomerId"] not in deleted]
    assert len(lasting) <= mails["duplicate-subscription"] <= len(duplicates)
    notices = Counter(
        (event["data"]["object"]["id"], event["data"]["object"]["trial_end"])
        for event in shop.double.objects("event")
        if event["type"] == "customer.subscription.trial_will_end"
    )
    notified = sum(row["trialEndTold"] is not None for row in records)
    assert notified == mails["trial-ending"] <= len(notices)
    assert notified > 0
    for event_type, expected in (
        (SubscriptionStarted, [row["_id"] for row in records]),
        (SubscriptionEnded, [row["_id"] for row in records if row["status"] in ("canceled", "incomplete_expired")]),
        (DuplicateSubscriptionCancelled, [row["_id"] for row in duplicates]),
    ):
        assert sorted(event.subscription_id for event in shop.harness.published_of(event_type)) == sorted(expected)


async def check_nothing_was_created_twice(shop: Shop, simulation: Simulation) -> None:
    """Check that each trial has one customer and subscription, and each payment of a duplicate one refund."""
    assert sorted(event.user_id for event in shop.harness.published_of(TrialStarted)) == sorted(simulation.trials)
    trials = await shop.harness.database["trials"].find().to_list()
    for kind, name, key in (
        ("customer", "stpCustomerId", "user_id"),
        ("subscription", "stpSubscriptionId", "trial_id"),
    ):
        made = Counter(each["metadata"].get(key) for each in shop.double.objects(kind) if each.get("metadata"))
        made.pop(None, None)
        assert set(made.values()) == {1}
        assert len({trial[name] for trial in trials}) == len(trials) == len(simulation.trials)
    refunds = [each for each in shop.double.objects("refund") if each["metadata"]]
    assert len({(each["metadata"]["subscription_id"], each["charge"]) for each in refunds}) == len(refunds)
    reversals = [each["metadata"]["subscription_id"] for each in shop.double.objects("customer_balance_transaction")]
    assert len(set(reversals)) == len(reversals)
    charges = {charge["payment_intent"]: charge for charge in shop.double.objects("charge") if charge["paid"]}
    paid = [each for each in shop.double.objects("invoice_payment") if each["status"] == "paid"]
    rows = {row["_id"]: row async for row in shop.harness.database["subscriptions"].find()}
    duplicates = {
        row["stpSubscriptionId"]: rows[row["duplicateOf"]]["stpCreatedAt"].timestamp()
        for row in rows.values()
        if row["duplicateOf"] is not None
    }
    for invoice_payment in paid:
        invoice = shop.double.object("invoice", invoice_payment["invoice"])
        kept_since = duplicates.get(invoice["parent"]["subscription_details"]["subscription"])
        if kept_since is not None and invoice["created"] >= kept_since:
            charge = charges[invoice_payment["payment"]["payment_intent"]]
            assert charge["refunded"] or charge["disputed"]
