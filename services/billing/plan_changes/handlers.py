"""Handlers for the orders of a person about a subscription: another plan, cancellation, and the withdrawal of that."""

from __future__ import annotations

from dataclasses import replace

from services.billing.context import SERVICE, Billing
from services.billing.customer_state.handlers import action_for, payment_url
from services.billing.plan_changes.changes import (
    PREVIEW_LIFETIME,
    PlanPreview,
    order_change,
    ordered_offer,
    pending_action,
    preview_cost,
    require_no_rival,
)
from services.billing.plan_changes.models import (
    access_ends_at,
    cancels_at_once,
    continues,
    is_cancelled,
    is_planned_to_end,
    loses_access,
)
from services.billing.plan_changes.orders import Executed, execute, ordered_subscription, read_current
from services.billing.plan_changes.rules import PlanChange, plan_change, proration_time
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.deadlines import within_deadline
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.subscription_changes import CancellationReason
from services.billing.subscriptions.models import ENDED
from services.billing.subscriptions.sync import plan_of
from shared.bus.work import Work
from shared.messages.billing.errors import (
    ChangeRefusedByStripe,
    ImmediateCancellationNotAllowed,
    PreviewOutdated,
    SubscriptionExcluded,
    SubscriptionHasEnded,
)
from shared.messages.billing.links import PORTAL
from shared.messages.billing.plan_changes import (
    CancelSubscription,
    ChangePlan,
    OrderOutcome,
    PlanChangeView,
    PlannedChange,
    PlannedItem,
    PlanOrderView,
    PreviewPlanChange,
    WithdrawCancellation,
)
from shared.messages.billing.subscriptions import RequiredAction
from shared.money import currency_decimals


async def preview_plan_change(query: PreviewPlanChange, work: Work, billing: Billing) -> PlanChangeView:
    """What another price or quantity of a subscription costs, as Stripe computes it.

    Raises:
        SubscriptionNotFound, SubscriptionHasEnded, SubscriptionNotChangeable, SubscriptionExcluded: as ``change_plan``.
        PriceNotFound, PriceInactive, PriceNotSold, CurrencyNotOffered, QuantityNotAllowed: the price can't be ordered
            so.
        ChangeRefusedByStripe: Stripe would refuse the change.
        StripeUnavailable: Stripe is unavailable.
    """
    subscription = await ordered_subscription(query, work, billing)
    async with within_deadline(billing.stripe, work) as stripe:
        offer = await ordered_offer(query, stripe, billing)
        _, reading = await read_current(subscription, replace(billing, stripe=stripe))
        plan = plan_change(reading, query, offer, downgrade=billing.downgrade)
        await require_no_rival(subscription, plan, offer, work, billing)
        at = proration_time(reading, work.now)
        try:
            cost = await preview_cost(stripe, reading, plan, billing.proration, at=at)
        except StripeRefused as refused:
            refused.report(subscription=subscription.id)
            raise ChangeRefusedByStripe from refused
    preview = PlanPreview.of(reading, plan, cost, at=at, expires_at=work.now + PREVIEW_LIFETIME)
    return PlanChangeView(
        subscription_id=subscription.id,
        effect=plan.effect,
        effective_at=reading.period_end if plan.effect == "period_end" else at,
        currency=cost.currency,
        decimals=currency_decimals(cost.currency),
        due_now=cost.due_now,
        credit=cost.credit,
        next_invoice_at=cost.next_at,
        next_invoice_amount=cost.next_amount,
        preview=preview.seal(billing),
        expires_at=work.now + PREVIEW_LIFETIME,
    )


async def change_plan(command: ChangePlan, work: Work, billing: Billing) -> PlanOrderView:
    """Change the price or quantity of a subscription, now or at the end of its period.

    Raises:
        SubscriptionNotFound: the user has no such subscription.
        SubscriptionHasEnded, SubscriptionNotChangeable: the subscription can't be changed so.
        SubscriptionExcluded: the user has another subscription for the product.
        PriceNotFound, PriceInactive, PriceNotSold, CurrencyNotOffered, QuantityNotAllowed: the price can't be ordered
            so.
        PreviewOutdated: the preview does not hold any more.
        ChangeRefusedByStripe: Stripe refuses the change.
        StripeUnavailable: Stripe is unavailable; a repeat continues.
    """
    subscription = await ordered_subscription(command, work, billing)
    async with within_deadline(billing.stripe, work) as stripe:
        offer = await ordered_offer(command, stripe, billing)
    preview = None if command.preview is None else PlanPreview.unseal(command.preview, billing)
    plan: PlanChange

    def done(reading: StripeSubscription) -> bool:
        nonlocal plan
        plan = plan_change(reading, command, offer, downgrade=billing.downgrade)
        if plan.done:
            return True
        if command.preview is not None and (preview is None or not preview.holds(reading, plan, at=work.now)):
            raise PreviewOutdated
        return False

    async def change(stripe: Stripe, reading: StripeSubscription, key: str) -> None:
        await require_no_rival(subscription, plan, offer, work, billing)
        await order_change(stripe, reading, plan, preview, billing.proration, key=key)

    executed = await execute(subscription, work, billing, done=done, change=change)
    ordered = (plan.item.price_id, plan.item.quantity)
    if plan.changes_item and executed.reading.pending.get(plan.item.item_id) == ordered:
        action = await pending_action(executed.reading, billing)
        return _view(replace(executed, changed=True), "action_required", action, work, billing)
    outcome: OrderOutcome = "planned" if plan.effect == "period_end" else "done"
    return _view(executed, outcome, await action_for(executed.record, work, billing), work, billing)


