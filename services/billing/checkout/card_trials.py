"""Trials that begin with a checkout: recorded once the card is known, and ended if they were had before.

Of a card only a keyed hash of Stripe's fingerprint is stored, which is the same for all customers who use the card
(https://docs.stripe.com/api/payment_methods/object#payment_method_object-card-fingerprint).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.billing.checkout.models import Checkout
from services.billing.context import Billing
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.payment_models import StripeCheckout
from services.billing.trials.models import NO_DEVICE, Trial
from shared.bus.work import Work

CARD: Final = "trial card"
"""Purpose of the keyed hashes of cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTrial:
    """The trial that a checkout began.

    Attributes:
        known: the user's trial if it is recorded already; None if not.
        card: keyed hash of the card; None if Stripe has no fingerprint of it.
        used: whether the user, the device, the person or the card has had another trial.
    """

    known: Trial | None
    card: str | None
    used: bool


async def trial_of(checkout: Checkout, session: StripeCheckout, billing: Billing) -> CardTrial | None:
    """The trial of a completed checkout; None if its subscription did not begin with one, or it is settled already."""
    if checkout.trial_days is None or session.subscription_id is None:
        return None
    own = await billing.trials.find_by_user(checkout.user_id)
    if own is not None and own.stp_subscription_id == session.subscription_id:
        return None
    others = await billing.trials.of_device(checkout.device)
    if checkout.person is not None:
        others += await billing.trials.of_person([checkout.person])
    card = None
    if session.card_fingerprint is not None:
        printed = session.card_fingerprint.encode()
        card = billing.sealer.keyed_hash(CARD, printed)
        if billing.checkout_settings.one_trial_per_card:
            others += await billing.trials.of_card(billing.sealer.keyed_hashes(CARD, printed))
    used = any(other.settled and other.user_id != checkout.user_id for other in others)
    return CardTrial(known=own, card=card, used=used or (own is not None and own.settled))


def record_trial(
    trial: CardTrial, checkout: Checkout, reading: StripeSubscription, work: Work, billing: Billing
) -> Trial | None:
    """Record the trial of a checkout, so that its user, person, device and card get no other one.

    Returns None if the user has had another trial, whose record stays.
    """
    if trial.known is not None:
        if trial.known.card is None and trial.card is not None:
            billing.trials.save(replace(trial.known, card=trial.card, updated_at=work.now), work)
        return None
    reserved = Trial.reserve(
        work.new_id("trial"),
        checkout.user_id,
        # The other trial has the device and the person, each of which a unique index allows once.
        NO_DEVICE if trial.used else checkout.device,
        customer_id=reading.customer.id,
        email=None,
        at=work.now,
        person=None if trial.used else checkout.person,
    )
    recorded = replace(reserved.finish(reading, at=work.now), card=trial.card)
    billing.trials.add_redeemed(recorded, work)
    return recorded
