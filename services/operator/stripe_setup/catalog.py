"""Features, products and prices of the file, compared with those of the account."""

from __future__ import annotations

from services.billing.catalog.models import mark_of, plans_of
from services.billing.stripe_api.catalog_models import StripeProduct
from services.billing.stripe_api.products import parse_price, parse_product
from services.operator.stripe_setup.changes import MARK, NEW, Api, Change, Json, differences, listed, marked
from services.operator.stripe_setup.plans_file import PlannedPrice, PlannedProduct, PlansFile


class Catalog:
    """The features, products and prices of an account, as far as they were read or made.

    Each ``plan_…`` method compares one kind. It needs the IDs of the kinds before, so a setup applies the changes of
    one kind before it plans the next; a plan alone shows ``(new)`` for objects that are not there yet.
    """

    def __init__(self, api: Api, file: PlansFile) -> None:
        self._api = api
        self._file = file
        self.features: dict[str, str] = {}
        self.products: dict[str, str] = {}
        self.prices: dict[str, list[str]] = {}

    async def plan_features(self) -> list[Change]:
        """Compare the features of Stripe Entitlements by their lookup keys."""
        path = "/v1/entitlements/features"
        found = await listed(self._api, "features", path) if self._file.features else []
        by_key = {each["lookup_key"]: each for each in found}
        changes = []
        for key, name in self._file.features.items():
            present = by_key.get(key)
            wanted: Json = {"name": name}
            self.features[key] = NEW if present is None else present["id"]
            if present is None:

                async def create(key: str = key, wanted: Json = wanted) -> None:
                    made = await self._api.post("feature", path, {**wanted, "lookup_key": key, "metadata": {MARK: key}})
                    self.features[key] = made["id"]

                changes.append(Change("create", "feature", key, (), create))
            else:
                changes.append(self._update("feature", key, f"{path}/{present['id']}", present, wanted))
        return changes

    async def plan_products(self) -> list[Change]:
        """Compare the products by their metadata ``nest_setup``; an archived one becomes active again."""
        found = await listed(self._api, "products", "/v1/products") if self._file.products else []
        changes = []
        for product in self._file.products:
            present = marked(found, product.key)
            self.products[product.key] = NEW if present is None else present["id"]
            wanted = _product_fields(product)
            if present is None:

                async def create(product: PlannedProduct = product, wanted: Json = wanted) -> None:
                    made = await self._api.post("product", "/v1/products", wanted)
                    self.products[product.key] = made["id"]

                changes.append(Change("create", "product", product.name, (), create))
                continue
            changes.append(self._update("product", product.name, f"/v1/products/{present['id']}", present, wanted))
        return changes

    async def plan_attachments(self) -> list[Change]:
        """Compare the features that each product grants; a feature that the file does not name stays attached."""
        changes = []
        for product in self._file.products:
            product_id = self.products[product.key]
            path = f"/v1/products/{product_id}/features"
            attached: set[str] = set()
            if product.features and product_id != NEW:
                attached = {
                    each["entitlement_feature"]["lookup_key"]
                    for each in await listed(self._api, "product_features", path)
                }
            for key in product.features:
                name = f"{key} of {product.name}"
                if key in attached:
                    changes.append(Change("unchanged", "product feature", name))
                    continue

                async def attach(path: str = path, key: str = key) -> None:
                    await self._api.post("product_feature", path, {"entitlement_feature": self.features[key]})

                changes.append(Change("create", "product feature", name, (), attach))
        return changes

    async def plan_prices(self) -> list[Change]:
        """Compare the prices by their lookup keys.

        Amount, interval, trial and tax behaviour of a price never change in Stripe. So another price replaces it: it
        takes the lookup key over, and the former price is archived. Subscriptions keep the former price.
        """
        changes = []
        for product in self._file.products:
            self.prices[product.key] = []
            changes += [await self._plan_price(product, price) for price in product.prices]
        return changes

    async def _plan_price(self, product: PlannedProduct, price: PlannedPrice) -> Change:
        page = await self._api.get(
            "prices",
            "/v1/prices",
            {"lookup_keys": [price.lookup_key], "limit": 1, "expand": ["data.currency_options"]},
        )
        present = page["data"][0] if page["data"] else None
        product_id = self.products[product.key]
        fixed, changeable = _price_fields(price, product_id)
        options = _options(price)

        async def create() -> None:
            key = {"lookup_key": price.lookup_key, "transfer_lookup_key": present is not None}
            recurring = {name: value for name, value in fixed["recurring"].items() if value is not None}
            fields = {**fixed, **changeable, **key, "product": self.products[product.key], "recurring": recurring}
            if options:
                fields["currency_options"] = options
            made = await self._api.post("price", "/v1/prices", fields)
            self.prices[product.key].remove(NEW)
            self.prices[product.key].append(made["id"])
            if present is not None:
                await self._api.post("price", f"/v1/prices/{present['id']}", {"active": False})

        if present is None:
            self.prices[product.key].append(NEW)
            return Change("create", "price", price.lookup_key, (), create)
        known = present.get("currency_options") or {}
        found = differences(present, fixed) + differences(
            {"currency_options": known},
            {"currency_options": {code: options[code] for code in options if code in known}},
        )
        if found:
            self.prices[product.key].append(NEW)
            return Change("replace", "price", price.lookup_key, found, create)
        self.prices[product.key].append(present["id"])
        added = {code: option for code, option in options.items() if code not in known}
        if added:
            changeable["currency_options"] = added
        return self._update("price", price.lookup_key, f"/v1/prices/{present['id']}", present, changeable)

    def _update(self, kind: str, name: str, path: str, present: Json, wanted: Json) -> Change:
        found = differences(present, wanted)
        if not found:
            return Change("unchanged", kind, name)

        async def update() -> None:
            await self._api.post(kind, path, wanted)

        return Change("update", kind, name, found, update)


