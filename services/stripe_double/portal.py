"""Where do customers manage their subscription? Billing-portal sessions: short-lived bearer links."""

from services.stripe_double.account import Account, Json
from services.stripe_double.ids import token
from services.stripe_double.params import Params


def create(account: Account, params: Params) -> Json:
    """POST /v1/billing_portal/sessions; nothing is kept of it, as it can't be read again."""
    customer = account.get("customer", params.needed("customer"), param="customer")
    session = account.new(
        "billing_portal.session",
        configuration=params.text("configuration") or "bpc_1StripeDouble",
        customer=customer["id"],
        customer_account=None,
        flow=params.raw("flow_data"),
        locale=params.text("locale"),
        on_behalf_of=None,
        return_url=params.text("return_url"),
        url=f"https://billing.stripe.com/p/session/test_{token(80)}",
    )
    params.finish()
    return session
