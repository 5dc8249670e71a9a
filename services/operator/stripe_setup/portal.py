"""The configuration of the customer portal: the features that Nest relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.operator.stripe_setup.changes import MARK, Api, Change, Json, differences, listed, marked

KEY: Final = "portal"
PATH: Final = "/v1/billing_portal/configurations"


async def plan_portal(
    api: Api, return_url: str, products: Mapping[str, str], prices: Mapping[str, Sequence[str]]
) -> list[Change]:
    """The changes of the portal's default configuration, which Nest's sessions use.

    Persons may update their payment method, see their invoices, cancel at the end of the period, and change to another
    plan of the file; without a file the plan changes stay as they are.

    Args:
        api: the account.
        return_url: where the portal leads back to.
        products: IDs of the products of the file, by key; ``NEW`` for those that are not there yet.
        prices: IDs of their prices, by key of the product, likewise.
    """
    found = await listed(api, "portal_configurations", PATH, active=True)
    present = next((each for each in found if each["is_default"]), None) or marked(found, KEY)
    features: Json = {
        "payment_method_update": {"enabled": True},
        "invoice_history": {"enabled": True},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
    }
    sold = [
        {"product": identifier, "prices": sorted(prices.get(key, ()))}
        for key, identifier in products.items()
        if prices.get(key)
    ]
    if sold:
        features["subscription_update"] = {
            "enabled": True,
            "default_allowed_updates": ["price"],
            "proration_behavior": "create_prorations",
            "products": sold,
        }
    wanted: Json = {"default_return_url": return_url, "features": features, "metadata": {MARK: KEY}}
    if present is None:

        async def create() -> None:
            await api.post("portal_configuration", PATH, wanted)

        return [Change("create", "customer portal", "default configuration", (), create)]
    diffs = differences(_comparable(present), wanted)
    if not diffs:
        return [Change("unchanged", "customer portal", "default configuration")]
    identifier = present["id"]

    async def update() -> None:
        await api.post("portal_configuration", f"{PATH}/{identifier}", wanted)

    return [Change("update", "customer portal", "default configuration", diffs, update)]


def _comparable(configuration: Json) -> Json:
    """The configuration with the products of plan changes as the setup writes them, in their order."""
    update = configuration["features"].get("subscription_update") or {}
    sold = [{"product": each["product"], "prices": sorted(each["prices"])} for each in update.get("products") or ()]
    features = {**configuration["features"], "subscription_update": {**update, "products": sold}}
    return {**configuration, "features": features}
