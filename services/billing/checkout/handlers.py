"""Handlers of checkouts: recorded here, then created in Stripe, then followed by Stripe's events.

The checkout is committed before Stripe is called, so that a repeat after an outage or a crash continues it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from services.billing.catalog.offers import offer_of
from services.billing.checkout.card_trials import record_trial, trial_of
from services.billing.checkout.models import Basket, Checkout
from services.billing.checkout.sessions import change_url, is_payable, open_session
from services.billing.context import Billing
from services.billing.customers.provisioning import provision_customer
from services.billing.events.models import Outcome
from services.billing.events.pending import pending_events, settle
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.deadlines import within_deadline
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.payment_models import StripeCheckout
from services.billing.stripe_api.reschedule import reschedule
from services.billing.stripe_api.subscription_changes import TRIAL_DAYS
from services.billing.subscriptions.products import subscription_left_alone
from services.billing.subscriptions.sync import read_subscription, record_subscription
from services.billing.trials.eligibility import had_trial, is_subscribed, person_of
from services.billing.trials.models import TrialDevice
from shared.bus.work import Work
from shared.messages.auth.errors import UserNotFound
from shared.messages.billing.checkout import (
    CheckoutCompleted,
    CheckoutView,
    FinishCheckout,
    FollowCheckout,
    OpenCheckout,
)
from shared.messages.billing.errors import CheckoutRefusedByStripe, StripeUnavailable, TooManyCheckouts
from shared.messages.billing.trials import TrialStarted
from shared.telemetry import log


async def open_checkout(command: OpenCheckout, work: Work, billing: Billing) -> CheckoutView | None:
    """Record a checkout and forward to FinishCheckout; or return the portal's page to change a live subscription.

    Raises:
        UserNotFound: the user was erased.
        TooManyCheckouts: the user has ordered too many.
        PriceNotFound, PriceInactive, PriceNotSold, MixedIntervals, MixedCurrencies, QuantityNotAllowed: as ``Basket``.
        CheckoutRefusedByStripe: the customer portal is not configured.
        StripeUnavailable: Stripe is unavailable or too slow.
    """
    await billing.payers.serialize(command.user_id, work)
    if await billing.erased.contains_any(command.user_id):
        raise UserNotFound
    wait = billing.checkout_limit.open(command.user_id, at=work.now)
    if wait:
        raise TooManyCheckouts(retry_after=wait)
    try:
        async with within_deadline(billing.stripe, work) as stripe:
            offers = await asyncio.gather(*(offer_of(item.price_id, stripe, billing) for item in command.items))
            basket = Basket.of(command.items, offers, trials={billing.trial_price: TRIAL_DAYS})
            rival = None
            if basket.mode == "subscription":
                rival = await billing.find_rival(command.user_id, basket.products, at=work.now)
            if rival is not None:
                url = await change_url(rival, basket, stripe=stripe, return_url=command.cancel_url)
                return CheckoutView(kind="portal", url=url, expires_at=None)
    except KeySpent:
        raise StripeUnavailable from None
    except StripeRefused as refused:
        refused.report(user=command.user_id)
        raise CheckoutRefusedByStripe from refused
    checkout = await _ordered(command, basket, work, billing)
    work.forward(FinishCheckout(key=work.key, checkout_id=checkout.id, **command.model_dump(exclude={"key"})))
    return None


async def _ordered(command: OpenCheckout, basket: Basket, work: Work, billing: Billing) -> Checkout:
    """The user's open checkout if it has the same order; else a new one, which replaces it."""
    device = TrialDevice.named(beak_id=command.beak_id, fingerprint=command.fingerprint)
    ordered = Checkout.order(
        work.new_id("checkout"),
        basket,
        user_id=command.user_id,
        client_id=command.client_id,
        urls=(command.success_url, command.cancel_url),
        locale=command.locale,
        trial_days=basket.trial_days if await _is_eligible(command, device, work, billing) else None,
        device=device,
        person=None if command.email is None else person_of(command.email, billing),
        at=work.now,
    )
    former = await billing.checkouts.find_open(command.user_id)
    if former is not None:
        if former.orders_the_same(ordered) and not former.closes_soon(work.now):
            return former
        billing.checkouts.save(former.close("replaced", at=work.now), work)
    billing.checkouts.add(ordered, work)
    return ordered


async def _is_eligible(command: OpenCheckout, device: TrialDevice, work: Work, billing: Billing) -> bool:
    """Whether user, person and device have had no trial, and the user has no subscription of another product."""
    if not command.trial:
        return False
    own = await billing.trials.find_by_user(command.user_id)
    if own is not None or await is_subscribed(command.user_id, None, work, billing):
        return False
    if command.email is None:
        return not any(other.settled for other in await billing.trials.of_device(device))
    return not await had_trial(command.email, device, billing, own=None)


