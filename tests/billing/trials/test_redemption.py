"""Provisional trials: orders by strangers, redemption by the owner of the mailbox, and undoing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.ids import new_message_id
from shared.messages.auth.magic_links import SendTrialMagicLink
from shared.messages.auth.users import RemoveUnusedUser
from shared.messages.billing.subscriptions import SubscriptionEnded
from shared.messages.billing.trials import (
    CancelUndoneTrial,
    CreateRedeemedTrial,
    FinishTrial,
    OfferTrial,
    RedeemTrial,
    StartTrial,
    UndoTrial,
)
from tests.billing.conftest import FAST, Shop, counter
from tests.billing.trials.test_handlers import CHALLENGE, command, created
from tests.service_harness import Refused

ORDERED = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
ADA = {"beak_id": "beak_ada", "fingerprint": "print_ada"}
EVE = {"beak_id": "beak_eve", "fingerprint": "print_eve"}
"""A stranger's device."""
BOB = {"user_id": "user_bob", "key": "user_bob", "email": "bob@example.com"}


async def settle(shop: Shop) -> None:
    """Deliver billing's commands to itself, except those that wait for a later time."""
    later = [message for _, message in await shop.harness.delayed()]
    while shop._settled < len(shop.harness.published):
        message = shop.harness.published[shop._settled]
        shop._settled += 1
        if message not in later and message.service == "billing" and message.channel == "commands":
            await shop.harness.deliver(message)
            later = [each for _, each in await shop.harness.delayed()]


async def order(shop: Shop, device: dict[str, str], **changed: Any) -> StartTrial:
    """Order a trial, and deliver all that follows; raise the refusal."""
    ordered = command(**{**device, "ordered_at": ORDERED, **changed})
    await shop.harness.deliver(ordered)
    await settle(shop)
    return ordered


async def redeem(shop: Shop, device: dict[str, str], user_id: str = "user_ada", email: str = "ada@example.com") -> None:
    """Redeem the link that was ordered from this device."""
    await shop.harness.deliver(RedeemTrial(key=user_id, user_id=user_id, email=email, **device))
    await settle(shop)


async def pass_a_day(shop: Shop) -> None:
    """Deliver the timer that undoes the trials, a day later."""
    timers = [message for at, message in await shop.harness.delayed() if isinstance(message, UndoTrial)]
    shop.harness.now += timedelta(hours=24)
    for timer in timers:
        await shop.harness.deliver(timer)
    await settle(shop)


async def trial_of(shop: Shop, user_id: str = "user_ada") -> dict[str, Any] | None:
    found: dict[str, Any] | None = await shop.harness.database["trials"].find_one({"userId": user_id})
    return found


def statuses(shop: Shop) -> list[str]:
    return [subscription["status"] for subscription in shop.double.objects("subscription")]


async def refusal(shop: Shop, device: dict[str, str], **changed: Any) -> str:
    with pytest.raises(Refused) as refused:
        await order(shop, device, **changed)
    return refused.value.code


async def test_an_order_causes_one_mail_and_the_redemption_the_welcome(shop: Shop) -> None:
    await order(shop, ADA)
    await shop.deliver_all()
    assert (created(shop), shop.mails()) == ((1, 1), [])
    assert len(shop.harness.published_of(SendTrialMagicLink)) == 1
    for _ in range(2):
        await redeem(shop, ADA)
    assert shop.mails() == [("welcome-trial", "ada@example.com")]


async def test_the_mailbox_decides_whose_trial_it_is(shop: Shop) -> None:
    await order(shop, EVE)
    await order(shop, ADA, state="second")
    assert created(shop) == (1, 1)
    links = shop.harness.published_of(SendTrialMagicLink)
    assert [(link.state, link.device.beak_id) for link in links] == [("state", "beak_eve"), ("second", "beak_ada")]
    await redeem(shop, ADA)
    trial = await trial_of(shop)
    assert trial is not None
    assert trial["device"] == {"beakId": "beak_ada", "fingerprint": "print_ada"}
    await pass_a_day(shop)
    assert statuses(shop) == ["trialing"]
    # The stranger's device is free, and that of the redeemed order has had its trial.
    assert await refusal(shop, ADA, **BOB) == "trial_already_used"
    await order(shop, EVE, **BOB)
    assert created(shop) == (2, 2)


async def test_a_redeemed_trial_is_not_ordered_again(shop: Shop) -> None:
    await order(shop, ADA)
    await redeem(shop, ADA)
    assert await refusal(shop, EVE) == "already_subscribed"
    shop.double.simulate.cancel(shop.double.objects("subscription")[0]["id"], at="now")
    await shop.deliver_all()
    assert await refusal(shop, EVE) == "trial_already_used"


