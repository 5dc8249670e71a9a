"""Many customers live for months while deliveries are shuffled, repeated, delayed and lost, and Stripe fails.

One call in ten fails after the work was done. In the end our records are Stripe's, object by object; each occasion had
one mail; nothing was made twice in Stripe.
"""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api.calls import Patience
from services.billing.stripe_api.parsing import subscription_of
from services.stripe_double import FaultKind
from shared.messages import MESSAGES, Command, Message
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.subscriptions import (
    DuplicateSubscriptionCancelled,
    FollowCustomer,
    SubscriptionEnded,
    SubscriptionStarted,
)
from shared.messages.billing.trials import StartTrial, TrialStarted
from tests.billing.conftest import Shop
from tests.service_harness import Refused
from tests.stripe_double.random_workload import RandomWorkload

FACTS = {
    "status": "status",
    "stpCustomerId": None,
    "startsAt": "period_start",
    "cancelType": "cancel_type",
    "cancelAt": "ends_for_good_at",
    "cancelledAt": "canceled_at",
    "collectionPaused": "collection_paused",
    "stpProductId": "product_id",
}
AT_ONCE = 8
MANY = 100
VERBS = {
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
    "left_checkout",
    "pause",
    "pause_collection",
    "recover",
    "refund",
    "resume",
    "resume_collection",
    "trial",
    "trial_without_card",
}


def later(message: Message) -> bool:
    """Whether a message that was published waits for its time: another try, or another look at a payment."""
    return getattr(message, "attempt", 1) > 1 or getattr(message, "awaited", 0) > 0


class Town:
    """A shop, its customers, and the post between it and Stripe.

    Attributes:
        trials: the users who asked Nest for a trial.
    """

    def __init__(self, shop: Shop, dice: random.Random) -> None:
        self.shop = shop
        self.trials: list[str] = []
        self._dice = dice
        self._known = 0
        self._post: list[tuple[int, dict[str, Any]]] = []
        self._orders: list[Message] = []
        self._heard = 0
        self._today = 0

    async def evening(self) -> None:
        """Some of the post is delivered, in any order, and some of what follows from it is done."""
        self.shop.harness.now = self.shop.double.clock.time
        self._today += 1
        self._collect()
        if self._today % 3 == 0:
            await self._ask_for_trial(f"user_trial_{self._today}")
        due = [letter for letter in self._post if letter[0] <= self._today]
        self._post = [letter for letter in self._post if letter[0] > self._today]
        self._dice.shuffle(due)
        await self._at_once([self.shop.deliver(event, follow=False) for _, event in due])
        await self._work(patience=self._dice.choice([0, 1, 3]))

    async def rest(self) -> None:
        """All that is under way comes to its end."""
        while True:
            self._collect()
            self._hear()
            if not (self._post or self._orders or await self.shop.count("timers")):
                return
            self.shop.harness.now += timedelta(days=1)
            letters, self._post = self._post, []
            await self._at_once([self.shop.deliver(event, follow=False) for _, event in letters])
            await self._work(patience=50)

    async def reconcile(self) -> None:
        """Look at everything again, as after deliveries were lost."""
        orders: list[Command] = [FollowCustomer(customer_id=each["id"]) for each in self._objects("customer")]
        orders += [FollowPayment(payment_intent_id=each["id"]) for each in self._objects("payment_intent")]
        orders += [FollowDispute(dispute_id=each["id"]) for each in self._objects("dispute")]
        await self._at_once([self.shop.harness.deliver(order) for order in orders])
        await self.rest()

    def _objects(self, kind: str) -> list[dict[str, Any]]:
        return self.shop.double.objects(kind)

    def _collect(self) -> None:
        events = self._objects("event")
        for event in events[self._known :]:
            lost = self._dice.random() < 0.1
            for _ in range(0 if lost else self._dice.choice([1, 1, 2, 3])):
                self._post.append((self._today + self._dice.choice([0, 0, 0, 1, 4]), event))
        self._known = len(events)

    async def _ask_for_trial(self, user_id: str) -> None:
        self.trials.append(user_id)
        order = StartTrial(
            key=user_id,
            user_id=user_id,
            email=f"{user_id}@example.com",
            client_id="client_1",
            redirect_uri="https://magic.getbeak.app/",
            state="state",
            code_challenge="E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            beak_id=f"beak_of_{user_id}",
        )
        await self.shop.harness.deliver(order)

    async def _work(self, *, patience: int) -> None:
        """Do what was ordered, again and again, so often at the most."""
        for _ in range(patience):
            self._hear()
            await self._due()
            if not self._orders:
                return
            orders, self._orders = self._orders, []
            self._dice.shuffle(orders)
            await self._at_once([self._do(order) for order in orders])
            self.shop.harness.context.stripe.calls.breaker.succeeded()

    def _hear(self) -> None:
        said = self.shop.harness.published
        for message in said[self._heard :]:
            if isinstance(message, EnsureUser):
                user_id = self.shop.users.setdefault(message.email, f"user_{len(self.shop.users) + 1}")
                self._orders.append(UserEnsured(reference=message.reference, user_id=user_id))
            elif isinstance(message, Command) and message.service == "billing" and not later(message):
                self._orders.append(message)
        self._heard = len(said)

    async def _due(self) -> None:
        timers = self.shop.harness.database["timers"]
        for row in await timers.find({"at": {"$lte": self.shop.harness.now}}).to_list():
            await timers.delete_one({"_id": row["_id"]})
            self._orders.append(MESSAGES[row["type"]].model_validate_json(row["body"]))

    async def _do(self, order: Message) -> None:
        try:
            await self.shop.harness.deliver(order)
        except Refused as refused:
            # Who ordered a trial while Stripe was in trouble orders it again.
            if refused.kind != "unavailable":
                raise
            self._orders.append(order)

    async def _at_once(self, tasks: list[Any]) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(task: Any) -> None:
            async with room:
                await task

        await asyncio.gather(*(one(task) for task in tasks))


