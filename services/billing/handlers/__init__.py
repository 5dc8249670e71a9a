"""What billing does, message by message."""

from typing import Final

from services.billing.handlers.status import get_subscription_heartbeat, get_subscription_status
from services.billing.handlers.subscriptions import (
    cancel_duplicate_subscription,
    cancel_subscription_without_coupon,
    follow_customer,
    follow_subscription,
)
from services.billing.handlers.trials import finish_trial, start_trial
from services.billing.handlers.users import user_ensured
from services.billing.handlers.webhooks import stripe_event
from shared.handling import Handlers
from shared.messages.auth import UserEnsured
from shared.messages.billing import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    FinishTrial,
    FollowCustomer,
    FollowSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    StartTrial,
)
from shared.messages.stripe import StripeEvent

HANDLERS: Final[Handlers] = {
    StripeEvent: stripe_event,
    UserEnsured: user_ensured,
    FollowSubscription: follow_subscription,
    FollowCustomer: follow_customer,
    CancelDuplicateSubscription: cancel_duplicate_subscription,
    CancelSubscriptionWithoutCoupon: cancel_subscription_without_coupon,
    StartTrial: start_trial,
    FinishTrial: finish_trial,
    GetSubscriptionStatus: get_subscription_status,
    GetSubscriptionHeartbeat: get_subscription_heartbeat,
}
