"""Trials: one for each user and device, created in Stripe."""

from typing import Literal

from shared.messages.billing.errors import AlreadySubscribed, EmailRefusedByStripe, TrialAlreadyUsed
from shared.messages.message import Command, Event, Locale, Moment


class StartTrial(
    Command,
    wire="billing.start-trial",
    personal=True,
    refuses=(AlreadySubscribed, TrialAlreadyUsed, EmailRefusedByStripe),
):
    """Reserve the trial of a user and device, then send FinishTrial, whose handler replies."""

    user_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None
    beak_id: str | None = None
    fingerprint: str | None = None
    locale: Locale | None = None
    """Language of the mail with the link."""


class FinishTrial(Command, wire="billing.finish-trial", personal=True, refuses=(EmailRefusedByStripe,)):
    """Create the trial's customer and subscription in Stripe, record them, and order the magic link."""

    trial_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None
    locale: Locale | None = None
    """Language of the mail with the link."""


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was created in Stripe and recorded."""

    user_id: str
    trial_id: str
    subscription_id: str
    """ID of the subscription's record in billing."""
    ends_at: Moment
