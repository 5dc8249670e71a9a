"""Handlers for trials: reservation here, then creation in Stripe, then the magic link, and its redemption.

The reservation is committed before Stripe is called, so that of several trials started at once one reaches Stripe.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from services.billing.context import Billing
from services.billing.customers.provisioning import provision_customer
from services.billing.metrics import ANONYMOUS_OBJECTS, TRIALS_UNDONE
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.deadlines import within_deadline
from services.billing.stripe_api.reschedule import reschedule
from services.billing.subscriptions.models import ENDED
from services.billing.subscriptions.sync import read_subscription, record_subscription
from services.billing.trials.eligibility import had_trial, is_subscribed, other_trials, person_of
from services.billing.trials.models import NO_DEVICE, Trial, TrialDevice
from services.billing.trials.provisioning import provision_subscription
from shared.bus.work import Work
from shared.email_addresses import address_ordering_key
from shared.fault_points import fault_point
from shared.messages.auth.magic_links import Device, SendTrialMagicLink
from shared.messages.auth.users import RemoveUnusedUser
from shared.messages.billing.errors import (
    AlreadySubscribed,
    EmailRefusedByStripe,
    StripeUnavailable,
    TrialAlreadyUsed,
    TrialRefusedByStripe,
)
from shared.messages.billing.subscriptions import FollowSubscription
from shared.messages.billing.trials import (
    CancelUndoneTrial,
    CreateRedeemedTrial,
    FinishTrial,
    OfferTrial,
    RedeemTrial,
    StartTrial,
    TrialStarted,
    UndoTrial,
)

UNDO_PAUSE: Final = timedelta(seconds=2)
"""How long orders and redemptions wait for a trial that is being undone."""


async def start_trial(command: StartTrial, work: Work, billing: Billing) -> None:
    """Reserve a provisional trial, or continue one that was not redeemed or not finished, and forward to FinishTrial.

    Raises:
        AlreadySubscribed: the user has an active subscription, other than that of the trial to continue.
        TrialAlreadyUsed: the user, the person or the device has had a trial, or the device orders one now for another
            address.
        StripeUnavailable: the user's trial is being undone.
    """
    work.on_outcome(lambda refusal: None if refusal is None else _remove_user(command, work))
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    trial = await billing.trials.find_by_user(command.user_id)
    if trial is not None and trial.undone:
        raise StripeUnavailable(retry_after=int(UNDO_PAUSE.total_seconds()))
    continues = trial is not None and trial.continues_on(device)
    if await is_subscribed(command.user_id, trial if continues else None, work, billing):
        raise AlreadySubscribed
    if await had_trial(command.email, device, billing, own=trial) or not (trial is None or continues):
        raise TrialAlreadyUsed
    if trial is None:
        trial = _ordered(await _reserve(command.user_id, command.email, device, work, billing), command, work, billing)
        billing.trials.add(trial, work)
    elif trial.provisional:
        billing.trials.save(_ordered(trial, command, work, billing), work)
    work.forward(
        FinishTrial(
            key=work.key,
            trial_id=trial.id,
            email=command.email,
            client_id=command.client_id,
            redirect_uri=command.redirect_uri,
            state=command.state,
            code_challenge=command.code_challenge,
            platform=command.platform,
            locale=command.locale,
            beak_id=device.beak_id,
            fingerprint=device.fingerprint,
        )
    )


async def offer_trial(command: OfferTrial, work: Work, billing: Billing) -> None:
    """Order the link of a trial that starts when the link is redeemed, or a link that only logs in."""
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    trial = None if command.user_id is None else await billing.trials.find_by_user(command.user_id)
    eligible = (
        (trial is None or not trial.settled)
        and not await had_trial(command.email, device, billing, own=trial)
        and not (command.user_id is not None and await is_subscribed(command.user_id, trial, work, billing))
    )
    _send_link(command, device, work, billing, eligible=eligible, with_digits=command.with_digits)


async def finish_trial(command: FinishTrial, work: Work, billing: Billing) -> None:
    """Create the trial in Stripe, record it, and order its magic link.

    Raises:
        StripeUnavailable: Stripe is unavailable or too slow; repeating StartTrial continues the same trial.
        EmailRefusedByStripe: Stripe rejects the address; the reservation is removed.
        TrialRefusedByStripe: Stripe refuses the trial for another reason; the reservation is removed.
    """
    trial = await billing.trials.find(command.trial_id)
    if trial is None:
        # Another command has continued the same trial, was refused, and has removed the reservation.
        raise TrialRefusedByStripe
    if trial.undone:
        raise StripeUnavailable(retry_after=int(UNDO_PAUSE.total_seconds()))
    if trial.pending:
        await _create_in_stripe(trial, work, billing)
    # Also if an earlier command has finished the trial: this one has its own code challenge and a person who waits.
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    # The device of this order, which may be another one than that of the first order.
    _send_link(command, trial.device if device == NO_DEVICE and trial.settled else device, work, billing)


async def redeem_trial(command: RedeemTrial, work: Work, billing: Billing) -> None:
    """Settle the provisional trial of the person who has redeemed its link; without one, start a trial.

    The device that ordered the redeemed link counts, and the device of the first order is free again.
    """
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    trial = await billing.trials.find_by_user(command.user_id)
    if trial is not None and trial.undone:
        # Its device and user are free in a moment.
        work.publish(command.model_copy(update={"key": work.key}), at=work.now + UNDO_PAUSE)
        return
    if (trial is None and not command.starts) or (trial is not None and trial.settled):
        return
    others = await other_trials(command.email, device, billing, own=trial)
    used = any(other.settled for other in others)
    if used or await is_subscribed(command.user_id, trial, work, billing):
        if trial is not None:
            _undo(trial, work, billing)
        return
    if others:
        # Provisional trials of other addresses. Their devices are removed by a commit of its own, because the unique
        # indexes do not allow one commit to move a device from one trial to another.
        for other in others:
            billing.trials.save(other.without_device(at=work.now), work)
        work.publish(command.model_copy(update={"key": work.key}))
        return
    person = person_of(command.email, billing)
    if trial is None:
        trial = replace(await _reserve(command.user_id, command.email, device, work, billing), person=person)
        billing.trials.add_redeemed(trial, work)
    else:
        billing.trials.save(trial.redeem(device, person=person, at=work.now), work)
    if trial.stp_subscription_id is None:
        work.publish(CreateRedeemedTrial(key=work.key, trial_id=trial.id))
    else:
        # This reading orders the welcome mail.
        work.publish(FollowSubscription(key=trial.stp_subscription_id, subscription_id=trial.stp_subscription_id))


async def create_redeemed_trial(command: CreateRedeemedTrial, work: Work, billing: Billing) -> None:
    """Create a redeemed trial in Stripe and record it; wait while Stripe is unavailable.

    Raises:
        TrialRefusedByStripe: Stripe refuses the trial; the reservation is removed.
    """
    trial = await billing.trials.find(command.trial_id)
    if trial is None or not trial.pending:
        return
    try:
        await _create_in_stripe(trial, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
    except EmailRefusedByStripe as refused:
        raise TrialRefusedByStripe from refused


async def undo_trial(command: UndoTrial, work: Work, billing: Billing) -> None:
    """Begin to undo a trial that is still provisional.

    The intent is committed before Stripe is called: a redemption at the same time either settles the trial, and this
    handler finds that when it runs again, or waits until the trial is removed and starts another one.
    """
    trial = await billing.trials.find(command.trial_id)
    if trial is not None and trial.provisional:
        _undo(trial, work, billing)


async def cancel_undone_trial(command: CancelUndoneTrial, work: Work, billing: Billing) -> None:
    """Cancel the subscription of an undone trial, remove the trial, and have its unused user removed.

    A subscription that is paid for by now stays, and the trial is settled.
    """
    trial = await billing.trials.find(command.trial_id)
    if trial is None or not trial.undone:
        return
    try:
        in_use = await _cancel_in_stripe(trial, command, work, billing)
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
        return
    except StripeRefused as refused:
        # An operator must end what prevents the cancellation; until then the user has a trial.
        refused.report(trial=trial.id)
        reschedule(command, work)
        return
    if in_use:
        billing.trials.save(trial.settle(at=work.now), work)
        return
    TRIALS_UNDONE.inc()
    billing.trials.remove(trial, work)
    if all(each.trial_id == trial.id for each in await billing.subscriptions.of_user(trial.user_id)):
        _remove_user(trial, work)


def _remove_user(order: Trial | StartTrial, work: Work) -> None:
    """Have the user of an order without a trial removed, unless anything else belongs to them."""
    if order.ordered_at is not None:
        work.publish(RemoveUnusedUser(key=order.user_id, user_id=order.user_id, ordered_at=order.ordered_at))


def _ordered(trial: Trial, command: StartTrial, work: Work, billing: Billing) -> Trial:
    """The trial after an order, which is undone unless somebody redeems its link."""
    if command.ordered_at is None:
        return trial
    ordered = trial.order(until=work.now + billing.trial_redemption, at=command.ordered_at)
    if trial.provisional_until is None:
        work.publish(UndoTrial(key=trial.user_id, trial_id=trial.id), at=ordered.provisional_until)
    return ordered


def _undo(trial: Trial, work: Work, billing: Billing) -> None:
    billing.trials.save(trial.undo(at=work.now), work)
    work.publish(CancelUndoneTrial(key=trial.user_id, trial_id=trial.id))


async def _reserve(user_id: str, email: str, device: TrialDevice, work: Work, billing: Billing) -> Trial:
    mapping = await billing.mappings.find_by_user(user_id)
    return Trial.reserve(
        work.new_id("trial"),
        user_id,
        device,
        customer_id=None if mapping is None else mapping.provider_value,
        email=billing.seal(email),
        at=work.now,
    )


def _send_link(
    command: FinishTrial | OfferTrial,
    device: TrialDevice,
    work: Work,
    billing: Billing,
    *,
    eligible: bool = True,
    with_digits: bool = False,
) -> None:
    work.publish(
        SendTrialMagicLink(
            key=address_ordering_key(command.email, billing.sealer),
            client_id=command.client_id,
            redirect_uri=command.redirect_uri,
            state=command.state,
            code_challenge_method="S256",
            code_challenge=command.code_challenge,
            identifier_type="email",
            identifier_value=command.email,
            device=Device(platform=command.platform, beak_id=device.beak_id, fingerprint=device.fingerprint),
            locale=command.locale,
            eligible=eligible,
            with_digits=with_digits,
        )
    )


async def _cancel_in_stripe(trial: Trial, command: CancelUndoneTrial, work: Work, billing: Billing) -> bool:
    """Cancel all that an undone trial has created in Stripe; return whether its subscription is in use instead."""
    for subscription_id in await _subscriptions_of(trial, billing):
        _, stripe_subscription = await read_subscription(subscription_id, billing)
        if stripe_subscription is None or stripe_subscription.status in ENDED:
            continue
        if stripe_subscription.status != "trialing":
            return True
        await billing.stripe.cancel_undone_trial(subscription_id, key=f"{trial.id}:undo:{command.attempt}")
        fault_point("B1")
        # In the commit that removes the trial, so that no later order finds an active subscription.
        stored, cancelled = await read_subscription(subscription_id, billing)
        if cancelled is not None:
            await record_subscription(stored, cancelled, work, billing)
    return False


async def _subscriptions_of(trial: Trial, billing: Billing) -> list[str]:
    """The subscriptions of a trial; one that is not known to be in Stripe may be there after a crash."""
    if trial.stp_subscription_id is not None:
        return [trial.stp_subscription_id]
    customer_id = trial.stp_customer_id
    if customer_id is None and trial.email is not None:
        customer_id = await billing.stripe.customer_id_of(trial.user_id, billing.unseal(trial.email))
    return [] if customer_id is None else await billing.stripe.subscription_ids(customer_id, trial_id=trial.id)


async def _create_in_stripe(trial: Trial, work: Work, billing: Billing) -> None:
    if trial.email is None:
        raise ValueError(f"{trial.id} is pending and has no address")
    customer_id, subscription_id = None, None
    try:
        async with within_deadline(billing.stripe, work) as stripe:
            customer_id = await provision_customer(
                trial.user_id,
                billing.unseal(trial.email),
                mapped=trial.stp_customer_id,
                stripe=stripe,
                find_first=trial.keys_expired(work.now),
            )
            _count_anonymous("customer", trial, created=customer_id != trial.stp_customer_id)
            subscription_id = await provision_subscription(
                trial, customer_id, price=billing.trial_price, stripe=stripe, at=work.now
            )
            _count_anonymous("subscription", trial)
            stored, stripe_subscription = await read_subscription(subscription_id, billing)
    except StripeRefused as refused:
        if subscription_id is None:
            # The user and the device may start another trial. One that exists is continued by a repeat.
            billing.trials.remove(trial, work)
            _remove_user(trial, work)
        if customer_id is None and refused.rejects_email:
            raise EmailRefusedByStripe from refused
        refused.report(trial=trial.id)
        if customer_id is not None and await billing.mappings.find(customer_id) is None:
            # The next trial uses this customer. Otherwise each repeat would create another one.
            billing.mappings.attach(customer_id, trial.user_id, work)
        raise TrialRefusedByStripe from refused
    if stripe_subscription is None:
        raise RuntimeError(f"{subscription_id} was created for {trial.id} and can't be read")
    subscription = await record_subscription(stored, stripe_subscription, work, billing)
    if subscription is None:
        raise RuntimeError(f"{subscription_id} was created for {trial.id} and has no user")
    billing.trials.save(trial.finish(stripe_subscription, at=work.now), work)
    work.publish(
        TrialStarted(
            key=trial.user_id,
            user_id=trial.user_id,
            trial_id=trial.id,
            subscription_id=subscription.id,
            ends_at=stripe_subscription.trial_end or stripe_subscription.period_end,
        )
    )


def _count_anonymous(kind: str, trial: Trial, *, created: bool = True) -> None:
    if trial.provisional and created:
        ANONYMOUS_OBJECTS.labels(kind).inc()
