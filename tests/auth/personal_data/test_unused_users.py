"""Removal of users whom the order of a trial created and who never logged in."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.messages import Caller
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, OrderTrialMagicLink, SendTrialMagicLink
from shared.messages.auth.users import EnsureUser, RemoveUnusedUser, SetMarketingConsent, UserCreated
from shared.messages.billing.trials import OfferTrial, RedeemTrial, StartTrial
from shared.messages.mailer.mails import SendMail
from shared.messages.personal_data import EraseUserFromBilling
from tests.auth.flows import ADDRESS, LINK_REQUEST, code_of, log_in, mailed_link, redemption, refusal, send_magic_link
from tests.service_harness import ServiceHarness

DEVICE = {"platform": "mac", "beak_id": "beak-1", "fingerprint": "f-1"}
ORDER = {**LINK_REQUEST, "device": DEVICE}


async def order(harness: ServiceHarness, **changed: Any) -> StartTrial:
    await harness.deliver(CreateTrialAndMagicLink(**{**ORDER, **changed}))
    started: StartTrial = harness.published_of(StartTrial)[-1]
    return started


def removal(started: StartTrial) -> RemoveUnusedUser:
    """The command that billing sends when the trial was undone."""
    assert isinstance(started.ordered_at, datetime)
    return RemoveUnusedUser(key=started.user_id, user_id=started.user_id, ordered_at=started.ordered_at)


async def users(harness: ServiceHarness) -> int:
    return int(await harness.database["users"].count_documents({}))


async def test_unused_user_is_erased_in_all_services(harness: ServiceHarness) -> None:
    started = await order(harness)
    await harness.deliver(removal(started))
    assert (await users(harness), await harness.database["identifiers"].count_documents({})) == (0, 0)
    [erasure] = harness.published_of(EraseUserFromBilling)
    assert (erasure.user_id, erasure.delete_stripe_customer) == (started.user_id, True)
    await harness.deliver(removal(started))
    assert len(harness.published_of(EraseUserFromBilling)) == 1
    # The address is free for another user.
    assert (await order(harness)).user_id != started.user_id


async def log_in_by_plain_link(harness: ServiceHarness) -> None:
    await log_in(harness)


async def ensure(harness: ServiceHarness) -> None:
    """A payment page of Stripe named the address."""
    await harness.deliver(EnsureUser(reference="cus_1", email=ADDRESS))


async def set_consent(harness: ServiceHarness) -> None:
    [created] = harness.published_of(UserCreated)
    command = SetMarketingConsent(key=created.user_id, user_id=created.user_id, level="none")
    await harness.deliver(command, caller=Caller(kind="internal"))


async def order_again(harness: ServiceHarness) -> None:
    harness.now += timedelta(hours=1)
    await order(harness)


@pytest.mark.parametrize("used", [log_in_by_plain_link, ensure, set_consent, order_again])
async def test_user_with_anything_else_is_kept(harness: ServiceHarness, used: Any) -> None:
    started = await order(harness)
    await used(harness)
    await harness.deliver(removal(started))
    assert (await users(harness), harness.published_of(EraseUserFromBilling)) == (1, [])


@pytest.mark.parametrize("created", [log_in_by_plain_link, ensure])
async def test_user_who_existed_before_the_order_is_kept(harness: ServiceHarness, created: Any) -> None:
    await created(harness)
    started = await order(harness)
    await harness.deliver(removal(started))
    assert await users(harness) == 1


async def test_removal_waits_for_open_links(harness: ServiceHarness) -> None:
    started = await order(harness)
    await harness.deliver(send_magic_link())
    code = code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))
    await harness.deliver(removal(started))
    assert await users(harness) == 1
    [(due, again)] = await harness.delayed()
    assert timedelta(0) < due - harness.now <= timedelta(minutes=10)
    assert (await harness.deliver(redemption(code)))["user_id"] == started.user_id
    harness.now = due
    await harness.deliver(again)
    assert await users(harness) == 1


async def test_login_and_removal_at_once_keep_the_user(harness: ServiceHarness) -> None:
    for number in range(8):
        address = f"ana{number}@example.com"
        started = await order(harness, identifier_value=address)
        await harness.deliver(SendTrialMagicLink(**{**LINK_REQUEST, "identifier_value": address}))
        code = code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))
        tokens, _ = await asyncio.gather(harness.deliver(redemption(code)), harness.deliver(removal(started)))
        identifier = await harness.database["identifiers"].find_one({"identifierValue": address})
        assert identifier is not None
        assert identifier["userId"] == tokens["user_id"]


async def test_redeemed_trial_link_is_reported_with_its_device(harness: ServiceHarness) -> None:
    started = await order(harness)
    await harness.deliver(SendTrialMagicLink(**{**LINK_REQUEST, "device": {**DEVICE, "beak_id": "beak-2"}}))
    code = code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))
    await harness.deliver(redemption(code))
    [redeemed] = harness.published_of(RedeemTrial)
    assert (redeemed.user_id, redeemed.email, redeemed.starts) == (started.user_id, ADDRESS, True)
    assert (redeemed.beak_id, redeemed.fingerprint) == ("beak-2", "f-1")


async def test_plain_link_redeems_no_trial(harness: ServiceHarness) -> None:
    await log_in(harness, device=DEVICE)
    await harness.deliver(SendTrialMagicLink(**LINK_REQUEST, eligible=False))
    mail = harness.published_of(SendMail)[-1]
    assert (mail.template, "flow=" in mailed_link(harness, mail)) == ("magic-link", False)
    await harness.deliver(redemption(code_of(mailed_link(harness, mail))))
    assert harness.published_of(RedeemTrial) == []


async def test_link_of_an_earlier_release_redeems_a_trial_and_starts_none(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link())
    await harness.database["authorizations"].update_many({}, {"$unset": {"trial": ""}})
    await harness.deliver(redemption(code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))))
    [redeemed] = harness.published_of(RedeemTrial)
    assert not redeemed.starts


async def test_newer_order_creates_no_user_and_treats_all_addresses_alike(harness: ServiceHarness) -> None:
    for known in (False, True):
        assert await harness.deliver(OrderTrialMagicLink(**ORDER)) is None
        offer = harness.published_of(OfferTrial)[-1]
        assert (offer.email, offer.beak_id, offer.user_id is not None) == (ADDRESS, "beak-1", known)
        if not known:
            assert await users(harness) == 0
            await log_in(harness)
    assert harness.published_of(StartTrial) == []


@pytest.mark.parametrize("name", ["limit_trials_per_prefix", "limit_trials_per_deployment"])
@pytest.mark.parametrize("kind", [CreateTrialAndMagicLink, OrderTrialMagicLink])
async def test_orders_are_limited_by_network_and_in_all(
    new_harness: Any, harness: ServiceHarness, name: str, kind: Any
) -> None:
    async with new_harness(**{name: "2/1d"}) as limited:
        for number in range(3):
            command = kind(**{**ORDER, "identifier_value": f"ana{number}@example.com"})
            caller = Caller(client_ip="203.0.113.7")
            if number < 2:
                await limited.deliver(command, caller=caller)
            else:
                assert await refusal(limited, command, caller=caller) == ("throttled", "throttled")
        other = kind(**{**ORDER, "identifier_value": "bob@example.com"})
        if name == "limit_trials_per_prefix":
            await limited.deliver(other, caller=Caller(client_ip="198.51.100.7"))
        else:
            caller = Caller(client_ip="198.51.100.7")
            assert await refusal(limited, other, caller=caller) == ("throttled", "throttled")
