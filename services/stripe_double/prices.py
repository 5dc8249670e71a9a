"""Prices: per unit or tiered, in several currencies, recurring or one-time."""

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation

from services.stripe_double import events, products
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import INTERVALS
from services.stripe_double.errors import not_supported
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_boolean, filter_equal, list_page

TAX_BEHAVIORS = ("exclusive", "inclusive", "unspecified")
MAX_AMOUNT = 99_999_999
MAX_DECIMALS = 12
MAX_LOOKUP_KEY = 200
MAX_LOOKUP_KEYS = 10
MAX_TRIAL_DAYS = 730
_AMOUNTS = {"unit_amount": None, "unit_amount_decimal": None}


def create_price(account: Account, params: Params) -> Json:
    """POST /v1/prices."""
    recurring = params.nested("recurring")
    return _create_price(account, params, _recurring(account, recurring) if recurring else None)


def create_price_of(account: Account, params: Params, product: str) -> Json:
    """Create a price of a product that names it by `default_price_data`."""
    recurring = params.nested("recurring")
    return _create_price(account, params, _recurring(account, recurring) if recurring else None, product=product)


def recurring_price(account: Account, params: Params) -> Json:
    """Return the recurring price of a subscription item, created from `price_data` if the item describes one.

    Args:
        account: The account.
        params: The item, with `price` or `price_data`.

    Raises:
        StripeApiError: 400 for a price that is missing, one-time or inactive.
    """
    price_data = params.nested("price_data")
    if price_data is not None:
        recurring = price_data.nested("recurring")
        if recurring is None:
            raise price_data.missing("recurring")
        return _create_price(account, price_data, _recurring(account, recurring))
    price = account.get("price", params.required("price"), param=params.encoded_name("price"))
    if price["recurring"] is None:
        raise params.invalid(
            "price", "The price specified is set to `type=one_time` but this field only accepts `type=recurring`."
        )
    if not price["active"]:
        raise params.invalid("price", "The price specified is inactive. This field only accepts active prices.")
    return price


def is_metered(price: Json) -> bool:
    """Return whether a price charges the usage of a meter instead of a quantity."""
    return price["recurring"] is not None and price["recurring"]["usage_type"] == "metered"


def read_quantity(params: Params, price: Json, default: int | None = None, *, minimum: int = 0) -> int | None:
    """Return the `quantity` of an item; None for a metered price.

    Args:
        params: The item.
        price: Its recurring price.
        default: The quantity if none is sent; None for 1.
        minimum: The least quantity.

    Raises:
        StripeApiError: 400 for a quantity that is below the minimum, and for any of a metered price.
    """
    quantity = params.integer("quantity", minimum=minimum)
    if not is_metered(price):
        return quantity if quantity is not None else 1 if default is None else default
    if quantity is not None:
        raise params.invalid("quantity", "You cannot set the quantity for metered plans.")
    return None


def item_params(item: Json) -> dict[str, str]:
    """Return the price and the quantity of an item as parameters; a metered one has no quantity."""
    quantity = item.get("quantity")
    return {"price": item["price"]} | ({} if quantity is None else {"quantity": str(quantity)})


def amount_of(price: Json, quantity: int | Decimal) -> int:
    """Return the amount of a quantity or usage of a price in its default currency, rounded half up to the minor unit.

    A transformed quantity is divided and rounded before the price applies
    (docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup: "Transform quantities").
    """
    transform = price["transform_quantity"]
    if transform is not None:
        rounding = ROUND_CEILING if transform["round"] == "up" else ROUND_FLOOR
        quantity = (Decimal(quantity) / transform["divide_by"]).to_integral_value(rounding)
    if price["billing_scheme"] == "tiered":
        return _rounded(_tiered_amount(price["_tiers"], price["tiers_mode"], quantity))
    return _rounded(Decimal(price["unit_amount_decimal"]) * quantity)


def _rounded(amount: Decimal) -> int:
    return int(amount + Decimal("0.5"))


def _tiered_amount(tiers: list[Json], mode: str, quantity: int | Decimal) -> Decimal:
    total, before = Decimal(0), Decimal(0)
    for tier in tiers:
        last = Decimal(quantity if tier["up_to"] is None else tier["up_to"])
        if mode == "volume":
            if quantity <= last:
                return _tier_amount(tier, quantity)
        elif quantity > before or (quantity == before == 0):
            total += _tier_amount(tier, min(quantity, last) - before)
        before = last
    return total


def _tier_amount(tier: Json, units: int | Decimal) -> Decimal:
    return Decimal(tier["unit_amount_decimal"] or 0) * units + Decimal(tier["flat_amount_decimal"] or 0)


