"""What billing is ordered and asked, and what it announces: trials, subscriptions, payments and disputes."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.auth import NonEmpty
from shared.messages.locales import Locale
from shared.messages.message import Command, Event, Moment, Part, Query, Reply
from shared.messages.people import ErasePart, ExportPart

CancelType = Literal["immediate", "period_end"]


class StartTrial(Command, wire="billing.start-trial", personal=True):
    """Reserve the one trial of this user and device; goes on with FinishTrial. No reply body.

    Refused: ``already_subscribed``, ``trial_already_used``; by FinishTrial ``unavailable``, ``invalid_email``.
    """

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


class FinishTrial(Command, wire="billing.finish-trial", personal=True):
    """Make the trial's customer and subscription in Stripe, record them, order the magic link. No reply body."""

    trial_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None
    locale: Locale | None = None
    """As in StartTrial."""


class Attempted(Command):
    """What every order says that waits while Stripe can't be asked."""

    attempt: int = 1
    """Counts from 1; grows while Stripe can't be asked."""


class Hinted(Attempted):
    """What every order to read something of Stripe's says that an event may hint at."""

    event_id: str | None = None
    """The event kept by billing that hints at it: nothing is read when a reading that began later has covered it."""


class FollowSubscription(Hinted, wire="billing.follow-subscription"):
    """Read a subscription from Stripe and bring our record to what it says. No reply body."""

    subscription_id: str
    """Stripe's id, ``sub_…``."""
    awaited: int = 0
    """How often its user was awaited already."""


class FollowCustomer(Attempted, wire="billing.follow-customer"):
    """Follow all subscriptions of a customer, ended ones too. No reply body."""

    customer_id: str
    """Stripe's id, ``cus_…``."""


class GetSubscriptionStatus(Query, wire="billing.get-subscription-status"):
    """What a user has subscribed to. Reply: SubscriptionStatusView. Refused: ``no_active_subscription``."""

    user_id: NonEmpty


class GetSubscriptionHeartbeat(Query, wire="billing.get-subscription-heartbeat"):
    """Whether a subscription is active. No reply body while one is. Refused: ``subscription_expired``."""

    user_id: NonEmpty


class SubscriptionStatusView(Reply):
    """A user's active subscription."""

    status: str
    """Stripe's word."""
    billing_portal_url: str | None
    """A short-lived link; null when Stripe could not be reached within its budget."""
    start_date: Moment
    end_date: Moment | None
    cancel_at: Moment | None
    cancel_type: CancelType | None
    cancelled_at: Moment | None


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was started for a user, in Stripe and here."""

    user_id: str
    trial_id: str
    subscription_id: str
    """Ours."""
    ends_at: Moment


class SubscriptionStarted(Event, wire="billing.subscription-started"):
    """A subscription was seen for the first time."""

    user_id: str
    subscription_id: str
    status: str
    entitled: bool | None = None
    """Whether it entitles its user now; time alone may end that, without an event."""


class SubscriptionChanged(Event, wire="billing.subscription-changed"):
    """A subscription is no longer what it was."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...]
    """Names of the fields that changed, as at rest."""
    entitled: bool | None = None
    """As in SubscriptionStarted."""


class SubscriptionEnded(Event, wire="billing.subscription-ended"):
    """A subscription came to its end for good."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...] = ()
    """As in SubscriptionChanged, which is not announced besides."""
    reason: str | None = None
    """``duplicate`` and ``coupon_missing`` when billing ended it, else Stripe's word: ``cancellation_requested``,
    ``payment_failed``, ``payment_disputed``; None where it has none."""


class DuplicateSubscriptionCancelled(Event, wire="billing.duplicate-subscription-cancelled"):
    """A second live subscription of one user was cancelled in Stripe."""

    user_id: str
    subscription_id: str
    kept_subscription_id: str
    reason: str = "duplicate"


class CancelDuplicateSubscription(Attempted, wire="billing.cancel-duplicate-subscription"):
    """Cancel a user's second live subscription in Stripe: prorated, invoiced now. No reply body."""

    subscription_id: str
    """Ours."""
    kept_subscription_id: str
    """Ours."""


class CancelSubscriptionWithoutCoupon(Attempted, wire="billing.cancel-subscription-without-coupon"):
    """Cancel a subscription in Stripe, where every one needs a coupon: prorated, invoiced now. No reply body."""

    subscription_id: str
    """Ours."""


class FollowPayment(Hinted, wire="billing.follow-payment"):
    """Read a payment intent from Stripe and bring our record to what it says. No reply body."""

    payment_intent_id: str
    """Stripe's id, ``pi_…``."""


class FindPayments(Hinted, wire="billing.find-payments"):
    """Follow the payments that an object of Stripe's is part of. No reply body."""

    object: Literal["charge", "refund", "invoice", "invoice_payment"]
    object_id: str
    """Stripe's id."""


