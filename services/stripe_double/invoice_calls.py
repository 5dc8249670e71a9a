"""What may a caller do with invoices? Read them and their payments, finalize, void, give up."""

from services.stripe_double import collection, events, invoices, standing
from services.stripe_double.account import Account, Json
from services.stripe_double.listing import filtered, of_customer, page
from services.stripe_double.params import Params

STATUSES = ("draft", "open", "paid", "uncollectible", "void")


def listed(account: Account, params: Params) -> Json:
    """GET /v1/invoices."""
    found = of_customer(account, params, "invoice")
    params.choice("status", STATUSES)
    found = filtered(params, found, "status", "collection_method")
    subscription = params.text("subscription")
    if subscription is not None:
        found = [
            invoice for invoice in found if invoice["parent"]["subscription_details"]["subscription"] == subscription
        ]
    return page(account, params, "/v1/invoices", found)


def list_lines(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/invoices/{id}/lines: all of them, as the nested list is cut at ten."""
    lines = account.get("invoice", identifier)["lines"]
    return page(account, params, f"/v1/invoices/{identifier}/lines", lines)


def list_payments(account: Account, params: Params) -> Json:
    """GET /v1/invoice_payments, by `invoice` or by `payment[payment_intent]`."""
    invoice = params.text("invoice")
    found = account.all("invoice_payment") if invoice is None else account.owned("invoice_payment", invoice)
    found = filtered(params, found, "status")
    payment = params.child("payment")
    if payment is not None:
        payment.choice("type", ("payment_intent",))
        intent = payment.needed("payment_intent")
        payment.finish()
        found = [entry for entry in found if entry["payment"]["payment_intent"] == intent]
    return page(account, params, "/v1/invoice_payments", found)


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}: `metadata`, `description`, `auto_advance`."""
    before = account.get("invoice", identifier)
    changes = {
        **params.given(("description",)),
        "auto_advance": params.flag("auto_advance", default=before["auto_advance"]),
        "metadata": params.metadata(before["metadata"]),
    }
    params.finish()
    if not changes["auto_advance"]:
        changes |= {"automatically_finalizes_at": None, "next_payment_attempt": None}
    return events.changed(account, "invoice.updated", before, account.update(before, **changes))


def finalize(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/finalize: out of turn; with `auto_advance` it is charged too."""
    advance = params.flag("auto_advance", default=False)
    params.finish()
    invoice = account.get("invoice", identifier)
    if advance:
        return collection.settle(account, invoice)
    invoice = invoices.finalize(account, invoice)
    if invoice["status"] == "paid":
        standing.paid(account, invoice)
    return invoice


def void(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/void."""
    params.finish()
    return invoices.void(account, account.get("invoice", identifier))


def give_up(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/mark_uncollectible."""
    params.finish()
    return invoices.give_up(account, account.get("invoice", identifier))
