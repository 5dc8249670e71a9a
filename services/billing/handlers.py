"""What billing does, message by message."""

from typing import Final

from services.billing.customers.handlers import follow_customer, user_ensured
from services.billing.disputes.handlers import follow_dispute, list_disputes
from services.billing.events.handlers import replay_stripe_event, stripe_event, stripe_thin_event
from services.billing.payments.handlers import find_payments, follow_payment, list_payments
from services.billing.personal_data.handlers import erase_user_from_billing, export_user_from_billing
from services.billing.runs.handlers import (
    continue_stripe_run,
    get_stripe_run,
    import_stripe_account,
    keep_stripe_schedule,
    list_stripe_differences,
    list_stripe_runs,
    reconcile_subscriptions,
    replay_stripe_events,
    resume_stripe_run,
    stop_stripe_run,
    sweep_stripe_events,
)
from services.billing.subscriptions.handlers import (
    cancel_duplicate_subscription,
    cancel_subscription_without_coupon,
    follow_subscription,
    get_subscription,
    get_subscription_heartbeat,
    get_subscription_status,
    refund_duplicate_subscription,
)
from services.billing.trials.handlers import finish_trial, start_trial
from shared.bus.handling import Handlers
from shared.messages.auth.users import UserEnsured
from shared.messages.billing.disputes import FollowDispute, ListDisputes
from shared.messages.billing.payments import FindPayments, FollowPayment, ListPayments
from shared.messages.billing.runs import (
    ContinueStripeRun,
    GetStripeRun,
    ImportStripeAccount,
    KeepStripeSchedule,
    ListStripeDifferences,
    ListStripeRuns,
    ReconcileSubscriptions,
    ReplayStripeEvent,
    ReplayStripeEvents,
    ResumeStripeRun,
    StopStripeRun,
    SweepStripeEvents,
)
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    FollowCustomer,
    FollowSubscription,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    RefundDuplicateSubscription,
)
from shared.messages.billing.trials import FinishTrial, StartTrial
from shared.messages.personal_data import EraseUserFromBilling, ExportUserFromBilling

HANDLERS: Final[Handlers] = {
    StripeEvent: stripe_event,
    StripeThinEvent: stripe_thin_event,
    UserEnsured: user_ensured,
    FollowSubscription: follow_subscription,
    FollowCustomer: follow_customer,
    CancelDuplicateSubscription: cancel_duplicate_subscription,
    CancelSubscriptionWithoutCoupon: cancel_subscription_without_coupon,
    RefundDuplicateSubscription: refund_duplicate_subscription,
    FollowPayment: follow_payment,
    FindPayments: find_payments,
    FollowDispute: follow_dispute,
    ListPayments: list_payments,
    ListDisputes: list_disputes,
    EraseUserFromBilling: erase_user_from_billing,
    ExportUserFromBilling: export_user_from_billing,
    StartTrial: start_trial,
    FinishTrial: finish_trial,
    GetSubscriptionStatus: get_subscription_status,
    GetSubscriptionHeartbeat: get_subscription_heartbeat,
    GetSubscription: get_subscription,
    ReconcileSubscriptions: reconcile_subscriptions,
    SweepStripeEvents: sweep_stripe_events,
    ReplayStripeEvents: replay_stripe_events,
    ImportStripeAccount: import_stripe_account,
    ContinueStripeRun: continue_stripe_run,
    StopStripeRun: stop_stripe_run,
    ResumeStripeRun: resume_stripe_run,
    GetStripeRun: get_stripe_run,
    ListStripeRuns: list_stripe_runs,
    ListStripeDifferences: list_stripe_differences,
    ReplayStripeEvent: replay_stripe_event,
    KeepStripeSchedule: keep_stripe_schedule,
}
