"""Hosted invoice page, its PDF, and receipts (docs.stripe.com/invoicing/hosted-invoice-page, docs.stripe.com/receipts).

An open or uncollectible invoice can be paid with a test card, which makes a payment attempt outside the retry schedule
as `POST /v1/invoices/{id}/pay` does: a declined card is on record, and a card that needs 3D Secure waits for it.
"""

from http import HTTPStatus

from services.stripe_double import billing, invoices
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.pages.cards import InvalidCard, read_card
from services.stripe_double.pages.checkout import NOT_AUTHENTICATED
from services.stripe_double.pages.pages import PageRequest, card_text, day, money, not_found, page, redirect
from services.stripe_double.pages.pdf import text_pdf
from services.stripe_double.payment_methods import get_or_create
from services.stripe_double.rendering import INVOICE_PAGE

STAND_IN = "No money moves: this document is of a stand-in for Stripe."
PAYABLE = ("open", "uncollectible")


def invoice_page(account: Account, request: PageRequest, identifier: str) -> Response:
    """Show a finalized invoice, or pay it. Anyone who knows its ID may open its page."""
    invoice = account.find("invoice", identifier)
    if invoice is None or invoice["status"] == "draft":
        return not_found()
    if request.posts and invoice["status"] in PAYABLE:
        return _pay(account, invoice, request.form)
    return _show(account, invoice, request.form)


def _pay(account: Account, invoice: Json, form: dict[str, str]) -> Response:
    if form.get("authentication") == "fail":
        return _show(account, invoice, form, error=NOT_AUTHENTICATED)
    try:
        method = read_card(form, account.now)
        error = _charge(account, invoice, method, authenticated=form.get("authentication") == "complete")
    except InvalidCard as invalid:
        return _show(account, invoice, form, error=str(invalid))
    except StripeApiError as refused:
        return _show(account, invoice, form, error=refused.message)
    after = account.get("invoice", invoice["id"])
    if error is not None:
        return _show(account, after, form, error=error)
    intent = invoices.payment_intent_of(account, after)
    if intent is not None and intent["status"] == "requires_action":
        return _show(account, after, form, authenticates=True)
    return redirect(f"{INVOICE_PAGE}{invoice['id']}")


def _charge(account: Account, invoice: Json, method: str, *, authenticated: bool) -> str | None:
    """Charge a test payment method; return the message of a declined charge, which stays on record."""
    with account.change():
        intent = invoices.payment_intent_of(account, invoice)
        if intent is None:
            raise StripeApiError("This invoice has nothing to pay.")
        try:
            billing.pay(account, intent, get_or_create(account, method), authenticated=authenticated)
        except StripeApiError as error:
            if not error.keeps_changes:
                raise
            return error.message
    return None


def _show(
    account: Account, invoice: Json, form: dict[str, str], *, error: str | None = None, authenticates: bool = False
) -> Response:
    payable = invoice["status"] in PAYABLE and invoice["amount_remaining"] > 0
    intent = invoices.payment_intent_of(account, invoice)
    charge = account.find("charge", intent["latest_charge"] or "") if intent else None
    return page(
        "invoice.html",
        HTTPStatus.PAYMENT_REQUIRED if error else HTTPStatus.OK,
        error=error,
        invoice=invoice,
        authenticates=authenticates,
        payable=payable,
        form=form,
        due=money(invoice["amount_remaining"] if payable else invoice["total"], invoice["currency"]),
        lines=lines_of(invoice),
        sums=sums_of(account, invoice),
        receipt=charge["id"] if charge and charge["status"] == "succeeded" else None,
    )


def lines_of(invoice: Json) -> list[dict[str, str]]:
    """Return the lines of an invoice as texts: `description`, `period` and `amount`."""
    return [
        {
            "description": line["description"],
            "period": f"{day(line['period']['start'])} to {day(line['period']['end'])}",
            "amount": money(line["amount"], invoice["currency"]),
        }
        for line in invoice["lines"]
    ]


