"""Credit notes: an invoice is credited in full or in part, and a credit note is voided."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_equal, list_page

REASONS = ("duplicate", "fraudulent", "order_change", "product_unsatisfactory")


def create_credit_note(account: Account, params: Params) -> Json:
    """POST /v1/credit_notes: `invoice`, `amount`, `reason`, `memo`, `metadata`.

    For an open invoice the amount lowers what is to be paid; for a paid one it goes to the customer's balance.
    """
    invoice = account.get("invoice", params.required("invoice"), param="invoice")
    amount = params.integer("amount")
    reason, memo = params.choice("reason", REASONS), params.string("memo")
    metadata = params.metadata({})
    params.reject_unknown()
    if invoice["status"] not in ("open", "paid"):
        raise params.invalid("invoice", "Credit notes can only be created for finalized invoices.")
    credited = sum(each["amount"] for each in account.owned("credit_note", invoice["id"]) if each["status"] == "issued")
    available = invoice["total"] - credited
    if amount is None or amount <= 0:
        raise params.invalid("amount", "You must provide a positive amount for the credit note.")
    if amount > available:
        raise params.invalid("amount", f"The credit note amount exceeds what can be credited ({available}).")
    paid = invoice["status"] == "paid"
    note = account.new(
        "credit_note",
        amount=amount,
        amount_shipping=0,
        currency=invoice["currency"],
        customer=invoice["customer"],
        customer_account=None,
        customer_balance_transaction=None,
        discount_amount=0,
        discount_amounts=[],
        effective_at=account.now,
        invoice=invoice["id"],
        lines={"object": "list", "data": [], "has_more": False, "url": "/v1/credit_notes/lines"},
        memo=memo,
        metadata=metadata,
        number=f"{invoice['number']}-CN-{len(account.owned('credit_note', invoice['id'])) + 1:02}",
        out_of_band_amount=None,
        post_payment_amount=amount if paid else 0,
        pre_payment_amount=0 if paid else amount,
        pretax_credit_amounts=[],
        reason=reason,
        refunds=[],
        shipping_cost=None,
        status="issued",
        subtotal=amount,
        subtotal_excluding_tax=amount,
        total=amount,
        total_excluding_tax=amount,
        total_taxes=[],
        type="post_payment" if paid else "pre_payment",
        voided_at=None,
    )
    account.put(note)
    _credit(account, invoice, note, amount)
    events.emit(account, "credit_note.created", note)
    return note


def void_credit_note(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/credit_notes/{id}/void: only of an open invoice (https://docs.stripe.com/api/credit_notes/void)."""
    params.reject_unknown()
    note = account.get("credit_note", identifier)
    invoice = account.get("invoice", note["invoice"])
    if note["status"] == "void" or invoice["status"] != "open":
        raise params.invalid("id", "You can only void an issued credit note of an open invoice.")
    voided = account.update(note, status="void", voided_at=account.now)
    _credit(account, invoice, voided, -note["amount"])
    events.emit(account, "credit_note.voided", voided, before=note)
    return voided


def list_credit_notes(account: Account, params: Params) -> Json:
    """GET /v1/credit_notes, by `customer` and `invoice`."""
    notes = filter_equal(params, account.all("credit_note"), "customer", "invoice")
    return list_page(account, params, "/v1/credit_notes", notes)


def _credit(account: Account, invoice: Json, note: Json, amount: int) -> None:
    member = "post_payment_credit_notes_amount" if note["type"] == "post_payment" else "pre_payment_credit_notes_amount"
    changes: Json = {member: invoice[member] + amount}
    if note["type"] == "pre_payment":
        changes |= {
            "amount_due": invoice["amount_due"] - amount,
            "amount_remaining": invoice["amount_remaining"] - amount,
        }
    account.update(invoice, **changes)