@pytest.mark.parametrize(
    ("customers", "days", "seed"),
    [(10, 40, 1), pytest.param(200, 90, 2, marks=pytest.mark.slow), pytest.param(60, 120, 3, marks=pytest.mark.slow)],
)
async def test_whatever_happens_in_between_the_end_is_stripes_with_one_of_everything(
    customers: int, days: int, seed: int, shop: Shop
) -> None:
    shop.double.clock.freeze()
    shop.harness.context.stripe.calls.patience = Patience(pause=0.002)
    faults = [
        shop.double.faults.add(trouble, after_work=True, probability=0.05, path="/v1/*")
        for trouble in (FaultKind.RESET, FaultKind.SERVER_ERROR)
    ]
    town = Town(shop, random.Random(seed))
    life = RandomWorkload(shop.double, shop.price, seed=seed)
    await life.run(customers=customers, days=days, after_each_day=town.evening)
    await town.rest()
    assert all(fault.hits > 0 for fault in faults)
    # Few customers do not live to see everything.
    assert customers < MANY or set(life.performed) >= VERBS
    shop.double.faults.clear()
    await town.reconcile()

    await records_are_stripes(shop)
    await occasions_had_one_mail_each(shop)
    await nothing_was_made_twice(shop, town)
    assert {row["handledAt"] is None for row in await shop.event_rows()} == {False}


