"""Handlers for trials: reservation here, then creation in Stripe, then the magic link.

The reservation is committed before Stripe is called, so that of several trials started at once one reaches Stripe.
"""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.context import Billing
from services.billing.stripe_api.calls import StripeRefused
from services.billing.subscriptions.models import current
from services.billing.subscriptions.sync import read_subscription, record_subscription
from services.billing.trials.models import Trial, TrialDevice
from services.billing.trials.provisioning import provision_customer, provision_subscription
from shared.bus.envelope import unix_milliseconds
from shared.bus.work import Work
from shared.email_addresses import address_ordering_key
from shared.messages.auth.magic_links import Device, SendTrialMagicLink
from shared.messages.billing.errors import (
    AlreadySubscribed,
    EmailRefusedByStripe,
    StripeUnavailable,
    TrialAlreadyUsed,
    TrialRefusedByStripe,
)
from shared.messages.billing.trials import FinishTrial, StartTrial, TrialStarted

REPLY_SECONDS: Final = 1.0
"""Part of a caller's deadline that is left for the reply, so that a caller still learns of an outage of Stripe."""
MIN_SECONDS: Final = 1.0
"""Minimum time for the calls to Stripe; with less until the deadline nobody waits any more."""


async def start_trial(command: StartTrial, work: Work, billing: Billing) -> None:
    """Reserve a trial, or continue one that was not finished, and forward to FinishTrial.

    Raises:
        AlreadySubscribed: the user has an active subscription, other than that of the unfinished trial.
        TrialAlreadyUsed: the user or the device has had a trial, or another one is being started now.
    """
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    trial = await billing.trials.find_by_user(command.user_id)
    continues = trial is not None and trial.continues_on(device)
    active = current(await billing.subscriptions.of_user(command.user_id), at=work.now, grace=billing.grace)
    if active is not None and not (trial is not None and continues and active.trial_id == trial.id):
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
    elif not continues:
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
    if trial.pending:
        await _create_in_stripe(trial, work, billing)
    # Also if an earlier command has finished the trial: this one has its own code challenge and a person who waits.
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


async def _create_in_stripe(trial: Trial, work: Work, billing: Billing) -> None:
    if trial.email is None:
        raise ValueError(f"{trial.id} is pending and has no address")
    seconds = _seconds_left(work) or billing.stripe.calls.timeouts.call
    stripe, customer_id, subscription_id = billing.stripe.within(seconds), None, None
    try:
        async with asyncio.timeout(seconds):
            customer_id = await provision_customer(trial, billing.unseal(trial.email), stripe=stripe, at=work.now)
            subscription_id = await provision_subscription(
                trial, customer_id, price=billing.trial_price, stripe=stripe, at=work.now
            )
            stored, stripe_subscription = await read_subscription(subscription_id, billing)
    except TimeoutError:
        raise StripeUnavailable from None
    except StripeRefused as refused:
        if subscription_id is None:
            # The user and the device may start another trial. One that exists is continued by a repeat.
            billing.trials.remove(trial, work)
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


def _seconds_left(work: Work) -> float | None:
    """Seconds that the calls to Stripe may take; None if no caller waits, for example after a crash."""
    deadline = work.cause.deadline
    left = (deadline - unix_milliseconds()) / 1000 - REPLY_SECONDS
    return left if deadline and left >= MIN_SECONDS else None
