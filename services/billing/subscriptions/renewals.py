"""Checks before a renewal: the mails that announce it, and that the card will have expired by then.

A check is scheduled for each time before the end of a period at which a mail may be due. The country and the card are
read when it is due, because both may change in Stripe without an event about the subscription.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.billing.context import Billing
from services.billing.stripe_api.models import ItemTerms, StripeCard, StripeSubscription
from services.billing.subscriptions.mails import order_card_mail, order_renewal_mail
from services.billing.subscriptions.models import RenewalPolicy, Subscription
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages.billing.subscriptions import CheckSubscriptionRenewal

CARD_NOTICE: Final = timedelta(days=14)
"""How long before a renewal its card is checked; at half of a period that is shorter than twice this."""


def schedule_renewal_check(
    updated: Subscription, stripe_subscription: StripeSubscription, work: Work, billing: Billing
) -> Subscription:
    """Schedule the next check before the renewal, if none is scheduled; returns the record that notes it."""
    if not _renews(updated, work.now):
        return updated
    last = updated.renewal_checked_at
    times = _check_times(updated, stripe_subscription.terms, billing.renewals)
    if last is not None and last > work.now and last in times:
        return updated
    # A check that is already past is made at once: the subscription was not followed before, or the period became
    # shorter.
    due_at = next((each for each in times if last is None or each > min(last, work.now)), None)
    if due_at is None:
        return updated
    work.publish(
        CheckSubscriptionRenewal(key=updated.stp_subscription_id, subscription_id=updated.id, due_at=due_at),
        at=max(due_at, work.now),
        id=derived_message_id("check-renewal", updated.id, due_at.isoformat()),
    )
    return replace(updated, renewal_checked_at=due_at)


async def order_renewal_mails(
    subscription: Subscription, stripe_subscription: StripeSubscription, due_at: datetime, work: Work, billing: Billing
) -> None:
    """Order the mails that are due at the time of a check; raises StripeUnavailable and StripeRefused.

    A renewal is announced at the check for the customer's country only, so once for each period.
    """
    if not _renews(subscription, work.now):
        return
    notice = billing.renewals.notice(stripe_subscription.customer)
    announced = billing.renewals.announces(stripe_subscription.terms)
    if announced and notice is not None and due_at == subscription.ends_at - notice:
        order_renewal_mail(subscription, stripe_subscription, work, billing.account_url)
    method = stripe_subscription.payment_method_id
    if method is None or stripe_subscription.invoiced or due_at != _card_time(subscription):
        return
    card = await billing.stripe.card(method)
    # A card that expired before this period was mailed about then.
    if card is not None and subscription.starts_at < _expires_at(card) <= subscription.ends_at:
        order_card_mail(subscription, stripe_subscription, card, work, billing.account_url)


def _renews(subscription: Subscription, at: datetime) -> bool:
    """Whether a charge lies ahead; the end of a trial has a mail of its own."""
    charged = subscription.status == "active" and subscription.collection_paused is None
    return charged and subscription.will_renew and at < subscription.ends_at


def _check_times(subscription: Subscription, terms: Sequence[ItemTerms], policy: RenewalPolicy) -> list[datetime]:
    times = {_card_time(subscription)}
    if policy.announces(terms):
        times |= {subscription.ends_at - timedelta(days=days) for days in policy.days.values()}
    return sorted(each for each in times if each > subscription.starts_at)


def _card_time(subscription: Subscription) -> datetime:
    half = timedelta(days=(subscription.ends_at - subscription.starts_at).days // 2)
    return subscription.ends_at - min(CARD_NOTICE, half)


def _expires_at(card: StripeCard) -> datetime:
    """The first moment after the month until whose end a card is valid."""
    return datetime(card.exp_year + card.exp_month // 12, card.exp_month % 12 + 1, 1, tzinfo=UTC)