async def test_a_trial_that_nobody_redeems_is_undone_without_an_invoice(shop: Shop) -> None:
    await order(shop, EVE)
    invoices = len(shop.double.objects("invoice"))
    before = counter("nest_trials_undone")
    await pass_a_day(shop)
    await shop.deliver_all()
    assert (statuses(shop), len(shop.double.objects("invoice"))) == (["canceled"], invoices)
    assert (await trial_of(shop), shop.mails(), counter("nest_trials_undone")) == (None, [], before + 1)
    [ended] = shop.harness.published_of(SubscriptionEnded)
    assert ended.reason == "trial_undone"
    [removal] = shop.harness.published_of(RemoveUnusedUser)
    assert (removal.user_id, removal.ordered_at) == ("user_ada", ORDERED)
    # Address and device are free.
    await order(shop, EVE, **BOB)
    await order(shop, ADA)
    assert statuses(shop) == ["canceled", "trialing", "trialing"]


async def test_the_first_order_decides_when_a_trial_is_undone(shop: Shop) -> None:
    await order(shop, EVE)
    shop.harness.now += timedelta(hours=23)
    await order(shop, ADA, ordered_at=ORDERED + timedelta(hours=23))
    [(due, _)] = [each for each in await shop.harness.delayed() if isinstance(each[1], UndoTrial)]
    assert timedelta(hours=0) < due - shop.harness.now <= timedelta(hours=1)
    await pass_a_day(shop)
    [removal] = shop.harness.published_of(RemoveUnusedUser)
    assert removal.ordered_at == ORDERED + timedelta(hours=23), "auth keeps the user after a later order"


async def test_a_trial_in_use_is_not_undone(shop: Shop) -> None:
    await order(shop, ADA)
    [subscription] = shop.double.objects("subscription")
    await shop.post(f"/v1/subscriptions/{subscription['id']}", trial_end="now")
    [status] = statuses(shop)
    assert status != "trialing"
    await pass_a_day(shop)
    trial = await trial_of(shop)
    assert trial is not None
    assert (trial["provisionalUntil"], statuses(shop)) == (None, [status])


@pytest.mark.parametrize("first", ["undo", "redeem"])
async def test_a_redemption_at_the_deadline_ends_with_a_trial(shop: Shop, first: str) -> None:
    await order(shop, EVE)
    [timer] = [message for _, message in await shop.harness.delayed() if isinstance(message, UndoTrial)]
    redemption = RedeemTrial(key="user_ada", user_id="user_ada", email="ada@example.com", **ADA)
    for message in (timer, redemption) if first == "undo" else (redemption, timer):
        await shop.harness.deliver(message)
    [cancellation] = shop.harness.published_of(CancelUndoneTrial) if first == "undo" else [None]
    if cancellation is not None:
        # The redemption waits until the trial is removed, and starts another one.
        await shop.harness.deliver(cancellation)
        await shop.harness.deliver(redemption)
    await settle(shop)
    assert statuses(shop).count("trialing") == 1
    trial = await trial_of(shop)
    assert trial is not None
    assert (trial["device"]["beakId"], trial["provisionalUntil"]) == ("beak_ada", None)


async def test_redemption_and_undoing_at_once_never_cancel_a_redeemed_trial(shop: Shop) -> None:
    for number in range(6):
        user = {"user_id": f"u{number}", "key": f"u{number}", "email": f"u{number}@example.com"}
        device = {"beak_id": f"b{number}", "fingerprint": f"f{number}"}
        await order(shop, device, **user)
    timers = [message for _, message in await shop.harness.delayed() if isinstance(message, UndoTrial)]
    redemptions = [
        RedeemTrial(key=f"u{n}", user_id=f"u{n}", email=f"u{n}@example.com", beak_id=f"b{n}", fingerprint=f"f{n}")
        for n in range(6)
    ]
    await asyncio.gather(*(shop.harness.deliver(each) for each in (*timers, *redemptions)))
    await settle(shop)
    for _, message in await shop.harness.delayed():
        if isinstance(message, RedeemTrial):
            await shop.harness.deliver(message)
    await settle(shop)
    assert statuses(shop).count("trialing") == 6
    trials = await shop.harness.database["trials"].find().to_list()
    assert [trial["provisionalUntil"] for trial in trials] == [None] * 6


async def test_second_delivery_of_each_step_changes_nothing(shop: Shop) -> None:
    await order(shop, EVE)
    [timer] = [message for _, message in await shop.harness.delayed() if isinstance(message, UndoTrial)]
    for message in (timer, timer, *[CancelUndoneTrial(key="user_ada", trial_id=timer.trial_id)] * 2):
        await shop.harness.deliver(message, id=new_message_id())
    assert (statuses(shop), await trial_of(shop)) == (["canceled"], None)
    assert len(shop.harness.published_of(RemoveUnusedUser)) == 1