async def leaving_plans(api: Api, file: PlansFile, listed_products: frozenset[str]) -> list[StripeProduct]:
    """The products that leave ``list_plans`` once a product of the file is marked as a plan.

    While no active product is marked, all are plans (``services.billing.catalog.models``). ``listed_products`` are
    those of NEST_STRIPE_PRODUCTS; with that setting marks do not matter.
    """
    if listed_products or not file.products:
        return []
    products = await listed(api, "products", "/v1/products", active=True)
    prices = await listed(api, "prices", "/v1/prices", active=True)
    plans = plans_of([parse_product(each, ()) for each in products], map(parse_price, prices), listed=frozenset())
    kept = [found["id"] for product in file.products if (found := marked(products, product.key)) is not None]
    return [plan.product for plan in plans if mark_of(plan.product.metadata) is None and plan.product.id not in kept]


def _product_fields(product: PlannedProduct) -> Json:
    return {
        "name": product.name,
        "description": product.description or "",
        "active": True,
        "marketing_features": [{"name": each} for each in product.marketing_features],
        "unit_label": product.unit_label or "",
        "metadata": {**product.metadata, "nest": "true", MARK: product.key},
    }


def _price_fields(price: PlannedPrice, product_id: str) -> tuple[Json, Json]:
    """The fields of a price that never change, and those that may."""
    fixed: Json = {
        "product": product_id,
        "currency": price.currency,
        "unit_amount": price.amounts[price.currency],
        "tax_behavior": price.tax_behavior,
        "recurring": {
            "interval": price.interval,
            "interval_count": price.interval_count,
            "trial_period_days": price.trial_days,
        },
    }
    changeable: Json = {
        "active": True,
        "nickname": price.nickname or "",
        "metadata": {**price.metadata, MARK: price.lookup_key},
    }
    return fixed, changeable


def _options(price: PlannedPrice) -> Json:
    """The amounts in the currencies beside the default one."""
    return {
        code: {"unit_amount": amount, "tax_behavior": price.tax_behavior}
        for code, amount in price.amounts.items()
        if code != price.currency
    }
