"""Trials: one for each person and device, created in Stripe."""

from shared.messages.auth.magic_links import Platform
from shared.messages.billing.errors import (
    AlreadySubscribed,
    EmailRefusedByStripe,
    TrialAlreadyUsed,
    TrialRefusedByStripe,
)
from shared.messages.billing.stripe_events import StripeCommand
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
    ordered_at: Moment | None = None
    """When the trial was ordered. It is then provisional until its link is redeemed. None in a message of a release
    before provisional trials."""


class OfferTrial(TrialCommand, wire="billing.offer-trial", personal=True):
    """Order a magic link that starts a trial, or one that only logs in if the person or device is not eligible."""

    user_id: str | None = None
    """User who has the address now; None if nobody has."""
    beak_id: str
    fingerprint: str
    with_digits: bool = False
    """Whether the mail has a typed code beside the link."""


class FinishTrial(
    TrialCommand, wire="billing.finish-trial", personal=True, refuses=(EmailRefusedByStripe, TrialRefusedByStripe)
):
    """Create the trial's customer and subscription in Stripe, record them, and order the magic link."""

    trial_id: str
    beak_id: str | None = None
    """Installation that the link was ordered from; None in a message of an earlier release, as for
    ``fingerprint``: then it is the trial's."""
    fingerprint: str | None = None


class RedeemTrial(Command, wire="billing.redeem-trial", personal=True):
    """Settle the provisional trial of a person who has redeemed its link; without one, start a trial.

    Sent by auth with each login by the link of a trial. A person or device that has had a trial gets no other one.
    """

    user_id: str
    email: str
    """Address that the link was mailed to."""
    beak_id: str | None = None
    """Installation that ordered the redeemed link."""
    fingerprint: str | None = None
    """Device that ordered the redeemed link."""
    starts: bool = True
    """Whether a trial starts if there is none."""


class CreateRedeemedTrial(StripeCommand, wire="billing.create-redeemed-trial", refuses=(TrialRefusedByStripe,)):
    """Create the customer and subscription of a trial whose link was redeemed, and record them."""

    trial_id: str


class UndoTrial(Command, wire="billing.undo-trial"):
    """Begin to undo a trial that is still provisional: from then on no order continues it."""

    trial_id: str


class CancelUndoneTrial(StripeCommand, wire="billing.cancel-undone-trial"):
    """Cancel the subscription of an undone trial in Stripe, and remove the trial."""

    trial_id: str


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was created in Stripe and recorded."""

    user_id: str
    trial_id: str
    subscription_id: str
    """ID of the subscription's record in billing."""
    ends_at: Moment