async def test_undoing_waits_for_stripe(shop: Shop) -> None:
    await order(shop, EVE)
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.RESET, method="DELETE", path="/v1/subscriptions/*")
    await pass_a_day(shop)
    assert statuses(shop) == ["trialing"]
    assert await refusal(shop, ADA) == "unavailable"
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    [retry] = [message for _, message in await shop.harness.delayed() if isinstance(message, CancelUndoneTrial)]
    await shop.harness.deliver(retry)
    assert (statuses(shop), await trial_of(shop)) == (["canceled"], None)


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/subscriptions"])
async def test_a_trial_that_a_crash_left_in_stripe_is_undone_too(shop: Shop, path: str) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.RESET, after_work=True, method="POST", path=path)
    with pytest.raises(Refused):
        await order(shop, EVE)
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    await pass_a_day(shop)
    assert (await trial_of(shop), set(statuses(shop)) - {"canceled"}) == (None, set())


@pytest.mark.parametrize(
    ("second", "eligible"),
    [
        ("ada+2@example.com", False),
        ("a.da@example.com", True),
        ("ada@example.org", True),
    ],
)
async def test_aliases_of_a_person_with_a_trial_get_no_other_one(shop: Shop, second: str, eligible: bool) -> None:  # noqa: FBT001
    await order(shop, ADA)
    await redeem(shop, ADA)
    other = {"user_id": "user_2", "key": "user_2", "email": second}
    if eligible:
        await order(shop, EVE, **other)
        return
    assert await refusal(shop, EVE, **other) == "trial_already_used"
    assert created(shop) == (1, 1)


async def test_an_alias_does_not_block_the_person_before_it_is_redeemed(shop: Shop) -> None:
    await order(shop, EVE, user_id="user_2", key="user_2", email="ada+eve@example.com")
    await order(shop, ADA)
    await redeem(shop, ADA)
    # The alias' link is redeemed after all: the person has had a trial, so this one is undone.
    await redeem(shop, EVE, "user_2", "ada+eve@example.com")
    assert sorted(statuses(shop)) == ["canceled", "trialing"]
    assert await trial_of(shop, "user_2") is None