def _recurring(account: Account, params: Params) -> Json:
    interval = params.choice("interval", INTERVALS)
    if interval is None:
        raise params.missing("interval")
    usage_type, meter = params.choice("usage_type", ("licensed", "metered"), "licensed"), params.string("meter")
    recurring: Json = {
        "interval": interval,
        "interval_count": params.integer("interval_count", 1, minimum=1),
        "meter": meter,
        "trial_period_days": params.integer("trial_period_days", minimum=1),
        "usage_type": usage_type,
    }
    params.reject_unknown()
    if (recurring["trial_period_days"] or 0) > MAX_TRIAL_DAYS:
        raise params.invalid("trial_period_days", f"The maximum number of trial period days is {MAX_TRIAL_DAYS}.")
    # Since 2025-03-31.basil a metered price needs a meter (docs.stripe.com/changelog/basil).
    if (usage_type == "metered") != (meter is not None):
        raise params.invalid("meter", "Metered prices must be backed by meters, and only they may have one.")
    if meter is not None:
        account.get("billing.meter", meter, param=params.encoded_name("meter"))
    return recurring


def _create_price(account: Account, params: Params, recurring: Json | None, *, product: str | None = None) -> Json:
    lookup_key, transfer = params.string("lookup_key"), params.boolean("transfer_lookup_key")
    named, product_data = params.string("product"), params.nested("product_data")
    tax_behavior = params.choice("tax_behavior", TAX_BEHAVIORS, "unspecified")
    scheme = params.choice("billing_scheme", ("per_unit", "tiered"), "per_unit")
    tiers_mode = params.choice("tiers_mode", ("graduated", "volume"))
    currency = params.required("currency").lower()
    if "custom_unit_amount" in params:
        raise not_supported("amounts that the customer chooses", "custom_unit_amount")
    own = _option(params, scheme, tax_behavior)
    price = account.new(
        "price",
        active=params.boolean("active", default=True),
        billing_scheme=scheme,
        currency=currency,
        custom_unit_amount=None,
        lookup_key=lookup_key,
        metadata=params.metadata(),
        nickname=params.string("nickname"),
        recurring=recurring,
        tax_behavior=tax_behavior,
        tiers_mode=tiers_mode,
        transform_quantity=_transform_quantity(params),
        type="one_time" if recurring is None else "recurring",
        unit_amount=own["unit_amount"],
        unit_amount_decimal=own["unit_amount_decimal"],
        _tiers=own["tiers"],
        _currency_options=_currency_options(params, scheme, currency),
    )
    params.reject_unknown()
    if (scheme == "tiered") != (tiers_mode is not None):
        raise params.invalid("tiers_mode", "tiers_mode goes with billing_scheme=tiered.")
    if lookup_key is not None:
        _claim_lookup_key(account, params, lookup_key, transfer=bool(transfer))
    if product_data is not None:
        named = products.create_product(account, product_data)["id"]
    product = product or named
    if product is None:
        raise params.missing("product")
    price["product"] = account.get("product", product, param=params.encoded_name("product"))["id"]
    events.emit(account, "price.created", account.put(price))
    return price


def _claim_lookup_key(account: Account, params: Params, key: str, *, transfer: bool, own: str | None = None) -> None:
    """Take a lookup key from the price that has it, or refuse it: one price of the account has a key."""
    if len(key) > MAX_LOOKUP_KEY:
        raise params.invalid("lookup_key", f"Lookup keys may have up to {MAX_LOOKUP_KEY} characters.")
    for other in account.all("price"):
        if other["lookup_key"] != key or other["id"] == own:
            continue
        if not transfer:
            raise params.invalid(
                "lookup_key",
                f"A price (`{other['id']}`) already uses that lookup key. You may transfer it with"
                " `transfer_lookup_key=true`.",
            )
        events.emit(account, "price.updated", account.update(other, lookup_key=None), before=other)


def _transform_quantity(params: Params) -> Json | None:
    transform = params.nested("transform_quantity")
    if transform is None:
        return None
    found = {
        "divide_by": transform.required_integer("divide_by", minimum=1),
        "round": transform.choice("round", ("up", "down")),
    }
    transform.reject_unknown()
    if found["round"] is None:
        raise transform.missing("round")
    return found


def _currency_options(params: Params, scheme: str | None, currency: str) -> dict[str, Json]:
    options: dict[str, Json] = {}
    sent = params.nested("currency_options")
    for code in [] if sent is None else list(sent.values):
        option = sent.nested(code) if sent is not None else None
        if option is None:
            raise params.invalid("currency_options", f"Invalid object: {code}")
        if code.lower() == currency:
            raise option.invalid("currency_options", "The default currency has no currency option.")
        tax_behavior = option.choice("tax_behavior", TAX_BEHAVIORS, "unspecified")
        options[code.lower()] = _option(option, scheme, tax_behavior)
        option.reject_unknown()
    return options


