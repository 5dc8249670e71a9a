"""Page of a Checkout Session, on which a person pays with Stripe's test cards; rendered here, without JavaScript."""

from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.stripe_double import checkout_sessions
from services.stripe_double.account import Account, Json
from services.stripe_double.api import Receive, Scope, Send, read_body, send_response
from services.stripe_double.checkout_creation import KIND
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.rendering import CHECKOUT_PAGE, checkout_line_item

CARDS = {
    "4242424242424242": "pm_card_visa",
    "4000056655665556": "pm_card_visa_debit",
    "5555555555554444": "pm_card_mastercard",
    "4000002760003184": "pm_card_authenticationRequired",
    "4000002500003155": "pm_card_authenticationRequired",
    "4000000000000002": "pm_card_chargeDeclined",
    "4000000000009995": "pm_card_chargeDeclinedInsufficientFunds",
    "4000000000000069": "pm_card_chargeDeclinedExpiredCard",
    "4000000000000341": "pm_card_chargeCustomerFail",
}
"""Test payment methods by card number (docs.stripe.com/testing)."""
ZERO_DECIMAL = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf")
)
"""Currencies whose smallest unit is the whole one (docs.stripe.com/currencies)."""
SESSION_ID = "{CHECKOUT_SESSION_ID}"
_TEMPLATE = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
).get_template("checkout.html")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class CheckoutPage:
    """ASGI application: the pages of an account's Checkout Sessions. Whoever knows a session's ID may open its page.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the page, or pay and redirect (303) to the session's `success_url`."""
        form = {name: values[-1] for name, values in parse_qs((await read_body(receive)).decode("latin-1")).items()}
        session = self._account.find(KIND, scope["path"].removeprefix(CHECKOUT_PAGE))
        if session is None:
            response = _page(HTTPStatus.NOT_FOUND, heading="There is no such page")
        elif session["status"] == "open" and scope["method"] == "POST":
            response = self._pay(session, form)
        else:
            response = self._show(session, form)
        await send_response(send, response, {})

    def _pay(self, session: Json, form: dict[str, str]) -> Response:
        method = CARDS.get("".join(form.get("card", "").split()))
        if method is None:
            return self._show(session, form, error="Your card number is invalid.")
        if form.get("authentication") == "fail":
            return self._show(session, form, error="We are unable to authenticate your payment method.")
        try:
            with self._account.change():
                paid = checkout_sessions.complete(
                    self._account,
                    session,
                    method,
                    authenticated=form.get("authentication") == "complete",
                    email=form.get("email"),
                    promotion_code=form.get("promotion_code") or None,
                )
        except checkout_sessions.AuthenticationRequired:
            return self._show(session, form, state="authenticate")
        except StripeApiError as error:
            return self._show(session, form, error=error.message)
        return Response(303, b"", {"Location": paid["success_url"].replace(SESSION_ID, paid["id"])})

    def _show(
        self, session: Json, form: dict[str, str], *, state: str | None = None, error: str | None = None
    ) -> Response:
        trial_days = session["_subscription_data"].get("trial_period_days")
        button = "Pay" if session["mode"] == "payment" else "Start trial" if trial_days else "Subscribe"
        headings = {"open": button, "authenticate": "Authenticate your payment"}
        state = state or session["status"]
        items = [checkout_line_item(self._account, item) for item in session["_items"]]
        return _page(
            HTTPStatus.PAYMENT_REQUIRED if error else HTTPStatus.OK,
            heading=headings.get(state, f"This checkout is {state}"),
            state=state,
            error=error,
            items=[
                {
                    "name": each["description"],
                    "quantity": each["quantity"],
                    "amount": _money(each["amount_total"], each),
                }
                for each in items
            ],
            total=_money(session["amount_total"], session),
            note=f"{trial_days} days free" if trial_days and state == "open" else None,
            button=button,
            card=form.get("card", ""),
            email=form.get("email", session["customer_email"] or ""),
            asks_email=session["customer"] is None,
            promotion_codes=bool(session["allow_promotion_codes"]),
            promotion_code=form.get("promotion_code", ""),
            cancel_url=session["cancel_url"],
        )


def _money(amount: int, priced: Json) -> str:
    currency = priced["currency"]
    text = str(amount) if currency in ZERO_DECIMAL else f"{Decimal(amount) / 100:.2f}"
    return f"{text} {currency.upper()}"


def _page(status: HTTPStatus, **values: Any) -> Response:
    defaults = dict.fromkeys(("state", "error", "items", "note", "cancel_url"))
    return Response(status, _TEMPLATE.render({**defaults, **values}).encode(), _HEADERS)
