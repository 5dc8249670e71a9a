"""A request for a page of a portal session, and a subscription as these pages show it."""

from dataclasses import dataclass
from http import HTTPStatus

from services.stripe_double import portal_actions, portal_configurations
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.invoice_previews import create_preview
from services.stripe_double.pages.pages import PageRequest, day, interval, money, page, product_name, redirect, units
from services.stripe_double.params import Params
from services.stripe_double.prices import amount_of, is_metered
from services.stripe_double.rendering import PORTAL_PAGE
from services.stripe_double.subscription_items import period_end

NOTICES = {
    "canceled": "Your subscription has been canceled.",
    "cancels": "Your subscription will be canceled at the end of the period.",
    "renewed": "Your subscription has been renewed.",
    "updated": "Your subscription has been updated.",
    "card": "Your payment method has been updated.",
}


@dataclass(frozen=True)
class Visit:
    """One request for a page of a portal session."""

    account: Account
    request: PageRequest
    session: Json
    customer: Json

    @property
    def base(self) -> str:
        """Path of the session's first page."""
        return f"{PORTAL_PAGE}{self.session['_token']}"

    @property
    def features(self) -> Json:
        """The features of the session's configuration."""
        return portal_configurations.features_of(self.account, self.session["configuration"])

    @property
    def flow(self) -> Json | None:
        """The only task of the session; None for the whole portal."""
        flow: Json | None = self.session["flow"]
        return flow

    def show(self, template: str, *, error: str | None = None, **values: object) -> Response:
        """Return a page of the session."""
        configuration = self.account.find(portal_configurations.KIND, self.session["configuration"])
        profile = configuration["business_profile"] if configuration else {}
        return page(
            template,
            HTTPStatus.PAYMENT_REQUIRED if error else HTTPStatus.OK,
            **{"error": error, "form": self.request.form, **values},
            base=self.base,
            customer=self.customer,
            features=self.features,
            flow=self.flow,
            headline=profile.get("headline"),
            return_url=self.session["return_url"] or (configuration or {}).get("default_return_url"),
        )

    def done(self, notice: str) -> Response:
        """Return the redirect after a task, as the flow says."""
        completion: Json = self.flow["after_completion"] if self.flow else {"type": "portal_homepage"}
        if completion["type"] == "redirect" and completion["redirect"] is not None:
            return redirect(completion["redirect"]["return_url"])
        end = "/done" if completion["type"] == "hosted_confirmation" else "/home" if self.flow else ""
        return redirect(f"{self.base}{end}?done={notice}")


def shown(visit: Visit, subscription: Json) -> Json:
    """Return a subscription as the portal's first page shows it."""
    account, features = visit.account, visit.features
    prices = [(account.get("price", item["price"]), item["quantity"]) for item in subscription["items"]]
    recurring = prices[0][0]["recurring"]
    fixed = sum(amount_of(price, quantity or 0) for price, quantity in prices if not is_metered(price))
    currency = prices[0][0]["currency"]
    managed = subscription["schedule"] is not None
    cancels = subscription["cancel_at"] is not None
    return {
        "id": subscription["id"],
        "status": subscription["status"],
        "name": ", ".join(units(product_name(account, price), quantity) for price, quantity in prices),
        "price": money(fixed, currency),
        "every": interval(recurring),
        "next": _next_payment(account, subscription),
        "cancels": day(subscription["cancel_at"]) if cancels else None,
        "trial": day(subscription["trial_end"]) if subscription["status"] == "trialing" else None,
        "may_cancel": features["subscription_cancel"]["enabled"] and not cancels and not managed,
        "may_renew": features["subscription_cancel"]["enabled"] and cancels and not managed,
        "may_update": portal_actions.may_update(account, features, subscription),
        "open_invoice": _open_invoice(account, subscription),
    }


def _next_payment(account: Account, subscription: Json) -> str | None:
    """Return date and amount of the next payment; None if there will be none."""
    try:
        preview = preview_of(account, subscription, {})
    except StripeApiError:
        return None
    return f"{day(period_end(subscription))}, {money(preview['amount_due'], preview['currency'])}"


def preview_of(account: Account, subscription: Json, details: Json) -> Json:
    """Return the preview of a subscription's next invoice, or of a change, which is undone."""
    with account.change():
        params: Json = {"subscription": subscription["id"]}
        if details:
            params["subscription_details"] = details
        return create_preview(account, Params(params))


def _open_invoice(account: Account, subscription: Json) -> str | None:
    invoice = account.find("invoice", subscription["latest_invoice"] or "")
    return invoice["id"] if invoice and invoice["status"] == "open" else None
