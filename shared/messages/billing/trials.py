"""Trials: one for each user and device, created in Stripe."""

from shared.messages.auth.magic_links import Platform
from shared.messages.billing.errors import (
    AlreadySubscribed,
    EmailRefusedByStripe,
    TrialAlreadyUsed,
    TrialRefusedByStripe,
)
from shared.messages.message import Command, Event
from shared.messages.types import Moment, PreferredLocale


class TrialCommand(Command):
    """Fields shared by the commands that start a trial."""

    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Platform | None = None
    locale: PreferredLocale = None
    """Language of the mail with the link."""


class StartTrial(
    TrialCommand,
    wire="billing.start-trial",
    personal=True,
    refuses=(AlreadySubscribed, TrialAlreadyUsed, EmailRefusedByStripe, TrialRefusedByStripe),
):
    """Reserve the trial of a user and device, then send FinishTrial, whose handler replies."""

    user_id: str
    beak_id: str | None = None
    fingerprint: str | None = None


class FinishTrial(
    TrialCommand, wire="billing.finish-trial", personal=True, refuses=(EmailRefusedByStripe, TrialRefusedByStripe)
):
    """Create the trial's customer and subscription in Stripe, record them, and order the magic link."""

    trial_id: str


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was created in Stripe and recorded."""

    user_id: str
    trial_id: str
    subscription_id: str
    """ID of the subscription's record in billing."""
    ends_at: Moment
