"""Pages of a checkout: its Checkout Session in Stripe, made exactly once, or the portal's change of a subscription."""

from __future__ import annotations

from typing import Final

from services.billing.checkout.models import Basket, Checkout
from services.billing.context import Billing
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.checkout_sessions import CHECKOUT_ID
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.stripe_api.parsing import Json
from services.billing.stripe_api.payment_models import StripeCheckout
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.fault_points import fault_point

LOCALES: Final = frozenset(
    (
        *("bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr", "fr-CA", "hr", "hu"),
        *(
            "id",
            "it",
            "ja",
            "ko",
            "lt",
            "lv",
            "ms",
            "mt",
            "nb",
            "nl",
            "pl",
            "pt",
            "pt-BR",
            "ro",
            "ru",
            "sk",
            "sl",
            "sv",
        ),
        *("th", "tr", "vi", "zh", "zh-HK", "zh-TW"),
    )
)
"""Languages of Stripe's pages (https://docs.stripe.com/js/appendix/supported_locales)."""


def page_locale(locale: str | None) -> str:
    """Stripe's name of the language closest to a language tag; ``auto``, the browser's, if it has none."""
    if locale is None:
        return "auto"
    language, _, region = locale.partition("-")
    named = {"no": "nb", "nn": "nb"}.get(language, language)
    if locale.startswith("zh-Hant"):
        return "zh-HK" if locale.endswith("HK") else "zh-TW"
    candidates = (f"{named}-{region.rpartition('-')[2]}", named)
    return next((each for each in candidates if each in LOCALES), "auto")


async def open_session(checkout: Checkout, customer_id: str, *, stripe: Stripe, work: Work, billing: Billing) -> str:
    """Create the session of a pending checkout, or find that of an earlier attempt; return its ID.

    Pages of earlier orders that are still open are closed first, so that nobody pays for both.

    Raises:
        StripeRefused: Stripe does not sell these prices to this customer.
        StripeUnavailable: Stripe is unavailable; the next attempt finds what this one created.
    """
    if await billing.checkouts.replaced_any(checkout.user_id):
        for session_id, checkout_id in (await stripe.open_checkouts(customer_id)).items():
            if checkout_id != checkout.id:
                await stripe.expire_checkout(session_id)

    async def find() -> str | None:
        opened = await stripe.open_checkouts(customer_id)
        return next((session_id for session_id, checkout_id in opened.items() if checkout_id == checkout.id), None)

    params, period = _params(checkout, customer_id, billing), checkout.key_period(work.now)
    key = f"{checkout.id}:session" if period == 0 else f"{checkout.id}:session:{period}"
    session_id = await idempotent_create(
        find=find,
        create=lambda generation: stripe.create_checkout(params, key=key_of_generation(key, generation)),
        find_first=period > 0,
    )
    fault_point("B1")
    return session_id


def _params(checkout: Checkout, customer_id: str, billing: Billing) -> Json:
    metadata = {"user_id": checkout.user_id, CHECKOUT_ID: checkout.id}
    params: Json = {
        "mode": checkout.mode,
        "customer": customer_id,
        "client_reference_id": checkout.user_id,
        "metadata": metadata,
        "line_items": [
            {"price": item.stp_price_id, **({} if item.quantity is None else {"quantity": item.quantity})}
            for item in checkout.items
        ],
        "success_url": checkout.success_url,
        "cancel_url": checkout.cancel_url,
        "locale": page_locale(checkout.locale),
    }
    if billing.checkout_settings.promotion_codes:
        params["allow_promotion_codes"] = True
    if billing.checkout_settings.automatic_tax:
        params["automatic_tax"] = {"enabled": True}
        # Tax depends on the address that the person enters.
        params["customer_update"] = {"address": "auto"}
    if checkout.mode == "payment":
        params["payment_intent_data"] = {"metadata": metadata}
        return params
    params["subscription_data"] = {"metadata": metadata}
    if checkout.trial_days is not None:
        params["subscription_data"] |= {
            "trial_period_days": checkout.trial_days,
            # As for a trial without a checkout.
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
        }
    return params


async def change_url(subscription: Subscription, basket: Basket, *, stripe: Stripe, return_url: str) -> str:
    """The URL of a page of the customer portal that changes a subscription to the prices of a basket.

    If the portal can't confirm this change, it lets the person choose one; else it shows the subscriptions.

    Raises:
        StripeRefused: the portal is not configured.
        StripeUnavailable: as ``Stripe``.
    """
    for flow in (*_change_flows(subscription, basket), None):
        try:
            return await stripe.portal_flow_url(subscription.stp_customer_id, flow, return_url=return_url)
        except StripeRefused as refused:
            if flow is None:
                raise
            refused.report(subscription=subscription.id)
    raise AssertionError("the last flow returns or raises")


def _change_flows(subscription: Subscription, basket: Basket) -> list[Json]:
    """The portal's flows that may fit, the most precise one first; none for a subscription to several prices."""
    if len(subscription.items) != 1 or len(basket.items) != 1:
        return []
    (item,), (wanted,) = subscription.items, basket.items
    flows: list[Json] = []
    if wanted.quantity is not None and (item.stp_price_id, item.quantity) != (wanted.stp_price_id, wanted.quantity):
        change = {"id": item.stp_item_id, "price": wanted.stp_price_id, "quantity": wanted.quantity}
        flows.append(
            {
                "type": "subscription_update_confirm",
                "subscription_update_confirm": {
                    "subscription": subscription.stp_subscription_id,
                    "items": [change],
                },
            }
        )
    update = {"subscription": subscription.stp_subscription_id}
    return [*flows, {"type": "subscription_update", "subscription_update": update}]


def is_payable(session: StripeCheckout) -> bool:
    """Whether the page of a session is open."""
    return session.status == "open" and session.url is not None
