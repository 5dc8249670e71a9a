"""Reading of products and prices from Stripe, and their parsing."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from services.billing.stripe_api.calls import RESOURCE_MISSING, Calls, RightMissing, StripeRefused
from services.billing.stripe_api.catalog_models import PriceAmount, PriceTier, Recurring, StripePrice, StripeProduct
from services.billing.stripe_api.lists import PRICE_PARTS
from services.billing.stripe_api.parsing import Json, parse_time
from shared.telemetry import log

TIERED: Final = "tiered"
MAX_EXPANDED: Final = 20
"""Currencies whose tiers are read with one call; a URL has a bounded length."""


class CatalogReads:
    """The calls to a Stripe account that read products and prices.

    A method that reads one object returns None if this account, in this mode, has none with this ID.
    """

    calls: Calls

    async def product(self, product_id: str) -> StripeProduct | None:
        """A product with the features that it grants."""
        json = await self._read("product", f"/v1/products/{quote(product_id, safe='')}", {})
        return None if json is None else await self.complete_product(json)

    async def complete_product(self, json: Json) -> StripeProduct:
        """Parse a product after reading its features, which its JSON lacks."""
        return parse_product(json, await self._entitlements(json["id"]))

    async def price(self, price_id: str) -> StripePrice | None:
        """A price with its amounts in all currencies."""
        if set(price_id) & set("/?#"):
            # Stripe would refuse another path than that of a price, with an error that alarms operators.
            return None
        path = f"/v1/prices/{quote(price_id, safe='')}"
        json = await self._read("price", path, {"expand": list(PRICE_PARTS)})
        return None if json is None else await self.complete_price(json)

    async def complete_price(self, json: Json) -> StripePrice:
        """Parse a price, with ``PRICE_PARTS`` expanded, after reading the tiers of further currencies.

        Stripe leaves those out unless each currency is expanded by its name.
        """
        options = dict(json.get("currency_options") or {})
        missing = currencies_without_tiers(json)
        for start in range(0, len(missing), MAX_EXPANDED):
            expand = [f"currency_options.{code}.tiers" for code in missing[start : start + MAX_EXPANDED]]
            path = f"/v1/prices/{quote(json['id'], safe='')}"
            found = await self._read("price", path, {"expand": expand}) or {}
            options |= {code: each for code, each in (found.get("currency_options") or {}).items() if each.get("tiers")}
        return parse_price({**json, "currency_options": options})

    async def _entitlements(self, product_id: str) -> tuple[str, ...]:
        """Lookup keys of a product's features in Stripe Entitlements; none without the right to read them."""
        path = f"/v1/products/{quote(product_id, safe='')}/features"
        try:
            pages = [each async for each in self.calls.pages("product_features", path, {})]
        except RightMissing:
            log.warning("stripe key may not read product features", product=product_id)
            return ()
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return ()
            raise
        features = [each["entitlement_feature"] for each in pages]
        return tuple(sorted({each["lookup_key"] for each in features if each["active"]}))

    async def _read(self, name: str, path: str, params: Json) -> Json | None:
        try:
            return await self.calls.get(name, path, params)
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return None
            raise


def parse_product(json: Json, entitlements: tuple[str, ...]) -> StripeProduct:
    """Parse a product; ``entitlements`` are the lookup keys of its features, which its JSON lacks."""
    return StripeProduct(
        id=json["id"],
        name=json["name"],
        description=json["description"],
        active=json["active"],
        marketing_features=tuple(each["name"] for each in json.get("marketing_features") or () if each.get("name")),
        entitlements=entitlements,
        unit_label=json.get("unit_label"),
        default_price_id=_id_of(json.get("default_price")),
        metadata=_metadata(json),
        created=parse_time(json["created"]),
        livemode=json["livemode"],
    )


def parse_price(json: Json) -> StripePrice:
    """Parse a price with ``currency_options`` and ``tiers`` expanded."""
    currency, transform = json["currency"], json.get("transform_quantity") or {}
    options = {**(json.get("currency_options") or {}), currency: json}
    others = sorted(options.keys() - {currency})
    return StripePrice(
        id=json["id"],
        product_id=_id_of(json["product"]) or "",
        active=json["active"],
        currency=currency,
        amounts={code: _parse_amount(options[code]) for code in (currency, *others)},
        recurring=_parse_recurring(json.get("recurring")),
        tiers_mode=json.get("tiers_mode"),
        divide_by=transform.get("divide_by"),
        round=transform.get("round"),
        lookup_key=json.get("lookup_key"),
        nickname=json.get("nickname"),
        metadata=_metadata(json),
        created=parse_time(json["created"]),
        livemode=json["livemode"],
    )


def currencies_without_tiers(json: Json) -> list[str]:
    """Currencies of a tiered price whose tiers Stripe left out.

    Stripe includes them only if they are expanded currency by currency: ``currency_options.eur.tiers``.
    """
    if json["billing_scheme"] != TIERED:
        return []
    options = json.get("currency_options") or {}
    return sorted(code for code, option in options.items() if code != json["currency"] and not option.get("tiers"))


def _parse_recurring(json: Json | None) -> Recurring | None:
    if json is None:
        return None
    return Recurring(
        interval=json["interval"],
        interval_count=json["interval_count"],
        usage_type=json["usage_type"],
        trial_days=json.get("trial_period_days") or None,
        meter_id=json.get("meter"),
    )


def _parse_amount(json: Json) -> PriceAmount:
    return PriceAmount(
        unit_amount=json.get("unit_amount"),
        unit_amount_decimal=_decimal(json.get("unit_amount_decimal")),
        tax_behavior=json.get("tax_behavior") or "unspecified",
        tiers=tuple(map(_parse_tier, json.get("tiers") or ())),
    )


def _parse_tier(json: Json) -> PriceTier:
    return PriceTier(
        up_to=json["up_to"],
        unit_amount=json.get("unit_amount"),
        unit_amount_decimal=_decimal(json.get("unit_amount_decimal")),
        flat_amount=json.get("flat_amount"),
        flat_amount_decimal=_decimal(json.get("flat_amount_decimal")),
    )


def _decimal(value: Any) -> str | None:
    return None if value is None else str(value)


def _id_of(value: Any) -> str | None:
    """The ID of an object that may be expanded."""
    found: str | None = value["id"] if isinstance(value, dict) else value
    return found


def _metadata(json: Json) -> dict[str, str]:
    # MongoDB stores no name with a null character.
    return {name: value for name, value in (json.get("metadata") or {}).items() if "\0" not in name}
