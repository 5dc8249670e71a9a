"""Page of a Checkout Session, on which a person pays with Stripe's test cards (docs.stripe.com/payments/checkout).

A declined card leaves the session open; a card that needs 3D Secure shows the bank's page first. A payment emits the
events of `checkout_sessions.complete` and redirects to the session's `success_url`.
"""

from http import HTTPStatus

from services.stripe_double import checkout_sessions
from services.stripe_double.account import Account, Json
from services.stripe_double.checkout_creation import KIND
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.pages.cards import InvalidCard, read_card
from services.stripe_double.pages.pages import PageRequest, interval, money, not_found, page, redirect
from services.stripe_double.rendering import checkout_line_item

SESSION_ID = "{CHECKOUT_SESSION_ID}"
NOT_AUTHENTICATED = "We are unable to authenticate your payment method. Choose a different one, and try again."


def checkout_page(account: Account, request: PageRequest, identifier: str) -> Response:
    """Show the page of a session, or pay and redirect. Anyone who knows a session's ID may open its page."""
    session = account.find(KIND, identifier)
    if session is None:
        return not_found()
    if session["status"] == "open" and request.posts:
        return _pay(account, session, request.form)
    return _show(account, session, request.form)


def _pay(account: Account, session: Json, form: dict[str, str]) -> Response:
    if form.get("authentication") == "fail":
        return _show(account, session, form, error=NOT_AUTHENTICATED)
    try:
        method = read_card(form, account.now)
        with account.change():
            paid = checkout_sessions.complete(
                account,
                session,
                method,
                authenticated=form.get("authentication") == "complete",
                email=form.get("email"),
                promotion_code=form.get("promotion_code") or None,
            )
    except checkout_sessions.AuthenticationRequired:
        return _show(account, session, form, state="authenticate")
    except InvalidCard as error:
        return _show(account, session, form, error=str(error))
    except StripeApiError as error:
        return _show(account, session, form, error=error.message)
    return redirect(paid["success_url"].replace(SESSION_ID, paid["id"]))


def _show(
    account: Account, session: Json, form: dict[str, str], *, state: str | None = None, error: str | None = None
) -> Response:
    trial_days = session["_subscription_data"].get("trial_period_days")
    button = "Pay" if session["mode"] == "payment" else "Start trial" if trial_days else "Subscribe"
    state = state or session["status"]
    items = [checkout_line_item(account, item) for item in session["_items"]]
    recurring = next((each["price"]["recurring"] for each in items if each["price"]["recurring"]), None)
    every = interval(recurring) if recurring else ""
    later = sum(each["amount_total"] for each in items if each["price"]["recurring"])
    headings = {
        "open": f"{button}: {items[0]['description']}" if len(items) == 1 else button,
        "authenticate": "Authenticate your payment",
    }
    return page(
        "checkout.html",
        HTTPStatus.PAYMENT_REQUIRED if error else HTTPStatus.OK,
        heading=headings.get(state, f"This checkout is {state}"),
        state=state,
        error=error,
        form={"email": session["customer_email"] or "", **form},
        items=[
            {
                "name": each["description"],
                "quantity": each["quantity"],
                "amount": money(each["amount_total"], each["currency"]),
            }
            for each in items
        ],
        total=money(session["amount_total"], session["currency"]),
        every="" if trial_days else every,
        note=f"{trial_days} days free, then {money(later, session['currency'])} {every}"
        if trial_days and state == "open"
        else None,
        button=button,
        asks_email=session["customer"] is None,
        promotion_codes=bool(session["allow_promotion_codes"]),
        cancel_url=session["cancel_url"],
    )
