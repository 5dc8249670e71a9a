"""Views of subscriptions: for clients and for operators."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.billing.subscriptions.models import AccessPolicy, Subscription, by_age
from shared.messages.billing.subscriptions import SubscriptionStatusView, SubscriptionView


def status_view(subscription: Subscription, billing_portal_url: str | None) -> SubscriptionStatusView:
    """The view for clients."""
    return SubscriptionStatusView(
        status=subscription.status,
        billing_portal_url=billing_portal_url,
        start_date=subscription.starts_at,
        end_date=subscription.ends_at,
        cancel_at=subscription.cancel_at,
        cancel_type=subscription.cancel_type,
        cancelled_at=subscription.cancelled_at,
    )


def operator_view(
    subscription: Subscription, of_user: Iterable[Subscription], *, at: datetime, policy: AccessPolicy, sold: bool
) -> SubscriptionView:
    """The view for operators, with the IDs of the user's other subscriptions.

    ``sold`` is whether Nest sells its product. If not, it is neither active nor entitled.
    """
    others = sorted((each for each in of_user if each.id != subscription.id), key=by_age)
    return SubscriptionView(
        id=subscription.id,
        user_id=subscription.user_id,
        status=subscription.status,
        active=sold and subscription.active(at, policy),
        entitled=sold and subscription.entitled(at, policy),
        will_renew=subscription.will_renew,
        start_date=subscription.starts_at,
        end_date=subscription.ends_at,
        cancel_at=subscription.cancel_at,
        cancel_type=subscription.cancel_type,
        cancelled_at=subscription.cancelled_at,
        overdue_since=subscription.overdue_since,
        grace_ends_at=subscription.grace_ends_at(policy),
        collection_paused=subscription.collection_paused,
        trial_id=subscription.trial_id,
        duplicate_of=subscription.duplicate_of,
        other_subscription_ids=tuple(other.id for other in others),
        stp_subscription_id=subscription.stp_subscription_id,
        stp_customer_id=subscription.stp_customer_id,
        stp_product_id=subscription.stp_product_id,
        stp_created_at=subscription.stp_created_at,
        read_at=subscription.read_at,
        created_at=subscription.created_at,
        updated_at=subscription.updated_at,
    )
