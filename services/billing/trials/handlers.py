"""How does a trial come about? Its place is taken first, then it is made in Stripe, then it is announced."""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.context import Billing
from services.billing.stripe_api.calls import StripeRefused
from services.billing.subscriptions.models import current
from services.billing.subscriptions.sync import look, record
from services.billing.trials.models import Trial, TrialDevice
from services.billing.trials.provisioning import provide
from shared.bus.envelope import address_ordering_key, unix_milliseconds
from shared.bus.work import Work
from shared.messages.auth.magic_links import Device, SendTrialMagicLink
from shared.messages.billing.errors import AlreadySubscribed, EmailRefusedByStripe, StripeUnavailable, TrialAlreadyUsed
from shared.messages.billing.trials import FinishTrial, StartTrial, TrialStarted

ANSWER_SECONDS: Final = 1.0
"""How long before its deadline a caller is told that Stripe is away, so that the answer still reaches it."""
LEAST_SECONDS: Final = 1.0


async def start_trial(command: StartTrial, work: Work, billing: Billing) -> None:
    """Take the trial's place, before Stripe hears of it; or go on with one that was never finished.

    Raises:
        AlreadySubscribed: a subscription is active, other than that of the unfinished trial.
        TrialAlreadyUsed: this user or this device has had its trial, or another one is getting it now.
    """
    device = TrialDevice(beak_id=command.beak_id, fingerprint=command.fingerprint)
    trial = await billing.trials.find_by_user(command.user_id)
    goes_on = trial is not None and trial.goes_on_for(device)
    active = current(await billing.subscriptions.of_user(command.user_id), at=work.now, grace=billing.grace)
    if active is not None and not (trial is not None and goes_on and active.trial_id == trial.id):
        raise AlreadySubscribed
    if trial is None:
        mapping = await billing.mappings.find_by_user(command.user_id)
        trial = Trial.reserve(
            work.new_id("trial"),
            command.user_id,
            device,
            customer_id=None if mapping is None else mapping.provider_value,
            email=billing.seal(command.email),
            at=work.now,
        )
        billing.trials.add(trial, work)
    elif not goes_on:
        raise TrialAlreadyUsed
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
        )
    )


async def finish_trial(command: FinishTrial, work: Work, billing: Billing) -> None:
    """Make the trial in Stripe, record it, and order its magic link.

    Raises:
        StripeUnavailable: Stripe is away or too slow; the same order again finishes the same trial.
        EmailRefusedByStripe: Stripe does not take the address; the place is free again.
    """
    trial = await billing.trials.get(command.trial_id)
    if trial.pending:
        await _make(trial, work, billing)
    # Also when an earlier order has finished it: each has its own code challenge, and somebody who waits for the mail.
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
            device=Device(
                platform=command.platform, beak_id=trial.device.beak_id, fingerprint=trial.device.fingerprint
            ),
            locale=command.locale,
        )
    )


async def _make(trial: Trial, work: Work, billing: Billing) -> None:
    if trial.email is None:
        raise ValueError(f"{trial.id} is pending and has no address")
    seconds = _seconds_left(work) or billing.stripe.calls.patience.call
    try:
        async with asyncio.timeout(seconds):
            subscription_id = await provide(
                trial,
                billing.unseal(trial.email),
                price=billing.trial_price,
                stripe=billing.stripe.within(seconds),
                at=work.now,
            )
            held, truth = await look(subscription_id, billing)
    except TimeoutError:
        raise StripeUnavailable from None
    except StripeRefused as refused:
        if refused.param != "email":
            raise
        # The reservation came to nothing: its user and device may try again.
        billing.trials.remove(trial, work)
        raise EmailRefusedByStripe from refused
    if truth is None:
        raise RuntimeError(f"{subscription_id} was made for {trial.id} and can't be followed")
    subscription = await record(held, truth, work, billing)
    if subscription is None:
        raise RuntimeError(f"{subscription_id} was made for {trial.id} and names no user")
    finished = trial.finish(truth, at=work.now)
    billing.trials.save(finished, work)
    work.publish(
        TrialStarted(
            key=trial.user_id,
            user_id=trial.user_id,
            trial_id=trial.id,
            subscription_id=subscription.id,
            ends_at=truth.trial_end or truth.period_end,
        )
    )


def _seconds_left(work: Work) -> float | None:
    """How long Stripe may take, so that its caller learns of an outage instead of waiting in vain.

    None with nobody waiting, or any longer, as after a crash.
    """
    deadline = work.cause.deadline
    left = (deadline - unix_milliseconds()) / 1000 - ANSWER_SECONDS
    return left if deadline and left >= LEAST_SECONDS else None
