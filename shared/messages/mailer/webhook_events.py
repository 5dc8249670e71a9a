"""Events that webhooks carry: their types, and the documented shape of each type's data."""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field

from shared.messages.billing.subscriptions import PlanItem
from shared.messages.message import Part
from shared.messages.types import Many, Moment

EventType = Literal[
    "user.created",
    "user.logged_in",
    "user.erased",
    "session.revoked",
    "subscription.started",
    "subscription.changed",
    "subscription.plan_changed",
    "subscription.cancellation_planned",
    "subscription.cancellation_withdrawn",
    "subscription.resumed",
    "subscription.lapsed",
    "subscription.ended",
    "subscription.moved",
    "subscription.duplicate_found",
    "subscription.duplicate_cancelled",
    "trial.started",
    "trial.ended",
    "payment.succeeded",
    "payment.failed",
    "payment.action_required",
    "payment.cancelled",
    "payment.refunded",
    "payment.disputed",
    "payment.dispute_closed",
    "consent.changed",
]
"""Types that an endpoint can choose."""
EventFamily = Literal["*", "user.*", "session.*", "subscription.*", "trial.*", "payment.*", "consent.*"]
"""All types, or all types of a family, including those of later releases."""
EventChoice = Literal[EventType, EventFamily]
TEST: Final = "webhook.test"
"""Type of the event that ``send_test_webhook`` sends."""
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)

_UserId = Annotated[str, Field(description="ID of the user.")]
_HappenedAt = Annotated[
    Moment | None, Field(description="When it happened according to Stripe; null if Stripe has no time for it.")
]
_Entitled = Annotated[bool | None, Field(description="Whether the user has access now; null if unknown.")]
_Status = Annotated[str, Field(description="Stripe's status of the subscription, for example ``active``.")]


class UserCreatedData(Part):
    """Data of ``user.created``: a user was created, by a login or by the order of a trial."""

    user_id: _UserId


class UserLoggedInData(Part):
    """Data of ``user.logged_in``: a user logged in."""

    user_id: _UserId
    client_id: str
    """ID of the client that the user logged in to."""


class UserErasedData(Part):
    """Data of ``user.erased``: the erasure of a user has begun, and nothing else follows about them.

    The user is logged out. Remove what your app has stored about the person.
    """

    user_id: _UserId


class SessionRevokedData(Part):
    """Data of ``session.revoked``: a session was ended by its user, an operator or Nest."""

    user_id: _UserId
    client_id: str
    """ID of the client that the session was logged in to."""
    session_id: str
    """ID of the session."""
    by: str
    """``user``, ``internal`` for an operator or a back end, ``service`` for Nest, or ``theft`` if a used refresh token
    was used again."""


class SubscriptionData(Part):
    """Fields of every ``subscription.…`` event."""

    user_id: _UserId
    subscription_id: str
    """ID of the subscription."""
    happened_at: _HappenedAt = None


class SubscriptionStatusData(SubscriptionData):
    """Data of ``subscription.started``, ``subscription.changed`` and ``subscription.resumed``."""

    status: _Status
    entitled: _Entitled = None


class SubscriptionEndedData(SubscriptionData):
    """Data of ``subscription.ended``: a subscription ended for good."""

    status: _Status
    reason: str | None = None
    """Why it ended: ``cancellation_requested``, ``payment_failed``, ``payment_disputed``, ``duplicate``,
    ``coupon_missing``, ``trial_undone`` or ``trial_converted``; null if unknown."""


class SubscriptionLapsedData(SubscriptionData):
    """Data of ``subscription.lapsed``: access ended by time alone; the status in Stripe is unchanged."""

    status: _Status
    reason: Literal["grace_period_ended", "period_ended"]
    """``grace_period_ended`` after unpaid invoices; ``period_ended`` if nothing is known of a renewal."""


class SubscriptionMovedData(SubscriptionData):
    """Data of ``subscription.moved``: a subscription was moved to another user. ``user_id`` is the former user."""

    new_user_id: str
    """ID of the user that has the subscription now."""
    entitled: _Entitled = None


class PlanChangedData(SubscriptionData):
    """Data of ``subscription.plan_changed``: prices or quantities of a subscription changed."""

    before: Many[PlanItem]
    """Prices and quantities before the change."""
    after: Many[PlanItem]
    """Prices and quantities after the change."""
    entitled: _Entitled = None


class CancellationPlannedData(SubscriptionData):
    """Data of ``subscription.cancellation_planned``: a subscription was cancelled and ends later."""

    ends_at: Moment
    """When the subscription ends."""


class CancellationWithdrawnData(SubscriptionData):
    """Data of ``subscription.cancellation_withdrawn``: a planned cancellation was withdrawn."""

    renews_at: Moment
    """End of the current period."""


class DuplicateSubscriptionData(SubscriptionData):
    """Data of ``subscription.duplicate_found`` and ``subscription.duplicate_cancelled``."""

    kept_subscription_id: str
    """ID of the user's other subscription, which stays."""


