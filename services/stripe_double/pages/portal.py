"""The customer portal: the pages of a portal session (docs.stripe.com/customer-management).

The session's configuration decides what the person may do: cancel, renew, change the plan, replace the card, see the
invoices. Without a configuration of the account everything is allowed, and every active price of the subscription's
currency is for sale. A session whose `flow_data` names one task shows only that one, and ends as `after_completion`
says (docs.stripe.com/customer-management/portal-deep-links).
"""

import time
from collections.abc import Callable
from http import HTTPStatus

from services.stripe_double import portal_actions, portal_configurations, portal_sessions
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.pages.cards import InvalidCard, read_card
from services.stripe_double.pages.checkout import NOT_AUTHENTICATED
from services.stripe_double.pages.pages import PageRequest, card_text, day, message, money, not_found, page, redirect
from services.stripe_double.pages.portal_plans import confirm, update
from services.stripe_double.pages.portal_visit import NOTICES, Visit, shown
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import TEST_PAYMENT_METHODS, default_of
from services.stripe_double.rendering import PORTAL_PAGE
from services.stripe_double.subscription_items import period_end
from services.stripe_double.subscription_status import ENDED

REASONS = {
    "customer_service": "Customer service was less than expected",
    "low_quality": "Quality was less than expected",
    "missing_features": "I need more features",
    "switched_service": "I found an alternative",
    "too_complex": "Ease of use was less than expected",
    "too_expensive": "It's too expensive",
    "unused": "I no longer need it",
    "other": "Other reason",
}
"""Texts of the reasons for a cancellation."""
_SHOWN_INVOICES = 24
_TASKS = {
    "payment_method_update": ("payment-methods", None),
    "subscription_cancel": ("cancel", "subscription_cancel"),
    "subscription_update": ("update", "subscription_update"),
    "subscription_update_confirm": ("confirm", "subscription_update_confirm"),
}
"""Page of each flow, and the member of the flow that has the subscription."""


def portal_page(account: Account, request: PageRequest, path: str) -> Response:
    """Show a page of the portal, or do what its form orders. The path is the session's token, then the page."""
    token, _, rest = path.partition("/")
    session = portal_sessions.open_session(account, token, time.time())
    if session is None:
        text = (
            "A link to the portal works for five minutes, and after that for an hour of use. Open it again in the app."
        )
        return message("This link has expired", text, HTTPStatus.NOT_FOUND)
    customer = account.get("customer", session["customer"])
    if customer.get("deleted"):
        return message("This customer was deleted", "There is nothing left to manage.", HTTPStatus.NOT_FOUND)
    visit = Visit(account, request, session, customer)
    if not rest and visit.flow is not None:
        return redirect(f"{visit.base}/{_path_of(visit.flow)}")
    part, _, name = rest.partition("/")
    try:
        if part == "subscriptions":
            identifier, _, task = name.partition("/")
            return _subscription_page(visit, identifier, task)
        show = _PAGES.get(rest)
        return not_found() if show is None else show(visit)
    except StripeApiError as error:
        return _home(visit, error=error.message)


def _path_of(flow: Json) -> str:
    task, member = _TASKS[str(flow["type"])]
    return task if member is None else f"subscriptions/{flow[member]['subscription']}/{task}"


def _subscription_page(visit: Visit, identifier: str, task: str) -> Response:
    subscription = visit.account.find("subscription", identifier)
    show = _SUBSCRIPTION_PAGES.get(task)
    if subscription is None or subscription["customer"] != visit.customer["id"] or show is None:
        return not_found()
    if subscription["status"] in ENDED:
        return _home(visit, error="This subscription has ended.")
    return show(visit, subscription)


