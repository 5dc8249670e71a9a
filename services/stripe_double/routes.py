"""Which function answers which path? The one table of the API that the double plays."""

from collections.abc import Callable

from services.stripe_double import (
    balances,
    cancellations,
    catalog,
    charges,
    collection,
    customers,
    discounts,
    disputes,
    endpoints,
    events,
    invoice_calls,
    items,
    partial,
    payment_methods,
    payments,
    portal,
    refunds,
    signup,
    subscriptions,
)
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.listing import page
from services.stripe_double.params import Params

Handler = Callable[..., Json]
"""Takes the account, the parameters and the ids in the path; returns an object or a list."""


def reading(kind: str) -> Handler:
    """Makes the handler that answers the object that a path names."""

    def retrieve(account: Account, params: Params, identifier: str) -> Json:
        params.finish()
        return account.get(kind, identifier)

    return retrieve


def listing(kind: str, url: str) -> Handler:
    """Makes the handler that lists all objects of a kind."""

    def listed(account: Account, params: Params) -> Json:
        return page(account, params, url, account.all(kind))

    return listed


def own_account(account: Account, params: Params) -> Json:
    """GET /v1/account: whose key it is."""
    params.finish()
    return account.all("account")[0]


ROUTES: dict[str, Handler] = {
    "GET /v1/account": own_account,
    "POST /v1/billing_portal/sessions": portal.create,
    "GET /v1/charges": charges.listed,
    "GET /v1/charges/{}": reading("charge"),
    "POST /v1/charges/{}": charges.update,
    "GET /v1/charges/{}/refunds": refunds.listed_of_charge,
    "GET /v1/coupons": listing("coupon", "/v1/coupons"),
    "POST /v1/coupons": discounts.create_coupon,
    "GET /v1/coupons/{}": reading("coupon"),
    "GET /v1/customers": customers.listed,
    "POST /v1/customers": customers.create,
    "GET /v1/customers/{}": customers.retrieve,
    "POST /v1/customers/{}": customers.update,
    "DELETE /v1/customers/{}": customers.delete,
    "GET /v1/customers/{}/balance_transactions": balances.listed,
    "POST /v1/customers/{}/balance_transactions": balances.adjust,
    "GET /v1/customers/{}/payment_methods": payment_methods.listed_of_customer,
    "GET /v1/disputes": disputes.listed,
    "GET /v1/disputes/{}": reading("dispute"),
    "POST /v1/disputes/{}": disputes.update,
    "POST /v1/disputes/{}/close": disputes.close_by_call,
    "GET /v1/events": events.listed,
    "GET /v1/events/{}": events.retrieve,
    "GET /v1/invoice_payments": invoice_calls.list_payments,
    "GET /v1/invoice_payments/{}": reading("invoice_payment"),
    "GET /v1/invoices": invoice_calls.listed,
    "GET /v1/invoices/{}": reading("invoice"),
    "POST /v1/invoices/{}": invoice_calls.update,
    "POST /v1/invoices/{}/attach_payment": partial.attach_by_call,
    "POST /v1/invoices/{}/finalize": invoice_calls.finalize,
    "GET /v1/invoices/{}/lines": invoice_calls.list_lines,
    "POST /v1/invoices/{}/mark_uncollectible": invoice_calls.give_up,
    "POST /v1/invoices/{}/pay": collection.pay_invoice_by_call,
    "POST /v1/invoices/{}/void": invoice_calls.void,
    "GET /v1/payment_intents": payments.listed,
    "POST /v1/payment_intents": collection.create_by_call,
    "GET /v1/payment_intents/{}": reading("payment_intent"),
    "POST /v1/payment_intents/{}": payments.update,
    "POST /v1/payment_intents/{}/cancel": payments.cancel_by_call,
    "POST /v1/payment_intents/{}/confirm": collection.confirm_by_call,
    "GET /v1/payment_methods": payment_methods.listed,
    "POST /v1/payment_methods": payment_methods.create,
    "GET /v1/payment_methods/{}": payment_methods.retrieve,
    "POST /v1/payment_methods/{}/attach": payment_methods.attach_by_call,
    "POST /v1/payment_methods/{}/detach": payment_methods.detach_by_call,
    "GET /v1/prices": catalog.list_prices,
    "POST /v1/prices": catalog.create_price,
    "GET /v1/prices/{}": reading("price"),
    "POST /v1/prices/{}": catalog.update_price,
    "GET /v1/products": catalog.list_products,
    "POST /v1/products": catalog.create_product,
    "GET /v1/products/{}": reading("product"),
    "POST /v1/products/{}": catalog.update_product,
    "GET /v1/promotion_codes": discounts.list_promotion_codes,
    "POST /v1/promotion_codes": discounts.create_promotion_code,
    "GET /v1/promotion_codes/{}": reading("promotion_code"),
    "POST /v1/promotion_codes/{}": discounts.update_promotion_code,
    "GET /v1/refunds": refunds.listed,
    "POST /v1/refunds": refunds.create,
    "GET /v1/refunds/{}": reading("refund"),
    "POST /v1/refunds/{}": refunds.update,
    "GET /v1/subscription_items": items.listed,
    "GET /v1/subscription_items/{}": items.retrieve,
    "GET /v1/subscriptions": subscriptions.listed,
    "POST /v1/subscriptions": signup.create,
    "GET /v1/subscriptions/{}": subscriptions.retrieve,
    "POST /v1/subscriptions/{}": subscriptions.update,
    "DELETE /v1/subscriptions/{}": cancellations.cancel,
    "POST /v1/subscriptions/{}/pause": cancellations.pause,
    "POST /v1/subscriptions/{}/resume": cancellations.resume,
    "GET /v1/webhook_endpoints": endpoints.listed,
    "POST /v1/webhook_endpoints": endpoints.create,
    "GET /v1/webhook_endpoints/{}": reading("webhook_endpoint"),
    "POST /v1/webhook_endpoints/{}": endpoints.update,
    "DELETE /v1/webhook_endpoints/{}": endpoints.delete,
}


def find(method: str, path: str) -> tuple[Handler, list[str]]:
    """Returns the handler of a call and the ids in its path.

    Raises:
        StripeApiError: 404, when the double plays no such path.
    """
    handler = ROUTES.get(f"{method} {path}")
    if handler is not None:
        return handler, []
    parts = path.split("/")
    # In every path with an id it is the third part: /v1/customers/{id}/payment_methods.
    if len(parts) > _ID_AT and parts[_ID_AT]:
        identifier, parts[_ID_AT] = parts[_ID_AT], "{}"
        handler = ROUTES.get(f"{method} {'/'.join(parts)}")
        if handler is not None:
            return handler, [identifier]
    raise StripeApiError(
        f"Unrecognized request URL ({method}: {path}). The Stripe double does not play it.", status=404
    )


_ID_AT = 3