async def finish_checkout(command: FinishCheckout, work: Work, billing: Billing) -> CheckoutView | None:
    """Create the session of a checkout in Stripe, or return the open one; after it was paid or closed begin again.

    Raises:
        CheckoutRefusedByStripe: Stripe does not sell these prices to this customer.
        StripeUnavailable: Stripe is unavailable or too slow; a repeat continues the same checkout.
    """
    checkout = await billing.checkouts.find(command.checkout_id)
    if checkout is None or not checkout.current:
        _begin_again(command, work)
        return None
    customer_id: str | None = None
    try:
        async with within_deadline(billing.stripe, work) as stripe:
            session_id = checkout.stp_session_id
            if session_id is None:
                mapping = await billing.mappings.find_by_user(checkout.user_id)
                customer_id = await provision_customer(
                    checkout.user_id,
                    command.email,
                    mapped=None if mapping is None else mapping.provider_value,
                    stripe=stripe,
                    find_first=mapping is None,
                )
                session_id = await open_session(checkout, customer_id, stripe=stripe, work=work, billing=billing)
            # Read again also after the creation, because a repeated key returns the session as it was.
            session = await stripe.checkout(session_id)
    except KeySpent:
        raise StripeUnavailable from None
    except StripeRefused as refused:
        refused.report(checkout=checkout.id)
        billing.checkouts.save(checkout.close("refused", at=work.now), work)
        await _map_customer(customer_id, checkout, work, billing)
        raise CheckoutRefusedByStripe from refused
    if session is None or session.subscription_id is None:
        # The record of a subscription maps its customer too.
        await _map_customer(customer_id, checkout, work, billing)
    if session is None:
        billing.checkouts.save(checkout.close("expired", at=work.now), work)
        _begin_again(command, work)
        return None
    billing.checkouts.save(checkout.follow(session, at=work.now), work)
    if is_payable(session) and session.url is not None:
        return CheckoutView(kind="checkout", url=session.url, expires_at=session.expires_at)
    if session.status == "complete":
        # Its event is on its way. Until it is handled, the subscription would not exclude a second one.
        work.publish(FollowCheckout(key=session.id, session_id=session.id))
        await _record_subscription(session, work, billing)
    _begin_again(command, work)
    return None


def _begin_again(command: FinishCheckout, work: Work) -> None:
    fields = command.model_dump(exclude={"key", "checkout_id"})
    work.forward(OpenCheckout(key=work.key, **fields))


async def _map_customer(customer_id: str | None, checkout: Checkout, work: Work, billing: Billing) -> None:
    if customer_id is not None and await billing.mappings.find(customer_id) is None:
        billing.mappings.attach(customer_id, checkout.user_id, work)


async def _record_subscription(
    session: StripeCheckout, work: Work, billing: Billing
) -> tuple[StripeSubscription, str] | None:
    """Record the subscription of a completed session; returns its reading and our ID of it, None if there is none."""
    if session.subscription_id is None:
        return None
    stored, reading = await read_subscription(session.subscription_id, billing)
    if reading is None or subscription_left_alone(reading, stored, billing):
        return None
    recorded = await record_subscription(stored, reading, work, billing)
    return None if recorded is None else (reading, recorded.id)


async def follow_checkout(command: FollowCheckout, work: Work, billing: Billing) -> None:
    """Read a Checkout Session from Stripe, record what it led to, and settle the pending events about it."""
    pending = await pending_events(command, command.session_id, billing)
    if pending is None:
        return
    try:
        outcome = await _follow(command, work, billing)
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(session=command.session_id)
        outcome = "refused"
    settle(pending, outcome, work, billing)


async def _follow(command: FollowCheckout, work: Work, billing: Billing) -> Outcome:
    session = await billing.stripe.checkout(command.session_id)
    if session is None:
        return "missing"
    checkout = None if session.checkout_id is None else await billing.checkouts.find(session.checkout_id)
    if checkout is None:
        # A session that another system made, or of an erased user.
        return "not_followed"
    if await billing.erased.contains_any(checkout.user_id):
        return "erased"
    if session.status == "complete":
        trial = await trial_of(checkout, session, billing)
        if trial is not None and trial.used and session.trialing and session.subscription_id is not None:
            log.warning("trial of a checkout ended", checkout=checkout.id)
            await billing.stripe.end_trial(session.subscription_id, key=f"{checkout.id}:end-trial:{command.attempt}")
        recorded = await _record_subscription(session, work, billing)
        if trial is not None and recorded is not None:
            reading, subscription_id = recorded
            started = record_trial(trial, checkout, reading, work, billing)
            if started is not None and not trial.used:
                work.publish(
                    TrialStarted(
                        key=checkout.user_id,
                        user_id=checkout.user_id,
                        trial_id=started.id,
                        subscription_id=subscription_id,
                        ends_at=started.ends_at or work.now + timedelta(days=checkout.trial_days or 0),
                    )
                )
        if checkout.completed_at is None:
            checkout = replace(checkout, completed_at=work.now)
            work.publish(
                CheckoutCompleted(
                    key=checkout.user_id,
                    user_id=checkout.user_id,
                    checkout_id=checkout.id,
                    client_id=checkout.client_id,
                    mode=checkout.mode,
                )
            )
    billing.checkouts.save(checkout.follow(session, at=work.now), work)
    return "read"