async def cancel_subscription(command: CancelSubscription, work: Work, billing: Billing) -> PlanOrderView:
    """Cancel a subscription at the end of its period, or at once.

    A schedule is released first: Stripe accepts no other cancellation of a subscription that a schedule manages.

    Raises:
        SubscriptionNotFound: the user has no such subscription.
        ImmediateCancellationNotAllowed: the setting refuses it.
        ChangeRefusedByStripe: Stripe refuses it.
        StripeUnavailable: Stripe is unavailable; a repeat continues.
    """
    subscription = await ordered_subscription(command, work, billing)
    comment = None if command.comment is None else billing.sealer.unseal_secret(SERVICE, command.comment)
    reason = CancellationReason(command.feedback, comment)

    def done(reading: StripeSubscription) -> bool:
        at_once = cancels_at_once(reading, command.at)
        cancelled = is_cancelled(reading, at_once=at_once)
        if not cancelled and at_once and loses_access(reading) and billing.cancel_now == "refused":
            raise ImmediateCancellationNotAllowed
        return cancelled

    async def change(stripe: Stripe, reading: StripeSubscription, key: str) -> None:
        if reading.schedule_id is not None:
            await stripe.release_schedule(reading.schedule_id, key=f"{key}:release")
        if not cancels_at_once(reading, command.at):
            await stripe.plan_cancellation(reading.id, reason, key=key)
            return
        # The unused time of an unpaid period must not become a credit.
        paid = reading.status == "active"
        await stripe.cancel_for_person(
            reading.id, reason, prorate=paid and billing.cancel_now == "credit", invoice_now=paid, key=key
        )

    executed = await execute(subscription, work, billing, done=done, change=change)
    outcome: OrderOutcome = "done" if executed.record.ended else "planned"
    return _view(executed, outcome, await action_for(executed.record, work, billing), work, billing)


async def withdraw_cancellation(command: WithdrawCancellation, work: Work, billing: Billing) -> PlanOrderView:
    """Withdraw a planned cancellation, or resume a paused subscription.

    Raises:
        SubscriptionNotFound: the user has no such subscription.
        SubscriptionHasEnded: it has ended for good.
        SubscriptionExcluded: it is paused, and another subscription of the user excludes it.
        ChangeRefusedByStripe: Stripe refuses it.
        StripeUnavailable: Stripe is unavailable; a repeat continues.
    """
    subscription = await ordered_subscription(command, work, billing)
    rival = await billing.find_rival(subscription.user_id, subscription.products, at=work.now, own=subscription.id)

    def done(reading: StripeSubscription) -> bool:
        if reading.status in ENDED:
            raise SubscriptionHasEnded
        if reading.status == "paused" and rival is not None:
            raise SubscriptionExcluded(subscription_id=rival.id)
        return continues(reading)

    executed = await execute(subscription, work, billing, done=done, change=_continue)
    action = await action_for(executed.record, work, billing)
    # The payment of a pending change is not needed to continue.
    outcome: OrderOutcome = "done" if action is None or executed.record.change_pending(work.now) else "action_required"
    return _view(executed, outcome, action, work, billing)


async def _continue(stripe: Stripe, reading: StripeSubscription, key: str) -> None:
    by_flag, by_date = reading.cancel_at_period_end, reading.cancel_at is not None
    if reading.schedule_id is not None and is_planned_to_end(reading):
        if reading.schedule_ends_at is not None:
            # The schedule sets the date of the cancellation, too.
            await stripe.continue_after_schedule(reading.schedule_id, key=f"{key}:schedule")
            by_flag = by_date = False
        else:
            await stripe.release_schedule(reading.schedule_id, key=f"{key}:release")
    collect = reading.collection_paused is not None
    if by_flag or by_date or collect:
        await stripe.continue_subscription(reading.id, by_flag=by_flag, by_date=by_date, collect=collect, key=key)
    if reading.status == "paused":
        await stripe.resume(reading.id, key=f"{key}:resume")


def _view(
    executed: Executed, outcome: OrderOutcome, action: RequiredAction | None, work: Work, billing: Billing
) -> PlanOrderView:
    record = executed.record
    return PlanOrderView(
        outcome=outcome if executed.changed else "unchanged",
        subscription_id=record.id,
        status=record.status,
        entitled=billing.sells(record.stp_product_id) and record.entitled(work.now, billing.access),
        items=plan_of(record),
        start_date=record.starts_at,
        end_date=record.ends_at,
        will_renew=record.will_renew,
        access_ends_at=access_ends_at(record, billing.access),
        cancel_at=record.cancel_at,
        cancel_type=record.cancel_type,
        cancelled_at=record.cancelled_at,
        required_action=action,
        payment_url=payment_url(record, action),
        billing_portal_url=PORTAL,
        planned_change=_planned_change(executed.reading),
    )


def _planned_change(reading: StripeSubscription) -> PlannedChange | None:
    if reading.planned is None:
        return None
    items = tuple(PlannedItem(price_id=price_id, quantity=quantity) for price_id, quantity in reading.planned.items)
    return PlannedChange(at=reading.planned.starts_at, items=items)