async def test_aliases_are_not_compared_if_the_setting_is_off(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(trial_unaliased=False)
    await order(shop, ADA)
    await redeem(shop, ADA)
    await order(shop, EVE, user_id="user_2", key="user_2", email="ada+2@example.com")
    await redeem(shop, EVE, "user_2", "ada+2@example.com")
    assert statuses(shop) == ["trialing", "trialing"]


async def test_a_device_is_taken_from_a_trial_that_nobody_has_redeemed(shop: Shop) -> None:
    """The person mistyped the address first, and then ordered a trial that a stranger had ordered before."""
    await order(shop, ADA, user_id="user_typo", key="user_typo", email="aad@example.com")
    await order(shop, EVE)
    await order(shop, ADA)
    await redeem(shop, ADA)
    trial, mistyped = await trial_of(shop), await trial_of(shop, "user_typo")
    assert trial is not None
    assert mistyped is not None
    assert (trial["device"]["beakId"], mistyped["device"]["beakId"]) == ("beak_ada", None)
    await redeem(shop, ADA, "user_typo", "aad@example.com")
    assert sorted(statuses(shop)) == ["canceled", "trialing"], "a device has one trial"


async def test_a_refused_order_removes_the_user_that_it_created(shop: Shop) -> None:
    await order(shop, ADA)
    await redeem(shop, ADA)
    assert await refusal(shop, ADA, **BOB) == "trial_already_used"
    assert [each.user_id for each in shop.harness.published_of(RemoveUnusedUser)] == ["user_bob"]


async def test_objects_of_anonymous_orders_are_counted(shop: Shop) -> None:
    def counts() -> list[float]:
        return [counter("nest_stripe_anonymous_objects", object=name) for name in ("customer", "subscription")]

    before = counts()
    await order(shop, EVE)
    await order(shop, ADA)
    assert counts() == [each + 1 for each in before]
    await redeem(shop, {"beak_id": "b", "fingerprint": "f"}, "user_2", "other@example.com")
    assert (counts(), created(shop)) == ([each + 1 for each in before], (2, 2))


async def test_a_trial_of_an_earlier_release_stays_as_it_is(shop: Shop) -> None:
    await order(shop, ADA, ordered_at=None)
    assert await pass_a_day(shop) is None
    trial = await trial_of(shop)
    assert trial is not None
    assert (statuses(shop), trial["provisionalUntil"]) == (["trialing"], None)
    assert shop.mails() == [("welcome-trial", "ada@example.com")]
    await shop.harness.database["trials"].update_many(
        {}, {"$unset": {"person": "", "orderedAt": "", "provisionalUntil": "", "undoneAt": ""}}
    )
    await redeem(shop, EVE)
    assert await refusal(shop, ADA, **BOB) == "trial_already_used"
    assert await refusal(shop, EVE) == "already_subscribed"
    assert created(shop) == (1, 1)


async def test_unfinished_order_of_an_earlier_release_sends_its_device(shop: Shop) -> None:
    await shop.harness.deliver(command(**ADA))
    [finish] = shop.harness.published_of(FinishTrial)
    await shop.harness.deliver(finish.model_copy(update={"beak_id": None, "fingerprint": None}))
    [link] = shop.harness.published_of(SendTrialMagicLink)
    assert link.device.beak_id == "beak_ada"


class TestTrialAtRedemption:
    """The version 2026-12-01, which creates nothing before the link is redeemed."""

    async def offer(self, shop: Shop, user_id: str | None = None, **changed: Any) -> bool:
        """Order a link, and return whether it is one of a trial."""
        fields = command(**{**ADA, **changed}).model_dump(exclude={"user_id", "ordered_at"})
        await shop.harness.deliver(OfferTrial(user_id=user_id, **fields))
        await settle(shop)
        link: SendTrialMagicLink = shop.harness.published_of(SendTrialMagicLink)[-1]
        assert (link.code_challenge, link.device.platform) == (CHALLENGE, "mac")
        return link.eligible

    async def test_the_redemption_starts_the_trial(self, shop: Shop) -> None:
        assert await self.offer(shop)
        assert (created(shop), await shop.count("trials")) == ((0, 0), 0)
        for _ in range(2):
            await redeem(shop, ADA)
        assert (created(shop), shop.mails()) == ((1, 1), [("welcome-trial", "ada@example.com")])
        trial = await trial_of(shop)
        assert trial is not None
        assert (trial["device"]["beakId"], trial["provisionalUntil"]) == ("beak_ada", None)

    async def test_who_has_had_a_trial_gets_a_link_that_only_logs_in(self, shop: Shop) -> None:
        await redeem(shop, ADA)
        assert not await self.offer(shop, user_id="user_ada", **EVE)
        assert not await self.offer(shop, email="bob@example.com")
        assert not await self.offer(shop, email="ada+2@example.com", **EVE)
        assert await self.offer(shop, email="bob@example.com", **EVE)

    async def test_a_subscribed_user_gets_a_link_that_only_logs_in(self, shop: Shop) -> None:
        shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"user_id": "user_ada"})
        await shop.deliver_all()
        assert not await self.offer(shop, user_id="user_ada")
        await redeem(shop, ADA)
        assert (created(shop), await shop.count("trials")) == ((1, 1), 0)

    async def test_a_strangers_provisional_trial_does_not_matter(self, shop: Shop) -> None:
        await order(shop, EVE)
        assert await self.offer(shop, user_id="user_ada")
        await redeem(shop, ADA)
        assert (created(shop), statuses(shop)) == ((1, 1), ["trialing"])

    async def test_a_trial_waits_for_stripe(self, shop: Shop) -> None:
        shop.harness.context.stripe.calls.timeouts = FAST
        shop.double.faults.add(FaultKind.SERVER_ERROR, method="POST", path="/v1/subscriptions")
        await redeem(shop, ADA)
        shop.double.faults.clear()
        shop.harness.context.stripe.calls.breaker.succeeded()
        [retry] = [message for _, message in await shop.harness.delayed() if isinstance(message, CreateRedeemedTrial)]
        await shop.harness.deliver(retry)
        assert (created(shop), statuses(shop)) == ((1, 1), ["trialing"])

    async def test_a_trial_that_stripe_refuses_can_be_started_again(self, shop: Shop) -> None:
        shop.double.faults.add(FaultKind.REFUSED, method="POST", path="/v1/subscriptions")
        with pytest.raises(Refused, match="trial_refused_by_stripe"):
            await redeem(shop, ADA)
        shop.double.faults.clear()
        await redeem(shop, ADA)
        assert statuses(shop) == ["trialing"]

    async def test_of_parallel_redemptions_with_one_device_one_starts_a_trial(self, shop: Shop) -> None:
        redemptions = [
            RedeemTrial(key=f"u{number}", user_id=f"u{number}", email=f"u{number}@example.com", **ADA)
            for number in range(8)
        ]

        await asyncio.gather(*map(shop.harness.deliver, redemptions))
        await settle(shop)
        assert (created(shop), await shop.count("trials")) == ((1, 1), 1)