class FollowDispute(Hinted, wire="billing.follow-dispute"):
    """Read a dispute from Stripe and bring our records of it and of its payment to what it says. No reply body."""

    dispute_id: str
    """Stripe's id, ``dp_…`` or ``du_…``."""


class PaymentFacts(Event):
    """What every event of a payment says. Amounts are in the currency's minor unit, as Stripe counts.

    A subscription's payment is announced once it is known whose it is.
    """

    user_id: str | None
    """None for a payment outside of subscriptions that is nobody's."""
    payment_id: str
    """Ours."""
    stp_subscription_id: str | None
    """Stripe's; None outside of subscriptions."""
    amount: int
    currency: str
    """Three letters, lower case."""


class PaymentSucceeded(PaymentFacts, wire="billing.payment-succeeded"):
    """A payment was received; never said of an invoice over nothing."""

    amount_received: int


class PaymentFailed(PaymentFacts, wire="billing.payment-failed"):
    """An attempt to collect a payment failed; of attempts that follow each other fast the last one is announced."""

    failure: str | None
    """Stripe's word: ``card_declined``."""
    decline: str | None
    """The bank's reason: ``insufficient_funds``."""


class PaymentActionRequired(PaymentFacts, wire="billing.payment-action-required"):
    """A renewal waits for the person, whose bank asks for a confirmation."""


class PaymentCancelled(PaymentFacts, wire="billing.payment-cancelled"):
    """A payment will not be collected any more."""


class PaymentRefunded(PaymentFacts, wire="billing.payment-refunded"):
    """Money was given back."""

    amount_refunded: int
    """In all, with earlier refunds of the same payment."""


class DisputeFacts(Event):
    """What both events of a dispute say."""

    user_id: str | None
    """None while it is not known whose payment is disputed."""
    dispute_id: str
    """Ours."""
    payment_id: str | None
    """Ours; None for a charge without a payment intent."""
    status: str
    """Stripe's word."""
    reason: str
    """Stripe's word."""
    amount: int
    """What is disputed, in the currency's minor unit."""
    currency: str


class DisputeOpened(DisputeFacts, wire="billing.dispute-opened"):
    """A person asks the bank for money back; an inquiry, ``warning_…``, takes none yet."""


class DisputeClosed(DisputeFacts, wire="billing.dispute-closed"):
    """A dispute came to its end: ``won``, ``lost``, ``prevented`` or ``warning_closed``."""


class ListPayments(Query, wire="billing.list-payments", audited=True):
    """Payments, of one user or of all. Reply: PaymentsView, newest first. Refused: ``invalid_cursor``."""

    user_id: NonEmpty | None = None
    """Only this user's."""
    status: NonEmpty | None = None
    """Stripe's word."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: NonEmpty | None = None
    """``next_cursor`` of the page before."""


class PaymentView(Part):
    """A payment; amounts in the currency's minor unit, as Stripe counts."""

    id: str
    user_id: str | None
    status: str
    amount: int
    amount_received: int
    amount_refunded: int
    currency: str
    failure_code: str | None
    decline_code: str | None
    disputed: bool
    stp_payment_intent_id: str
    stp_charge_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_customer_id: str | None
    created_at: Moment
    """When it was made in Stripe."""
    cancelled_at: Moment | None
    updated_at: Moment


class PaymentsView(Reply):
    """A page of payments."""

    payments: tuple[PaymentView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListDisputes(Query, wire="billing.list-disputes", audited=True):
    """Disputes, of one user or of all. Reply: DisputesView, newest first. Refused: ``invalid_cursor``."""

    user_id: NonEmpty | None = None
    status: NonEmpty | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: NonEmpty | None = None
    """As in ListPayments."""


class DisputeView(Part):
    """A dispute; the amount in the currency's minor unit, as Stripe counts."""

    id: str
    user_id: str | None
    payment_id: str | None
    """Ours."""
    status: str
    reason: str
    amount: int
    currency: str
    respond_by: Moment | None
    """Until when evidence is taken; None where none is."""
    stp_dispute_id: str
    stp_charge_id: str
    stp_payment_intent_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_customer_id: str | None
    created_at: Moment
    """When it was made in Stripe."""
    updated_at: Moment


class DisputesView(Reply):
    """A page of disputes."""

    disputes: tuple[DisputeView, ...]
    next_cursor: str | None
    """As in PaymentsView."""


class ExportUserFromBilling(ExportPart, wire="billing.export-user-from-billing"):
    """Hand over what billing holds on a user."""


class EraseUserFromBilling(ErasePart, wire="billing.erase-user-from-billing"):
    """Remove what billing holds on a user."""
