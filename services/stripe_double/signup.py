"""How does a subscription begin? With a trial, with a payment, or incomplete."""

from services.stripe_double import discounts, events, items, trials
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, period_end, restarted
from services.stripe_double.collection import missing_payment_method
from services.stripe_double.errors import StripeApiError, not_played
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import declined, default_of

BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete")
NOT_PLAYED = (
    "add_invoice_items",
    "application_fee_percent",
    "backdate_start_date",
    "billing_cycle_anchor",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "customer_account",
    "default_source",
    "default_tax_rates",
    "on_behalf_of",
    "pending_invoice_item_interval",
    "transfer_data",
)
"""Parameters of Stripe's that the double refuses rather than ignores."""


def create(account: Account, params: Params) -> Json:
    """POST /v1/subscriptions.

    The first invoice is finalized and charged at once; `customer.subscription.created` shows the
    status after that. With `payment_behavior=default_incomplete` nobody charges it: it waits for the
    customer, 23 hours.

    Raises:
        StripeApiError: 400 for what isn't there or doesn't fit; 402 when the payment declines and
            `payment_behavior` is `error_if_incomplete` (then nothing was made).
    """
    customer = account.get("customer", params.needed("customer"), param="customer")
    ordered = items.ordered(account, params)
    granted = discounts.granted(account, params.children("discounts"), customer["id"])
    trial_end = trials.asked(account, params, [account.get("price", item["price"]) for item in ordered])
    behavior = params.choice("payment_behavior", BEHAVIORS, "allow_incomplete")
    subscription = {
        **_opened(account, params, customer, ordered[0]),
        "items": ordered,
        **trials.begun(account, trial_end),
    }
    cancel_at_period_end = params.flag("cancel_at_period_end", default=False)
    cancel_at = params.integer("cancel_at", least=account.now)
    _refuse_the_rest(params)
    subscription = _timed(account, subscription, trial_end)
    if cancel_at_period_end:
        cancel_at = period_end(subscription)
    if cancel_at is not None:
        subscription |= {
            "cancel_at": cancel_at,
            "cancel_at_period_end": cancel_at_period_end,
            "canceled_at": account.now,
        }
    account.put(subscription)
    subscription = account.update(subscription, discounts=discounts.attach(account, granted, subscription["id"]))
    return _first_invoice(account, subscription, str(behavior))


def _timed(account: Account, subscription: Json, trial_end: int | None) -> Json:
    if trial_end is None:
        return restarted(account, subscription, account.now)
    return trials.lasting(subscription, account.now, trial_end)


def _opened(account: Account, params: Params, customer: Json, first: Json) -> Json:
    collection_method = params.choice(
        "collection_method", ("charge_automatically", "send_invoice"), "charge_automatically"
    )
    days = params.integer("days_until_due", least=0)
    if (collection_method == "send_invoice") != (days is not None):
        raise params.refuse("days_until_due", "days_until_due goes with collection_method=send_invoice only.")
    currency = account.get("price", first["price"])["currency"]
    if (params.text("currency") or currency) != currency:
        raise params.refuse("currency", f"The price specified only supports `{currency}`.")
    params.flag("off_session")  # every charge of the double is made without the customer
    params.choice("proration_behavior", ("always_invoice", "create_prorations", "none"))
    billing_mode = params.child("billing_mode")
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
            "updated_at": None,
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
        default_payment_method=own_payment_method(account, params, customer["id"]),
        default_source=None,
        default_tax_rates=[],
        description=params.text("description"),
        discounts=[],
        ended_at=None,
        invoice_settings={"account_tax_ids": None, "issuer": {"type": "self"}},
        latest_invoice=None,
        managed_payments=None,
        metadata=params.metadata(),
        next_pending_invoice_item_invoice=None,
        on_behalf_of=None,
        pause_collection=None,
        payment_settings=payment_settings(params),
        pending_invoice_item_interval=None,
        pending_setup_intent=None,
        pending_update=None,
        schedule=None,
        start_date=account.now,
        status="incomplete",
        status_details=None,
        test_clock=None,
        transfer_data=None,
        trial_settings=trials.settings(params),
        _quiet=True,
        _told_trial_end=None,
        _told_renewal=None,
    )


def own_payment_method(account: Account, params: Params, customer: str) -> str | None:
    """Reads `default_payment_method`, which must be the customer's."""
    chosen = params.text("default_payment_method")
    if chosen is None:
        return None
    method = account.find("payment_method", chosen)
    if method is None or method["customer"] != customer:
        raise params.refuse(
            "default_payment_method",
            f"The customer does not have a payment method with the ID {chosen}. The payment method must be"
            " attached to the customer.",
            "resource_missing",
        )
    return chosen


def payment_settings(params: Params) -> Json:
    """Reads `payment_settings`, kept as sent: they change nothing here."""
    given = params.raw("payment_settings")
    plain = {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    }
    return {**plain, **given} if isinstance(given, dict) else plain


def _refuse_the_rest(params: Params) -> None:
    for name in NOT_PLAYED:
        if name in params:
            raise not_played(name, name)
    tax = params.child("automatic_tax")
    if tax is not None and tax.flag("enabled"):
        raise not_played("automatic tax", "automatic_tax")
    params.finish()


def _first_invoice(account: Account, subscription: Json, behavior: str) -> Json:
    customer = subscription["customer"]
    if subscription["collection_method"] == "send_invoice" and subscription["status"] == "incomplete":
        subscription = account.update(subscription, status="active")
        subscription = bill(account, subscription, subscription["items"], "subscription_create", at_once=False)
    else:
        payable = behavior == "default_incomplete" or default_of(account, subscription, customer) is not None
        subscription = bill(account, subscription, subscription["items"], "subscription_create", at_once=False)
        subscription = trials.first_payment(account, subscription, charge=behavior != "default_incomplete")
        if not payable and subscription["status"] == "incomplete":
            raise missing_payment_method()
    if behavior == "error_if_incomplete" and subscription["status"] == "incomplete":
        raise _first_payment_declined(account, subscription)
    subscription = account.update(subscription, _quiet=False)
    events.emit(account, "customer.subscription.created", subscription)
    return trials.ending_soon(account, subscription)


def _first_payment_declined(account: Account, subscription: Json) -> StripeApiError:
    charges = account.owned("charge", subscription["customer"])
    outcome = charges[0]["outcome"] if charges else {"reason": "authentication_required"}
    return declined(outcome["reason"])
