"""TODO."""

from typing import Literal

from shared.messages.billing.errors import AlreadySubscribed, InvalidEmail, TrialAlreadyUsed
from shared.messages.message import Command, Event, Locale, Moment


class StartTrial(
    Command,
    wire="billing.start-trial",
    personal=True,
    refuses=(AlreadySubscribed, TrialAlreadyUsed, InvalidEmail),
):
    """Reserve the one trial of this user and device; goes on with FinishTrial."""

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
    """The language of the mail with the link."""


class FinishTrial(Command, wire="billing.finish-trial", personal=True, refuses=(InvalidEmail,)):
    """Make the trial's customer and subscription in Stripe, record them, order the magic link."""

    trial_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None
    locale: Locale | None = None
    """As in StartTrial."""


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was started for a user, in Stripe and here."""

    user_id: str
    trial_id: str
    subscription_id: str
    """Ours."""
    ends_at: Moment