async def records_are_stripes(shop: Shop) -> None:
    """Our records are the double's objects, and none of them is missing."""
    records = {row["stpSubscriptionId"]: row async for row in shop.harness.database["subscriptions"].find()}
    mapped = {row["providerValue"] async for row in shop.harness.database["provider_mappings"].find()}
    customers = {customer["id"]: customer for customer in shop.double.objects("customer")}
    for found in shop.double.objects("subscription"):
        customer = customers[found["customer"]]
        if customer.get("deleted") and customer["id"] not in mapped:
            # All that told of it was lost, and then its address was deleted: nobody can tell whose it was.
            assert found["id"] not in records
            continue
        truth = subscription_of({**found, "customer": customer, "discounts": []}, found["items"]["data"])
        record = records.pop(found["id"])
        for name, fact in FACTS.items():
            assert record[name] == (truth.customer.id if fact is None else getattr(truth, fact)), name
        assert record["endsAt"] == (truth.ended_at or truth.period_end)
        assert (record["overdueSince"] is not None) == (truth.status == "past_due")
    assert records == {}
    intents = {each["id"]: each["status"] for each in shop.double.objects("payment_intent")}
    assert {r["stpPaymentIntentId"]: r["status"] async for r in shop.harness.database["payments"].find()} == intents
    disputes = {each["id"]: each["status"] for each in shop.double.objects("dispute")}
    assert {r["stpDisputeId"]: r["status"] async for r in shop.harness.database["disputes"].find()} == disputes


async def occasions_had_one_mail_each(shop: Shop) -> None:
    """As many mails and announcements as there were occasions, and no occasion without one."""
    records = await shop.harness.database["subscriptions"].find().to_list()
    mails = Counter(template for template, _ in shop.mails())
    assert mails["welcome"] + mails["welcome-trial"] == sum(row["welcomedAt"] is not None for row in records)
    duplicates = [row for row in records if row["duplicateOf"] is not None]
    deleted = {each["id"] for each in shop.double.objects("customer") if each.get("deleted")}
    lasting = [row for row in duplicates if row["stpCustomerId"] not in deleted]
    assert len(lasting) <= mails["duplicate-subscription"] <= len(duplicates)
    notices = Counter(
        (event["data"]["object"]["id"], event["data"]["object"]["trial_end"])
        for event in shop.double.objects("event")
        if event["type"] == "customer.subscription.trial_will_end"
    )
    told = sum(row["trialEndTold"] is not None for row in records)
    assert told == mails["trial-ending"] <= len(notices)
    assert told > 0
    for said, expected in (
        (SubscriptionStarted, [row["_id"] for row in records]),
        (SubscriptionEnded, [row["_id"] for row in records if row["status"] in ("canceled", "incomplete_expired")]),
        (DuplicateSubscriptionCancelled, [row["_id"] for row in duplicates]),
    ):
        assert sorted(event.subscription_id for event in shop.harness.published_of(said)) == sorted(expected)


async def nothing_was_made_twice(shop: Shop, town: Town) -> None:
    """One customer and one subscription for each trial; of each duplicate's payments one refund, and no credit left."""
    assert sorted(event.user_id for event in shop.harness.published_of(TrialStarted)) == sorted(town.trials)
    trials = await shop.harness.database["trials"].find().to_list()
    for kind, name in (("customer", "stpCustomerId"), ("subscription", "stpSubscriptionId")):
        made = Counter(each["metadata"].get("trial_id") for each in shop.double.objects(kind) if each.get("metadata"))
        made.pop(None, None)
        assert set(made.values()) == {1}
        assert len({trial[name] for trial in trials}) == len(trials) == len(town.trials)
    refunds = [each for each in shop.double.objects("refund") if each["metadata"]]
    assert len({(each["metadata"]["subscription_id"], each["charge"]) for each in refunds}) == len(refunds)
    taken_back = [each["metadata"]["subscription_id"] for each in shop.double.objects("customer_balance_transaction")]
    assert len(set(taken_back)) == len(taken_back)
    charges = {charge["payment_intent"]: charge for charge in shop.double.objects("charge") if charge["paid"]}
    ties = [tie for tie in shop.double.objects("invoice_payment") if tie["status"] == "paid"]
    gone = {
        row["stpSubscriptionId"]
        async for row in shop.harness.database["subscriptions"].find({"duplicateOf": {"$ne": None}})
    }
    for tie in ties:
        invoice = shop.double.object("invoice", tie["invoice"])
        if invoice["parent"]["subscription_details"]["subscription"] in gone:
            charge = charges[tie["payment"]["payment_intent"]]
            assert charge["refunded"] or charge["disputed"]