def _home(visit: Visit, error: str | None = None) -> Response:
    account = visit.account
    subscriptions = account.owned("subscription", visit.customer["id"])
    method = default_of(account, None, visit.customer["id"])
    of_subscription = next(
        (each for one in subscriptions if (each := default_of(account, one, visit.customer["id"])) is not None), None
    )
    default = method or of_subscription
    return visit.show(
        "portal.html",
        error=error,
        notice=NOTICES.get(visit.request.query.get("done", "")),
        subscriptions=[shown(visit, each) for each in subscriptions if each["status"] not in ENDED],
        method=card_text(default) if default else None,
        invoices=[
            {
                "id": each["id"],
                "date": day(each["effective_at"] or each["created"]),
                "amount": money(each["total"], each["currency"]),
                "status": each["status"],
            }
            for each in account.owned("invoice", visit.customer["id"])[:_SHOWN_INVOICES]
            if each["status"] != "draft"
        ],
    )


def _done(visit: Visit) -> Response:
    return visit.show("portal_done.html", notice=NOTICES.get(visit.request.query.get("done", ""), "Done."))


def _card(visit: Visit) -> Response:
    """Save a card as the default of the customer and of all subscriptions; a declined one is refused."""
    if not visit.features["payment_method_update"]["enabled"]:
        return not_found()
    form = visit.request.form
    if not visit.request.posts:
        return visit.show("portal_card.html", authenticates=False)
    if form.get("authentication") == "fail":
        return visit.show("portal_card.html", error=NOT_AUTHENTICATED, authenticates=False)
    try:
        method = read_card(form, visit.account.now)
        if TEST_PAYMENT_METHODS[method].outcome == "authenticates" and form.get("authentication") != "complete":
            return visit.show("portal_card.html", authenticates=True)
        with visit.account.change():
            portal_actions.change_card(visit.account, visit.customer["id"], method)
    except InvalidCard as error:
        return visit.show("portal_card.html", error=str(error), authenticates=False)
    except StripeApiError as error:
        return visit.show("portal_card.html", error=error.message, authenticates=False)
    return visit.done("card")


def _cancel(visit: Visit, subscription: Json) -> Response:
    feature = visit.features["subscription_cancel"]
    if not feature["enabled"]:
        return not_found()
    at_once = feature["mode"] == "immediately"
    if visit.request.posts:
        form = visit.request.form
        with visit.account.change():
            portal_actions.cancel(
                visit.account,
                subscription["id"],
                feature,
                feedback=form.get("feedback") if form.get("feedback") in REASONS else None,
                comment=form.get("comment", "")[:500],
            )
        return visit.done("canceled" if at_once else "cancels")
    reason = feature["cancellation_reason"]
    return visit.show(
        "portal_cancel.html",
        subscription=shown(visit, subscription),
        at_once=at_once,
        end=day(period_end(subscription)),
        reasons=[(name, REASONS[name]) for name in reason["options"]] if reason["enabled"] else [],
    )


def _renew(visit: Visit, subscription: Json) -> Response:
    if not visit.features["subscription_cancel"]["enabled"] or not visit.request.posts:
        return not_found()
    with visit.account.change():
        portal_actions.renew(visit.account, subscription["id"])
    return visit.done("renewed")


_PAGES: dict[str, Callable[[Visit], Response]] = {
    "": _home,
    "home": _home,
    "done": _done,
    "payment-methods": _card,
}
_SUBSCRIPTION_PAGES: dict[str, Callable[[Visit, Json], Response]] = {
    "cancel": _cancel,
    "renew": _renew,
    "update": update,
    "confirm": confirm,
}


def login_page(account: Account, request: PageRequest, identifier: str) -> Response:
    """Show the login page of a configuration; Stripe mails a link to the portal, the double opens it at once."""
    configuration = account.find(portal_configurations.KIND, identifier)
    if configuration is None or not configuration["login_page"]["enabled"]:
        return not_found()
    if not request.posts:
        return page("portal_login.html", email="")
    email = request.form.get("email", "")
    found = (each for each in account.all("customer") if not each.get("deleted") and each["email"] == email)
    customer = next(found, None) if email else None
    if customer is None:
        error = "No customer has this address."
        return page("portal_login.html", HTTPStatus.NOT_FOUND, error=error, email=email)
    with account.change():
        session = portal_sessions.create_portal_session(
            account, Params({"customer": customer["id"], "configuration": configuration["id"]})
        )
    return redirect(f"{PORTAL_PAGE}{session['_token']}")