class TrialStartedData(Part):
    """Data of ``trial.started``: a trial started."""

    user_id: _UserId
    subscription_id: str
    """ID of the trial's subscription."""
    ends_at: Moment
    """When the trial ends."""


class TrialEndedData(Part):
    """Data of ``trial.ended``: a trial is over. ``subscription.changed`` or ``subscription.ended`` comes with it."""

    user_id: _UserId
    subscription_id: str
    """ID of the trial's subscription."""
    status: str
    """Stripe's status after the trial: ``active`` if the user pays now, otherwise for example ``past_due``, ``paused``
    or ``canceled``."""


class PaymentData(Part):
    """Data of ``payment.action_required`` and ``payment.cancelled``, and fields of the other payment events.

    Amounts are in the currency's minor unit, for example cents.
    """

    user_id: str | None
    """ID of the user; null for a payment outside of subscriptions without a known user."""
    payment_id: str
    """ID of the payment."""
    amount: int
    """Amount due."""
    currency: str
    """Currency (ISO 4217), lower case."""
    happened_at: _HappenedAt = None


class PaymentSucceededData(PaymentData):
    """Data of ``payment.succeeded``: a payment was received."""

    amount_received: int
    """Amount received."""


class PaymentFailedData(PaymentData):
    """Data of ``payment.failed``: an attempt to collect a payment failed."""

    failure: str | None
    """Stripe's failure code, for example ``card_declined``; null if no payment method is stored."""
    decline: str | None
    """The bank's decline code, for example ``insufficient_funds``."""


class PaymentRefundedData(PaymentData):
    """Data of ``payment.refunded``: a payment was refunded, in full or in part."""

    amount_refunded: int
    """Sum of all refunds of the payment."""


class DisputeData(Part):
    """Data of ``payment.disputed`` and ``payment.dispute_closed``: a payer asked the bank for the money back."""

    user_id: str | None
    """ID of the user of the disputed payment; null if unknown."""
    dispute_id: str
    """ID of the dispute."""
    payment_id: str | None
    """ID of the disputed payment; null for a charge without a payment intent."""
    status: str
    """Stripe's status, for example ``needs_response`` or ``lost``."""
    reason: str
    """Stripe's reason, for example ``fraudulent``."""
    amount: int
    """Disputed amount in the currency's minor unit."""
    currency: str
    """Currency (ISO 4217), lower case."""
    happened_at: _HappenedAt = None


class ConsentChangedData(Part):
    """Data of ``consent.changed``: a user's choice about marketing mail changed."""

    user_id: _UserId
    level: Literal["general", "none"]
    """``general`` for news and offers, ``none`` for necessary mails only."""
    source: str
    """Origin of the choice: ``user``, ``internal`` or ``unsubscribe-link``."""


class TestData(Part):
    """Data of ``webhook.test``, which ``send_test_webhook`` sends to one endpoint."""

    endpoint_id: str
    """ID of the endpoint."""


DATA: Final[dict[str, type[Part]]] = {
    "user.created": UserCreatedData,
    "user.logged_in": UserLoggedInData,
    "user.erased": UserErasedData,
    "session.revoked": SessionRevokedData,
    "subscription.started": SubscriptionStatusData,
    "subscription.changed": SubscriptionStatusData,
    "subscription.plan_changed": PlanChangedData,
    "subscription.cancellation_planned": CancellationPlannedData,
    "subscription.cancellation_withdrawn": CancellationWithdrawnData,
    "subscription.resumed": SubscriptionStatusData,
    "subscription.lapsed": SubscriptionLapsedData,
    "subscription.ended": SubscriptionEndedData,
    "subscription.moved": SubscriptionMovedData,
    "subscription.duplicate_found": DuplicateSubscriptionData,
    "subscription.duplicate_cancelled": DuplicateSubscriptionData,
    "trial.started": TrialStartedData,
    "trial.ended": TrialEndedData,
    "payment.succeeded": PaymentSucceededData,
    "payment.failed": PaymentFailedData,
    "payment.action_required": PaymentData,
    "payment.cancelled": PaymentData,
    "payment.refunded": PaymentRefundedData,
    "payment.disputed": DisputeData,
    "payment.dispute_closed": DisputeData,
    "consent.changed": ConsentChangedData,
    TEST: TestData,
}
"""Model of each type's ``data``. Fields may be added; anything else is a new type."""


class WebhookEvent(Part):
    """An event on its way to the endpoints that chose its type."""

    event_id: str
    """ID in the header ``webhook-id``, the same in every attempt and replay."""
    type: str
    at: Moment
    """When it happened; ``timestamp`` of the body."""
    user_id: str | None = None
    """The person it is about; None if unknown."""
    client_id: str | None = None
    """The only client whose endpoints get it; None for those of every client that the user has logged in to."""
    data: dict[str, Any]
    """JSON of the type's model in ``DATA``."""
