"""Subscriptions: creation, with a trial, a first payment or incomplete; and the list."""

from services.stripe_double import catalog, events, subscription_items, tax_rates, trials
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill
from services.stripe_double.errors import StripeApiError, card_declined, not_supported, payment_method_missing
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import default_of
from services.stripe_double.rendering import filter_customer, list_page
from services.stripe_double.subscription_items import period_end, with_new_cycle
from services.stripe_double.subscription_status import ENDED

STATUSES = ("active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid")
PAYMENT_BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete")
PRORATION_BEHAVIORS = ("always_invoice", "create_prorations", "none")
NOT_SUPPORTED = (
    "add_invoice_items",
    "application_fee_percent",
    "backdate_start_date",
    "billing_cycle_anchor",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "customer_account",
    "default_source",
    "on_behalf_of",
    "pending_invoice_item_interval",
    "transfer_data",
)
"""Parameters of Stripe's that the double refuses instead of ignoring them."""


def create_subscription(account: Account, params: Params) -> Json:
    """POST /v1/subscriptions.

    The first invoice is finalized and charged at once; `customer.subscription.created` has the status
    after that. With `payment_behavior=default_incomplete` it is not charged: the customer has 23 hours
    to confirm the payment.

    Raises:
        StripeApiError: 400 for invalid parameters; 402 if the payment declines and `payment_behavior` is
            `error_if_incomplete` (no subscription is created then).
    """
    customer = account.get("customer", params.required("customer"), param="customer")
    items = subscription_items.new_items(account, params)
    discounts = catalog.discounts_from(account, params.nested_list("discounts"), customer["id"])
    trial_end = trials.trial_end_from(account, params, [account.get("price", item["price"]) for item in items])
    payment_behavior = params.choice("payment_behavior", PAYMENT_BEHAVIORS, "allow_incomplete")
    subscription = {
        **_new_subscription(account, params, customer, items[0]),
        "items": items,
        **trials.trial_members(account, trial_end),
    }
    cancel_at_period_end = params.boolean("cancel_at_period_end", default=False)
    cancel_at = params.integer("cancel_at", minimum=account.now)
    reject_unsupported(params)
    subscription = (
        with_new_cycle(account, subscription, account.now)
        if trial_end is None
        else trials.with_trial_period(subscription, account.now, trial_end)
    )
    if cancel_at_period_end:
        cancel_at = period_end(subscription)
    if cancel_at is not None:
        subscription |= {
            "cancel_at": cancel_at,
            "cancel_at_period_end": cancel_at_period_end,
            "canceled_at": account.now,
        }
    account.put(subscription)
    discount_ids = catalog.add_discounts(account, discounts, subscription["id"])
    subscription = account.update(subscription, discounts=discount_ids)
    return _bill_first_period(account, subscription, str(payment_behavior))


