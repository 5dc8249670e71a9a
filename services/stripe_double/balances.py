"""What does a customer owe, or have to its credit? Adjustments of the balance that invoices draw on.

Stripe lists what invoices do to the balance here as well; the double lists the adjustments alone.
"""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.customers import living
from services.stripe_double.listing import page
from services.stripe_double.params import Params

KIND = "customer_balance_transaction"


def adjust(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/customers/{id}/balance_transactions: above zero the customer owes more, below it has more credit."""
    customer = living(account, identifier)
    amount = params.integer("amount")
    if amount is None:
        raise params.refuse("amount", "Missing required param: amount.", "parameter_missing")
    currency = params.needed("currency")
    balance = customer["balance"] + amount
    entry = account.new(
        KIND,
        amount=amount,
        checkout_session=None,
        credit_note=None,
        currency=currency,
        customer=identifier,
        description=params.text("description"),
        ending_balance=balance,
        invoice=None,
        metadata=params.metadata(),
        type="adjustment",
    )
    params.finish()
    after = account.update(customer, balance=balance, currency=currency)
    events.changed(account, "customer.updated", customer, after)
    return account.put(entry)


def listed(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/customers/{id}/balance_transactions."""
    living(account, identifier)
    path = f"/v1/customers/{identifier}/balance_transactions"
    return page(account, params, path, account.owned(KIND, identifier))
