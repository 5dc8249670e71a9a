"""Start of a trial: reservation, creation in Stripe, and recovery from failures."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api.calls import StripeRefused
from services.stripe_double import FaultKind
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.errors import Unavailable
from shared.ids import new_message_id
from shared.messages.auth.magic_links import SendTrialMagicLink
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    FollowSubscription,
    GetSubscriptionStatus,
    SubscriptionChanged,
    SubscriptionEnded,
)
from shared.messages.billing.trials import FinishTrial, StartTrial, TrialStarted
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import FAST, Shop
from tests.service_harness import Refused

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def command(**changed: Any) -> StartTrial:
    defaults: dict[str, Any] = {
        "key": "user_ada",
        "user_id": "user_ada",
        "email": "ada@example.com",
        "client_id": "client_1",
        "redirect_uri": "https://magic.getbeak.app/",
        "state": "state",
        "code_challenge": CHALLENGE,
        "platform": "mac",
        "beak_id": "beak_ada",
        "fingerprint": "print_ada",
    }
    return StartTrial(**{**defaults, **changed})


async def start(shop: Shop, **changed: Any) -> None:
    """Start a trial and deliver the commands that follow, and raise their refusal."""
    await shop.harness.deliver(command(**changed))
    await shop.settle()


def created(shop: Shop) -> tuple[int, int]:
    """The numbers of customers and subscriptions in Stripe."""
    return len(shop.double.objects("customer")), len(shop.double.objects("subscription"))


async def test_a_trial_is_created_recorded_and_announced_with_a_magic_link(shop: Shop) -> None:
    await start(shop)
    (customer,), (subscription,) = shop.double.objects("customer"), shop.double.objects("subscription")
    assert (customer["email"], customer["metadata"]["user_id"]) == ("ada@example.com", "user_ada")
    assert subscription["status"] == "trialing"
    assert subscription["items"]["data"][0]["price"]["id"] == shop.price
    trial = await shop.harness.database["trials"].find_one({})
    assert trial is not None
    assert trial["_id"].startswith("test_trial_")
    assert (trial["userId"], trial["device"]) == ("user_ada", {"beakId": "beak_ada", "fingerprint": "print_ada"})
    assert (trial["stpCustomerId"], trial["stpSubscriptionId"]) == (customer["id"], subscription["id"])
    assert trial["stpProductId"] == subscription["items"]["data"][0]["price"]["product"]
    assert trial["endsAt"] - trial["startsAt"] == timedelta(days=14)
    assert trial["email"] is None
    record = await shop.record(subscription["id"])
    assert (record["userId"], record["status"], record["trialId"]) == ("user_ada", "trialing", trial["_id"])
    mapping = await shop.harness.database["provider_mappings"].find_one({})
    assert mapping is not None
    assert mapping["providerValue"] == customer["id"]
    (started,) = shop.harness.published_of(TrialStarted)
    assert (started.trial_id, started.subscription_id, started.ends_at) == (
        trial["_id"],
        record["_id"],
        trial["endsAt"],
    )
    (link,) = shop.harness.published_of(SendTrialMagicLink)
    assert (link.identifier_value, link.code_challenge, link.state) == ("ada@example.com", CHALLENGE, "state")
    assert (link.device.platform, link.device.beak_id, link.device.fingerprint) == ("mac", "beak_ada", "print_ada")
    assert shop.mails() == [("welcome-trial", "ada@example.com")]
    assert (await shop.harness.deliver(GetSubscriptionStatus(user_id="user_ada")))["status"] == "trialing"


async def test_the_webhooks_of_a_new_trial_change_nothing(shop: Shop) -> None:
    await start(shop)
    await shop.deliver_all()
    published = [
        message for message in shop.harness.published if not isinstance(message, FollowSubscription | FollowPayment)
    ]
    assert [type(message) for message in published].count(SendMail) == 1
    assert not {SubscriptionChanged, SubscriptionEnded, CancelDuplicateSubscription} & {
        type(each) for each in published
    }
    assert await shop.count("subscriptions") == 1


async def test_a_webhook_before_the_trial_is_finished_duplicates_nothing(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.RESET, after_work=True, times=3, method="POST", path="/v1/subscriptions")
    with pytest.raises(Refused):
        await start(shop)
    await shop.deliver_all()
    assert shop.mails() == [("welcome-trial", "ada@example.com")]
    await start(shop)
    assert created(shop) == (1, 1)
    assert len(shop.mails()) == len(shop.harness.published_of(SendTrialMagicLink)) == 1
    assert (await shop.count("subscriptions"), await shop.count("trials")) == (1, 1)


async def test_a_subscribed_user_gets_no_trial(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"user_id": "user_ada"})
    await shop.deliver_all()
    with pytest.raises(Refused, match="conflict") as refused:
        await start(shop)
    assert refused.value.code == "already_subscribed"
    assert (await shop.count("trials"), created(shop)) == (0, (1, 1))


async def test_a_user_gets_no_second_trial(shop: Shop) -> None:
    await start(shop)
    with pytest.raises(Refused) as active:
        await start(shop)
    assert active.value.code == "already_subscribed"
    shop.double.simulate.cancel(shop.double.objects("subscription")[0]["id"], at="now")
    await shop.deliver_all()
    for changed in ({}, {"fingerprint": "other", "beak_id": "other"}):
        with pytest.raises(Refused) as used:
            await start(shop, **changed)
        assert (used.value.kind, used.value.code) == ("conflict", "trial_already_used")
    assert created(shop) == (1, 1)


@pytest.mark.parametrize("same", ["fingerprint", "beak_id"])
async def test_a_device_gets_no_second_trial_for_another_user(same: str, shop: Shop) -> None:
    await start(shop)
    eve = {"user_id": "user_eve", "key": "user_eve", "email": "eve@example.com"}
    other = {"fingerprint": "print_eve", "beak_id": "beak_eve"}
    with pytest.raises(Refused) as refused:
        await start(shop, **eve, **{name: value for name, value in other.items() if name != same})
    assert refused.value.code == "trial_already_used"
    await start(shop, **eve, **other)
    assert created(shop) == (2, 2)


async def test_devices_without_identifiers_do_not_exclude_one_another(shop: Shop) -> None:
    for name in ("ada", "bob", "eve"):
        await start(shop, user_id=name, key=name, email=f"{name}@example.com", fingerprint=None, beak_id=None)
    assert created(shop) == (3, 3)


@pytest.mark.parametrize("blank", ["", " "])
async def test_blank_device_values_belong_to_no_device(shop: Shop, blank: str) -> None:
    """Commands and rows from before blank values were refused."""
    for name in ("ada", "bob"):
        await start(shop, user_id=name, key=name, email=f"{name}@example.com", fingerprint=blank, beak_id=blank)
    assert created(shop) == (2, 2)
    trials = await shop.harness.database["trials"].find().to_list()
    assert [trial["device"] for trial in trials] == [{"beakId": None, "fingerprint": None}] * 2


async def test_started_trial_whose_row_has_blank_device_values_is_finished(shop: Shop) -> None:
    await shop.harness.deliver(command(fingerprint=None, beak_id=None))
    await shop.harness.database["trials"].update_one({}, {"$set": {"device": {"beakId": "", "fingerprint": ""}}})
    await start(shop, fingerprint=None, beak_id=None)
    assert created(shop) == (1, 1)


async def test_of_parallel_starts_on_two_instances_one_succeeds(shop: Shop, open_shop: Callable[..., Any]) -> None:
    other: Shop = await open_shop()

    async def attempt(number: int) -> str:
        instance = shop if number % 2 else other
        name = "user_ada" if number % 4 < 2 else f"user_{number}"
        device = {"fingerprint": "print_ada", "beak_id": f"beak_{number}"}
        try:
            await instance.harness.deliver(command(user_id=name, key=name, **device))
        except Refused as refused:
            return refused.code
        return "reserved"

    outcomes = await asyncio.gather(*(attempt(number) for number in range(24)))
    assert sorted(set(outcomes)) == ["reserved", "trial_already_used"]
    assert outcomes.count("reserved") == 1
    finishes = [*shop.harness.published_of(FinishTrial), *other.harness.published_of(FinishTrial)]
    # Both instances handle it, as after a rebalance.
    await asyncio.gather(*(instance.harness.deliver(finishes[0], id=new_message_id()) for instance in (shop, other)))
    assert created(shop) == (1, 1)
    assert (await shop.count("trials"), await shop.count("subscriptions")) == (1, 1)
    assert len(shop.mails()) + len(other.mails()) == 1


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/subscriptions"])
@pytest.mark.parametrize("after_work", [True, False])
@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.RESET, FaultKind.SERVER_ERROR])
async def test_a_retry_after_any_failure_finishes_the_same_trial(
    kind: FaultKind,
    after_work: bool,  # noqa: FBT001
    path: str,
    shop: Shop,
) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    fault = shop.double.faults.add(kind, after_work=after_work, method="POST", path=path)
    with pytest.raises(Refused) as refused:
        await start(shop)
    assert (refused.value.kind, refused.value.code) == ("unavailable", Unavailable.code)
    assert fault.hits == 3
    assert shop.harness.published_of(SendTrialMagicLink) == []
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    await start(shop)
    assert created(shop) == (1, 1)
    assert await shop.count("trials") == 1
    assert len(shop.harness.published_of(SendTrialMagicLink)) == len(shop.mails()) == 1


async def test_a_repeat_after_an_outage_finishes_the_trial(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    await shop.harness.deliver(command())
    (finish,) = shop.harness.published_of(FinishTrial)
    async with shop.double.outage():
        with pytest.raises(Refused, match="unavailable"):
            await shop.harness.deliver(finish, id="f" * 32)
    shop.harness.context.stripe.calls.breaker.succeeded()
    assert await shop.harness.deliver(finish, id="f" * 32) is None
    assert created(shop) == (1, 1)


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/subscriptions"])
async def test_after_a_stored_failure_the_object_is_looked_up_first(path: str, shop: Shop) -> None:
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, stored=True, times=1, method="POST", path=path)
    await start(shop)
    assert fault.hits == 1
    assert created(shop) == (1, 1)
    lookups = [call for call in shop.double.log if call.method == "GET" and call.path == path]
    assert len(lookups) == 1
    keys = [call.idempotency_key for call in shop.double.log if call.method == "POST" and call.path == path]
    trial = await shop.harness.database["trials"].find_one({})
    assert trial is not None
    # The customer is the user's, whatever creates it.
    key = "user_ada:customer" if path == "/v1/customers" else f"{trial['_id']}:subscription"
    assert keys == [key, key, f"{key}:1"]


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/subscriptions"])
async def test_a_retry_after_a_day_looks_up_before_it_creates(path: str, shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.RESET, after_work=True, method="POST", path=path)
    with pytest.raises(Refused):
        await start(shop)
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    for call in shop.double.log:
        if call.idempotency_key:
            shop.double.idempotency.forget(call.idempotency_key)
    shop.harness.now += timedelta(days=1)
    await start(shop)
    assert created(shop) == (1, 1)


async def test_a_retry_with_another_address_finishes_the_same_trial(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.RESET, after_work=True, times=3, method="POST", path="/v1/customers")
    with pytest.raises(Refused):
        await start(shop)
    await start(shop, email="ada@example.org")
    assert created(shop) == (1, 1)
    assert [link.identifier_value for link in shop.harness.published_of(SendTrialMagicLink)] == ["ada@example.org"]


async def test_the_address_of_a_pending_trial_is_stored_sealed(shop: Shop) -> None:
    await shop.harness.deliver(command())
    trial = await shop.harness.database["trials"].find_one({})
    assert trial is not None
    assert "ada@example.com" not in repr(trial)
    assert shop.harness.context.unseal(trial["email"]) == "ada@example.com"


async def test_two_starts_in_a_row_cause_one_trial_and_two_links(shop: Shop) -> None:
    await shop.harness.deliver(command())
    await shop.harness.deliver(command(state="second"))
    for finish in shop.harness.published_of(FinishTrial):
        await shop.harness.deliver(finish)
    assert created(shop) == (1, 1)
    assert [link.state for link in shop.harness.published_of(SendTrialMagicLink)] == ["state", "second"]
    assert len(shop.harness.published_of(TrialStarted)) == len(shop.mails()) == 1


async def test_a_trial_uses_the_existing_customer_of_the_user(shop: Shop) -> None:
    earlier = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"user_id": "user_ada"})
    shop.double.simulate.cancel(earlier["id"], at="now")
    await shop.deliver_all()
    await start(shop)
    assert created(shop) == (1, 2)


async def test_a_deleted_customer_is_not_used_for_a_trial(shop: Shop) -> None:
    earlier = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"user_id": "user_ada"})
    shop.double.simulate.delete_customer(earlier["customer"])
    await shop.deliver_all()
    await start(shop)
    assert created(shop) == (2, 2)


async def test_a_crash_between_stripe_and_the_commit_leaves_one_trial(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    await shop.harness.deliver(command())
    (finish,) = shop.harness.published_of(FinishTrial)

    class Crashed(BaseException):
        pass

    async def crash(_: str) -> Any:
        raise Crashed

    # At fault point B1: the process has called Stripe and stored nothing.
    shop.harness.context.subscriptions.find_by_stripe_id = crash
    with pytest.raises(Crashed):
        await shop.harness.deliver(finish, id="f" * 32)
    assert created(shop) == (1, 1)
    other: Shop = await open_shop()
    await other.harness.deliver(finish, id="f" * 32)
    assert created(shop) == (1, 1)
    assert await shop.count("trials") == await shop.count("subscriptions") == len(other.mails()) == 1


async def test_an_address_rejected_by_stripe_removes_the_reservation(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(**_: Any) -> str:
        raise StripeRefused("email_invalid", "email")

    with monkeypatch.context() as patch:
        patch.setattr(shop.harness.context.stripe, "within", lambda _: shop.harness.context.stripe)
        patch.setattr(shop.harness.context.stripe, "create_customer", refuse)
        with pytest.raises(Refused) as refused:
            await start(shop)
    assert (refused.value.kind, refused.value.code) == ("invalid", "invalid_email")
    assert await shop.count("trials") == 0
    await start(shop)
    assert created(shop) == (1, 1)


async def test_a_caller_learns_of_an_outage_before_its_deadline(shop: Shop) -> None:
    shop.double.faults.add(FaultKind.HANG)
    await shop.harness.deliver(command())
    (finish,) = shop.harness.published_of(FinishTrial)
    now = unix_milliseconds()
    envelope = Envelope(
        id=new_message_id(),
        wire=finish.wire,
        topic=finish.topic,
        key="user_ada",
        body=encode(finish, shop.harness.sealer),
        time=now,
        deadline=now + 2200,
    )
    outcome = await shop.harness._handling.handle(envelope, finish)
    assert outcome.kind == "unavailable"
    assert unix_milliseconds() < envelope.deadline - 500
