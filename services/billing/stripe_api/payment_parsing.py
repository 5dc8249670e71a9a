"""Parsing of Stripe's invoices, payments, checkouts, disputes and credit notes, at the version in ``calls.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.billing.stripe_api.parsing import parse_customer, parse_optional_time, parse_time
from services.billing.stripe_api.payment_models import (
    InvoicePages,
    ListedInvoice,
    StripeCheckout,
    StripeCreditNote,
    StripeDispute,
    StripeInvoice,
    StripePayment,
)

Json = dict[str, Any]


def parse_payment(json: Json, invoice: StripeInvoice | None) -> StripePayment:
    """Parse a payment intent with ``customer`` and ``latest_charge`` expanded, and the invoice that it pays.

    Since API version 2025-03-31.basil a payment intent does not name its invoice.
    """
    charge: Json = json["latest_charge"] or {}
    # Stripe removes the error when a later attempt succeeds.
    error: Json = json["last_payment_error"] or {}
    return StripePayment(
        id=json["id"],
        customer=None if json["customer"] is None else parse_customer(json["customer"]),
        status=json["status"],
        amount=json["amount"],
        amount_received=json["amount_received"],
        amount_refunded=charge.get("amount_refunded", 0),
        currency=json["currency"],
        charge_id=charge.get("id"),
        # Some errors have a type but no code.
        failure_code=error.get("code") or error.get("type"),
        decline_code=error.get("decline_code"),
        attempted_at=parse_time(charge["created"] if charge else json["created"]),
        disputed=charge.get("disputed", False),
        user_id=json["metadata"].get("user_id") or None,
        invoice=invoice,
        created=parse_time(json["created"]),
        canceled_at=parse_optional_time(json["canceled_at"]),
        livemode=json["livemode"],
    )


def parse_invoice(json: Json, lines: list[Json]) -> StripeInvoice:
    """Parse an invoice, of a subscription or not; ``lines`` are those whose products matter."""
    details: Json = (json["parent"] or {}).get("subscription_details") or {}
    subscription = details.get("subscription")
    return StripeInvoice(
        id=json["id"],
        subscription_id=subscription["id"] if isinstance(subscription, dict) else subscription,
        user_id=(details.get("metadata") or {}).get("user_id") or None,
        renewal=json["billing_reason"] != "subscription_create",
        payment_link=json["hosted_invoice_url"] if json["status"] == "open" else None,
        products=frozenset(filter(None, map(_product_of_line, lines))),
        failed_attempts=json["attempt_count"] if json["status"] == "open" else 0,
        retried=json["next_payment_attempt"] is not None,
        page=json["hosted_invoice_url"],
        product_id=next(filter(None, map(_product_of_line, reversed(json["lines"]["data"]))), None),
    )


def parse_invoice_pages(json: Json) -> InvoicePages:
    """Parse the pages of an invoice."""
    return InvoicePages(
        customer_id=json["customer"], hosted_url=json["hosted_invoice_url"], pdf_url=json["invoice_pdf"]
    )


def parse_listed_invoice(json: Json) -> ListedInvoice:
    """Parse an invoice of a list."""
    details: Json = (json["parent"] or {}).get("subscription_details") or {}
    subscription = details.get("subscription")
    return ListedInvoice(
        id=json["id"],
        customer_id=json["customer"],
        subscription_id=subscription["id"] if isinstance(subscription, dict) else subscription,
        number=json["number"],
        status=json["status"],
        currency=json["currency"],
        total=json["total"],
        amount_due=json["amount_due"],
        amount_paid=json["amount_paid"],
        due_at=parse_optional_time(json["due_date"]),
        created=parse_time(json["created"]),
        products=frozenset(filter(None, map(_product_of_line, json["lines"]["data"]))),
    )


def parse_dispute(json: Json) -> StripeDispute:
    """Parse a dispute with ``charge`` expanded."""
    charge: Json = json["charge"]
    due_by = json["evidence_details"]["due_by"]
    withdrawals = [each for each in json["balance_transactions"] if each["amount"] < 0]
    returns = [each for each in json["balance_transactions"] if each["amount"] > 0]
    return StripeDispute(
        id=json["id"],
        status=json["status"],
        reason=json["reason"],
        amount=json["amount"],
        currency=json["currency"],
        charge_id=charge["id"],
        customer_id=charge["customer"],
        payment_intent_id=json["payment_intent"] or charge["payment_intent"],
        # Stripe sends 0 if no response is possible.
        respond_by=parse_time(due_by) if due_by else None,
        created=parse_time(json["created"]),
        livemode=json["livemode"],
        funds_withdrawn=-sum(each["amount"] for each in withdrawals),
        funds_reinstated=sum(each["amount"] for each in returns),
        funds_currency=next((each["currency"] for each in json["balance_transactions"]), None),
        withdrawn_at=_latest(withdrawals),
        reinstated_at=_latest(returns),
    )


def _latest(balance_transactions: list[Json]) -> datetime | None:
    return max((parse_time(each["created"]) for each in balance_transactions), default=None)


def parse_credit_note(json: Json) -> StripeCreditNote:
    """Parse a credit note."""
    return StripeCreditNote(
        id=json["id"],
        customer_id=json["customer"],
        invoice_id=json["invoice"],
        status=json["status"],
        reason=json["reason"],
        amount=json["amount"],
        currency=json["currency"],
        created=parse_time(json["created"]),
        voided_at=parse_time(json["voided_at"]) if json["voided_at"] else None,
        livemode=json["livemode"],
    )


def parse_checkout(json: Json) -> StripeCheckout:
    """Parse a Checkout Session with ``subscription.default_payment_method`` expanded."""
    subscription: Json = json["subscription"] or {}
    method = subscription.get("default_payment_method")
    details: Json = method.get(method["type"], {}) if isinstance(method, dict) else {}
    return StripeCheckout(
        id=json["id"],
        status=json["status"],
        url=json["url"],
        payment_status=json["payment_status"],
        expires_at=parse_time(json["expires_at"]),
        checkout_id=(json["metadata"] or {}).get("checkout_id"),
        customer_id=json["customer"],
        subscription_id=subscription.get("id"),
        trialing=subscription.get("status") == "trialing",
        card_fingerprint=details.get("fingerprint"),
    )


def _product_of_line(line: Json) -> str | None:
    """The product of an invoice line; None for an amount without a price."""
    product: str | None = ((line.get("pricing") or {}).get("price_details") or {}).get("product")
    return product