def _option(params: Params, scheme: str | None, tax_behavior: str | None) -> Json:
    """Return the amount of a price in one currency, from the parameters of the price or of a currency option."""
    amounts, tiers = _amounts(params, "unit_amount"), _tiers(params)
    if scheme == "tiered":
        if not tiers:
            raise params.missing("tiers")
        if amounts["unit_amount_decimal"] is not None:
            raise params.invalid("unit_amount", "A tiered price has no unit_amount.")
        return {"custom_unit_amount": None, "tax_behavior": tax_behavior, **_AMOUNTS, "tiers": tiers}
    if tiers:
        raise params.invalid("tiers", "tiers goes with billing_scheme=tiered.")
    if amounts["unit_amount_decimal"] is None:
        raise params.missing("unit_amount")
    return {"custom_unit_amount": None, "tax_behavior": tax_behavior, **amounts, "tiers": None}


def _tiers(params: Params) -> list[Json]:
    tiers: list[Json] = []
    for entry in params.nested_list("tiers"):
        up_to = entry.required("up_to")
        tier: Json = {
            **_amounts(entry, "flat_amount"),
            **_amounts(entry, "unit_amount"),
            "up_to": None if up_to == "inf" else entry.required_integer("up_to", minimum=1),
        }
        entry.reject_unknown()
        if tier["unit_amount_decimal"] is None and tier["flat_amount_decimal"] is None:
            raise entry.missing("unit_amount")
        if tiers and (tiers[-1]["up_to"] is None or (tier["up_to"] or MAX_AMOUNT) <= tiers[-1]["up_to"]):
            raise entry.invalid("up_to", "Tiers must be sorted by up_to, and only the last one may be inf.")
        tiers.append(tier)
    if tiers and tiers[-1]["up_to"] is not None:
        raise params.invalid("tiers", "The last tier must have up_to=inf.")
    return tiers


def _amounts(params: Params, name: str) -> Json:
    """Return an amount and its decimal form; both None if neither was sent, the former for a fraction."""
    whole, text = params.integer(name, minimum=0), params.string(f"{name}_decimal")
    if whole is not None and text is not None:
        raise params.invalid(name, f"You may only specify one of these parameters: {name}, {name}_decimal.")
    if text is not None:
        try:
            number = Decimal(text)
        except InvalidOperation as error:
            raise params.invalid(f"{name}_decimal", f"Invalid decimal: {text}") from error
        if not number.is_finite() or number < 0 or int(number.as_tuple().exponent) < -MAX_DECIMALS:
            raise params.invalid(f"{name}_decimal", f"Invalid decimal: {text}")
        whole = int(number) if number == int(number) else None
        text = format(number.normalize(), "f")
    elif whole is not None:
        text = str(whole)
    if text is not None and Decimal(text) > MAX_AMOUNT:
        raise params.invalid(name, f"Amount must be no more than {MAX_AMOUNT}.", "amount_too_large")
    return {name: whole, f"{name}_decimal": text}


def update_price(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/prices/{id}; amount and interval are immutable, a tax behaviour can be set once."""
    price = account.get("price", identifier)
    transfer = params.boolean("transfer_lookup_key")
    changes: Json = {
        **params.sent_strings(("nickname", "lookup_key")),
        "active": params.boolean("active", default=price["active"]),
        "metadata": params.metadata(price["metadata"]),
        "tax_behavior": params.choice("tax_behavior", TAX_BEHAVIORS, price["tax_behavior"]),
    }
    if "currency_options" in params:
        options = _currency_options(params, price["billing_scheme"], price["currency"])
        changes["_currency_options"] = {**price["_currency_options"], **options}
    params.reject_unknown()
    if changes["tax_behavior"] != price["tax_behavior"] != "unspecified":
        raise params.invalid("tax_behavior", "You cannot change the tax behavior once it was set.")
    if changes.get("lookup_key") is not None:
        _claim_lookup_key(account, params, changes["lookup_key"], transfer=bool(transfer), own=identifier)
    updated = account.update(price, **changes)
    if updated != price:
        events.emit(account, "price.updated", updated, before=price)
    return updated


def list_prices(account: Account, params: Params) -> Json:
    """GET /v1/prices; without `active` it lists the archived ones too."""
    chosen = filter_boolean(params, account.all("price"), "active")
    chosen = filter_equal(params, chosen, "product", "currency", "type")
    recurring = params.nested("recurring")
    if recurring is not None:
        wanted = recurring.sent_strings(("interval", "usage_type", "meter"))
        recurring.reject_unknown()
        chosen = [each for each in chosen if each["recurring"] and wanted.items() <= each["recurring"].items()]
    keys = params.strings("lookup_keys")
    if len(keys) > MAX_LOOKUP_KEYS:
        raise params.invalid("lookup_keys", f"You may only specify up to {MAX_LOOKUP_KEYS} lookup keys.")
    if keys:
        chosen = [price for price in chosen if price["lookup_key"] in keys]
    return list_page(account, params, "/v1/prices", chosen)


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/prices": list_prices,
    "POST /v1/prices": create_price,
    "POST /v1/prices/{}": update_price,
}