def _new_subscription(account: Account, params: Params, customer: Json, first_item: Json) -> Json:
    collection_method = params.choice(
        "collection_method", ("charge_automatically", "send_invoice"), "charge_automatically"
    )
    days = params.integer("days_until_due", minimum=0)
    if (collection_method == "send_invoice") != (days is not None):
        raise params.invalid("days_until_due", "days_until_due goes with collection_method=send_invoice only.")
    currency = account.get("price", first_item["price"])["currency"]
    if (params.string("currency") or currency) != currency:
        raise params.invalid("currency", f"The price specified only supports `{currency}`.")
    reject_other_currency(account, customer, currency)
    params.boolean("off_session")  # No effect: the double makes every charge off-session.
    params.choice("proration_behavior", PRORATION_BEHAVIORS)
    billing_mode = params.nested("billing_mode")
    return account.new(
        "subscription",
        application=None,
        application_fee_percent=None,
        automatic_tax={"disabled_reason": None, "enabled": False, "liability": None},
        billing_cycle_anchor=account.now,
        billing_cycle_anchor_config=None,
        billing_mode={
            "flexible": None,
            "type": billing_mode.raw("type") if billing_mode else "flexible",
        },
        billing_schedules=[],
        billing_thresholds=None,
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        cancellation_details={"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        collection_method=collection_method,
        currency=currency,
        customer=customer["id"],
        customer_account=None,
        days_until_due=days,
        default_payment_method=read_default_payment_method(account, params, customer["id"]),
        default_source=None,
        default_tax_rates=tax_rates.read_default_tax_rates(account, params),
        description=params.string("description"),
        discounts=[],
        ended_at=None,
        invoice_settings={
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        latest_invoice=None,
        managed_payments=None,
        metadata=params.metadata(),
        next_pending_invoice_item_invoice=None,
        on_behalf_of=None,
        pause_collection=None,
        payment_settings=read_payment_settings(params),
        pending_invoice_item_interval=None,
        pending_setup_intent=None,
        pending_update=None,
        schedule=None,
        start_date=account.now,
        status="incomplete",
        status_details=None,
        test_clock=None,
        transfer_data=None,
        trial_settings=trials.read_trial_settings(params),
        _defer_events=True,
        _pending=None,
        _notified_trial_end=None,
        _notified_renewal=None,
    )


def read_default_payment_method(account: Account, params: Params, customer: str) -> str | None:
    """Return `default_payment_method`.

    Raises:
        StripeApiError: 400 if it is not attached to the customer.
    """
    method_id = params.string("default_payment_method")
    if method_id is None:
        return None
    method = account.find("payment_method", method_id)
    if method is None or method["customer"] != customer:
        raise params.invalid(
            "default_payment_method",
            f"The customer does not have a payment method with the ID {method_id}. The payment method must be"
            " attached to the customer.",
            "resource_missing",
        )
    return method_id


def read_payment_settings(params: Params) -> Json:
    """Return `payment_settings` as sent; the double stores them without effect."""
    sent = params.raw("payment_settings")
    defaults = {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    }
    return {**defaults, **sent} if isinstance(sent, dict) else defaults


def reject_unsupported(params: Params) -> None:
    """Refuse parameters that the double does not support, and unknown ones.

    Raises:
        StripeApiError: 400 `not_supported` or `parameter_unknown`.
    """
    for name in NOT_SUPPORTED:
        if name in params:
            raise not_supported(name, name)
    params.reject_unknown()


def reject_other_currency(account: Account, customer: Json, currency: str) -> None:
    """Raise Stripe's 400, which has neither code nor parameter, if the customer is billed in another currency."""
    current = {
        each["currency"] for each in account.owned("subscription", customer["id"]) if each["status"] not in ENDED
    }
    current |= {customer["currency"]} - {None}
    if current - {currency}:
        raise StripeApiError(
            "You cannot combine currencies on a single customer. This customer has an active subscription, subscription"
            f" schedule, discount, quote, or invoice item with currency {min(current - {currency})}."
        )


def _bill_first_period(account: Account, subscription: Json, payment_behavior: str) -> Json:
    customer = subscription["customer"]
    if subscription["collection_method"] == "send_invoice" and subscription["status"] == "incomplete":
        subscription = account.update(subscription, status="active")
        subscription = bill(account, subscription, subscription["items"], "subscription_create", charge_now=False)
    else:
        confirmed_later = payment_behavior == "default_incomplete"
        payable = confirmed_later or default_of(account, subscription, customer) is not None
        subscription = bill(account, subscription, subscription["items"], "subscription_create", charge_now=False)
        subscription = trials.finalize_first_invoice(account, subscription, charge=not confirmed_later)
        if not payable and subscription["status"] == "incomplete":
            raise payment_method_missing()
    if payment_behavior == "error_if_incomplete" and subscription["status"] == "incomplete":
        raise _first_payment_declined(account, subscription)
    subscription = account.update(subscription, _defer_events=False)
    events.emit(account, "customer.subscription.created", subscription)
    return trials.notify_trial_will_end(account, subscription)


def _first_payment_declined(account: Account, subscription: Json) -> StripeApiError:
    charges = account.owned("charge", subscription["customer"])
    outcome = charges[0]["outcome"] if charges else {"reason": "authentication_required"}
    return card_declined(outcome["reason"])


def list_subscriptions(account: Account, params: Params) -> Json:
    """GET /v1/subscriptions: all but canceled ones by default; `status` may also be `all` or `ended`."""
    status = params.choice("status", (*STATUSES, "all", "ended"))
    price = params.string("price") or params.string("plan")
    found = [
        subscription
        for subscription in filter_customer(account, params, "subscription")
        if _matches_status(subscription["status"], status)
        and (price is None or any(item["price"] == price for item in subscription["items"]))
    ]
    return list_page(account, params, "/v1/subscriptions", found)


def _matches_status(status: str, wanted: str | None) -> bool:
    if wanted is None:
        return status != "canceled"
    if wanted == "ended":
        return status in ENDED
    return wanted in {"all", status}