def sums_of(account: Account, invoice: Json) -> list[tuple[str, str]]:
    """Return the amounts below the lines of an invoice, with their names."""
    sums = [("Subtotal", invoice["subtotal"])]
    sums += [("Discount", -each["amount"]) for each in invoice["total_discount_amounts"]]
    for tax in invoice["total_taxes"]:
        rate = account.get("tax_rate", tax["tax_rate_details"]["tax_rate"])
        kind = "included" if tax["tax_behavior"] == "inclusive" else "added"
        sums.append((f"{rate['display_name']} {rate['percentage']:g} %, {kind}", tax["amount"]))
    sums.append(("Total", invoice["total"]))
    if invoice["starting_balance"]:
        sums.append(("Applied balance", invoice["amount_due"] - invoice["total"]))
    sums.append(("Amount due", invoice["amount_due"]))
    if invoice["amount_paid"]:
        sums.append(("Paid", -invoice["amount_paid"]))
    return [(name, money(amount, invoice["currency"])) for name, amount in sums]


def invoice_pdf(account: Account, _: PageRequest, identifier: str) -> Response:
    """Return the PDF of a finalized invoice, one page of text."""
    invoice = account.find("invoice", identifier)
    if invoice is None or invoice["status"] == "draft":
        return not_found()
    text = [
        f"Invoice {invoice['number']}",
        "",
        f"Status: {invoice['status']}",
        f"Date: {day(invoice['effective_at'])}",
        f"Bill to: {invoice['customer_name'] or invoice['customer_email'] or invoice['customer']}",
        "",
        *(f"{line['description']} ({line['period']}): {line['amount']}" for line in lines_of(invoice)),
        "",
        *(f"{name}: {amount}" for name, amount in sums_of(account, invoice)),
        "",
        STAND_IN,
    ]
    return _pdf(f"Invoice-{invoice['number']}", text)


def credit_note_pdf(account: Account, _: PageRequest, identifier: str) -> Response:
    """Return the PDF of a credit note."""
    note = account.find("credit_note", identifier)
    if note is None:
        return not_found()
    invoice = account.get("invoice", note["invoice"])
    text = [
        f"Credit note {note['number']} for invoice {invoice['number']}",
        "",
        f"Status: {note['status']}",
        f"Date: {day(note['effective_at'])}",
        f"Amount: {money(note['amount'], note['currency'])}",
    ]
    return _pdf(f"Credit-note-{note['number']}", [*text, "", STAND_IN])


def _pdf(name: str, lines: list[str]) -> Response:
    headers = {
        "Content-Type": "application/pdf",
        "Content-Disposition": f'attachment; filename="{name}.pdf"',
        "Cache-Control": "no-store",
    }
    return Response(HTTPStatus.OK, text_pdf(lines), headers)


def receipt_page(account: Account, _: PageRequest, identifier: str) -> Response:
    """Show the receipt of a charge that succeeded, with its refunds and its dispute."""
    charge = account.find("charge", identifier)
    if charge is None or charge["status"] != "succeeded":
        return not_found()
    intent = account.get("payment_intent", charge["payment_intent"])
    method = account.find("payment_method", charge["payment_method"])
    refunds = [each for each in account.owned("refund", identifier) if each["status"] == "succeeded"]
    return page(
        "receipt.html",
        charge=charge,
        amount=money(charge["amount"], charge["currency"]),
        method=card_text(method) if method else None,
        refunds=[(day(each["created"]), money(each["amount"], each["currency"])) for each in refunds],
        disputes=account.owned("dispute", identifier),
        invoice=account.find("invoice", intent["_invoice"] or ""),
    )


def payment_page(account: Account, request: PageRequest, identifier: str) -> Response:
    """Show a payment, which mails to operators link in the dashboard: the receipt of its latest charge."""
    intent = account.find("payment_intent", identifier)
    return receipt_page(account, request, (intent["latest_charge"] or "") if intent else identifier)
