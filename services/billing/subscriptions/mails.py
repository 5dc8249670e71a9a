"""Mails about the life of a subscription: its welcome, the end of its trial, its end, and what is unpaid.

Each mail is ordered by the work that records the reality it describes. Its message ID is derived from the template, the
subscription and the occasion, so it is sent once, however often it is ordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from services.billing.context import Billing
from services.billing.stripe_api.models import StripeCard, StripeSubscription
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.mailer.mails import (
    CancellationVariables,
    CardVariables,
    DuplicateVariables,
    EndVariables,
    PaymentVariables,
    PersonVariables,
    PlanVariables,
    RenewalVariables,
    SendMail,
    Template,
    TrialReplacedVariables,
    TrialVariables,
)
from shared.money import format_amount

Interval = Literal["day", "week", "month", "year"]
END_WINDOW: Final = timedelta(days=30)
"""Stripe keeps events this long. An end that is first seen later causes no mail."""


def order_welcome_mails(
    updated: Subscription, stripe_subscription: StripeSubscription, notices: Sequence[datetime], work: Work
) -> Subscription:
    """Order the welcome mail and the mail about the end of the trial, if due; returns the record that notes them."""
    email, trial_end = stripe_subscription.customer.email, stripe_subscription.trial_end
    if updated.welcome_due(stripe_subscription, at=work.now) and email is not None:
        if stripe_subscription.trial_start is None:
            order_mail("welcome", updated, email, PersonVariables(), work)
        else:
            order_mail("welcome-trial", updated, email, TrialVariables(ends_at=trial_end), work)
        updated = updated.welcomed(work.now)
    if trial_end is not None and updated.trial_end_mail_due(stripe_subscription, notices, at=work.now):
        price, interval = _price(stripe_subscription)
        variables = TrialVariables(ends_at=trial_end, price=price, interval=interval)
        order_mail("trial-ending", updated, email, variables, work, occasion=_seconds(trial_end))
        updated = updated.notified_of_trial_end(trial_end)
    return updated


def order_end_mail(
    stored: Subscription | None, updated: Subscription, stripe_subscription: StripeSubscription, work: Work, url: str
) -> None:
    """Order the mail about the end of a trial or of a subscription, if this reading is the first that shows it.

    ``url`` is the page where the person can subscribe or pay, unless Stripe has an invoice to pay.
    """
    email = stripe_subscription.customer.email
    before = None if stored is None else stored.status
    if updated.status == before or (stored is None and updated.taken_over):
        return
    trial_over = stripe_subscription.trial_end is not None and not updated.paid
    if stripe_subscription.paused_by_trial:
        order_mail("trial-ended", updated, email, EndVariables(link=url, paused=True), work, occasion="paused")
    elif updated.status == "unpaid":
        order_unpaid_mail(updated, stripe_subscription, work, url)
    elif updated.status == "canceled" and updated.ends_at > work.now - END_WINDOW:
        reason = stripe_subscription.end_reason
        if reason == "trial_converted":
            variables = TrialReplacedVariables(days=stripe_subscription.carried_over_days or None)
            order_mail("trial-replaced", updated, email, variables, work)
        elif reason in (None, "cancellation_requested", "payment_failed") and trial_over and before != "past_due":
            order_mail("trial-ended", updated, email, EndVariables(link=url), work)
        elif reason in (None, "cancellation_requested", "payment_failed"):
            failed = reason == "payment_failed"
            order_mail("subscription-ended", updated, email, EndVariables(link=url, payment_failed=failed), work)


def order_change_mails(
    stored: Subscription | None, updated: Subscription, stripe_subscription: StripeSubscription, work: Work, url: str
) -> None:
    """Order the mails that the plan was changed and that the subscription was cancelled, with its last day.

    ``url`` is the page where the person manages the subscription.
    """
    if stored is None or updated.ended:
        return
    email, before = stripe_subscription.customer.email, stored.completed_from(updated)
    if before.items != updated.items and updated.status in ("active", "trialing", "past_due"):
        price, interval = _price(stripe_subscription)
        # The version of the record names the change: a plan may be changed back and forth.
        plan = PlanVariables(price=price, interval=interval, link=url)
        order_mail("plan-changed", updated, email, plan, work, occasion=str(stored.version))
    end = updated.planned_end
    if end is not None and end > work.now and end != before.planned_end:
        cancellation = CancellationVariables(ends_at=end, link=url)
        order_mail("subscription-cancelled", updated, email, cancellation, work, occasion=str(stored.version))


def order_renewal_mail(
    subscription: Subscription, stripe_subscription: StripeSubscription, work: Work, url: str
) -> None:
    """Order the mail that announces a renewal, once for each period; ``url`` is the page where the person cancels."""
    price, interval = _price(stripe_subscription)
    variables = RenewalVariables(renews_at=subscription.ends_at, price=price, interval=interval, link=url)
    email, occasion = stripe_subscription.customer.email, _seconds(subscription.ends_at)
    order_mail("renewal-upcoming", subscription, email, variables, work, occasion=occasion)


def order_card_mail(
    subscription: Subscription, stripe_subscription: StripeSubscription, card: StripeCard, work: Work, url: str
) -> None:
    """Order the mail that a card expires before the renewal, once for each card and expiry.

    ``url`` is the page where the person changes the card.
    """
    expires = f"{card.exp_month:02}/{card.exp_year}"
    variables = CardVariables(card=card.last4, expires=expires, renews_at=subscription.ends_at, link=url)
    email, occasion = stripe_subscription.customer.email, f"{card.id}:{expires}"
    order_mail("card-expiring", subscription, email, variables, work, occasion=occasion)


def _price(stripe_subscription: StripeSubscription) -> tuple[str | None, Interval | None]:
    """Formatted price and unit of a period, if both are known."""
    price, interval = stripe_subscription.price, stripe_subscription.interval
    if price is None or interval is None:
        return None, None
    return format_amount(price, stripe_subscription.currency), interval


def order_unpaid_mail(
    updated: Subscription,
    stripe_subscription: StripeSubscription | None,
    work: Work,
    url: str,
    email: str | None = None,
) -> None:
    """Order the mail that access has ended until an invoice is paid, once for each overdue time.

    ``email`` is the customer's address, if ``stripe_subscription`` is None.
    """
    occasion = "" if updated.overdue_since is None else _seconds(updated.overdue_since)
    link = None
    if stripe_subscription is not None:
        email, link = stripe_subscription.customer.email, stripe_subscription.payment_link
    order_mail("subscription-unpaid", updated, email, PaymentVariables(link=link or url), work, occasion=occasion)


async def order_duplicate_mail(
    duplicate: Subscription, variables: DuplicateVariables, work: Work, billing: Billing
) -> None:
    """Order the mail about a cancelled duplicate once it is known what happened to its money; raises StripeUnavailable.

    It is not sent to a user who was erased meanwhile.
    """
    customer = await billing.stripe.customer(duplicate.stp_customer_id)
    if customer is None or await billing.erased.contains_any(customer.id, duplicate.user_id, customer.user_id):
        return
    order_mail("duplicate-subscription", duplicate, customer.email, variables, work)


def order_mail(
    template: Template,
    subscription: Subscription,
    email: str | None,
    variables: PersonVariables,
    work: Work,
    *,
    occasion: str = "",
) -> None:
    """Order a mail to the customer's address, if it has one."""
    if email is None:
        return
    work.publish(
        SendMail(
            key=subscription.user_id,
            template=template,
            to=Sealed.of(email),
            variables=Sealed.of_json(variables),
            user_id=subscription.user_id,
        ),
        id=derived_message_id(
            "welcome" if template == "welcome-trial" else template,
            subscription.stp_subscription_id,
            *filter(None, [occasion]),
        ),
    )


def _seconds(moment: datetime) -> str:
    return str(int(moment.timestamp()))
