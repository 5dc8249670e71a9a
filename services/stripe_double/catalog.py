"""Coupons, promotion codes and discounts."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.clock import add_intervals
from services.stripe_double.errors import not_supported
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_boolean, filter_equal, list_page

DURATIONS = ("forever", "once", "repeating")


def create_coupon(account: Account, params: Params) -> Json:
    """POST /v1/coupons: either `percent_off`, or `amount_off` with `currency`."""
    identifier = params.string("id")
    percent, amount = params.decimal("percent_off"), params.integer("amount_off", minimum=1)
    currency = params.string("currency")
    duration = params.choice("duration", DURATIONS, "once")
    months = params.integer("duration_in_months", minimum=1)
    coupon = account.new(
        "coupon",
        amount_off=amount,
        currency=currency,
        duration=duration,
        duration_in_months=months,
        max_redemptions=params.integer("max_redemptions", minimum=1),
        metadata=params.metadata(),
        name=params.string("name"),
        percent_off=percent,
        redeem_by=params.integer("redeem_by"),
        times_redeemed=0,
        valid=True,
    )
    params.reject_unknown()
    if (percent is None) == (amount is None):
        raise params.invalid("percent_off", "You must pass either amount_off or percent_off.")
    if percent is not None and not 0 < percent <= 100:  # noqa: PLR2004 - a percentage
        raise params.invalid("percent_off", "percent_off must be greater than 0 and at most 100.")
    if amount is not None and currency is None:
        raise params.invalid("currency", "You must pass currency when passing amount_off.")
    if (duration == "repeating") != (months is not None):
        raise params.invalid("duration_in_months", "duration_in_months goes with duration=repeating only.")
    if identifier is not None:
        coupon["id"] = identifier
    if account.find("coupon", coupon["id"]) is not None:
        raise params.invalid("id", "Coupon already exists.", "resource_already_exists")
    events.emit(account, "coupon.created", account.put(coupon))
    return coupon


def list_coupons(account: Account, params: Params) -> Json:
    """GET /v1/coupons."""
    return list_page(account, params, "/v1/coupons", account.all("coupon"))


def create_promotion_code(account: Account, params: Params) -> Json:
    """POST /v1/promotion_codes: a code that customers enter to redeem a coupon."""
    promotion = params.nested("promotion")
    if promotion is None:
        raise params.missing("promotion")
    promotion.choice("type", ("coupon",))
    coupon = account.get("coupon", promotion.required("coupon"), param="promotion[coupon]")
    promotion.reject_unknown()
    restrictions = params.nested("restrictions") or Params({})
    customer = params.string("customer")
    code = account.new(
        "promotion_code",
        active=params.boolean("active", default=True),
        code=params.string("code") or random_string(8).upper(),
        customer=customer,
        customer_account=None,
        expires_at=params.integer("expires_at"),
        max_redemptions=params.integer("max_redemptions", minimum=1),
        metadata=params.metadata(),
        promotion={"type": "coupon", "coupon": coupon["id"]},
        restrictions={
            "first_time_transaction": restrictions.boolean("first_time_transaction", default=False),
            "minimum_amount": restrictions.integer("minimum_amount"),
            "minimum_amount_currency": restrictions.string("minimum_amount_currency"),
        },
        times_redeemed=0,
    )
    restrictions.reject_unknown()
    params.reject_unknown()
    if customer is not None:
        account.get("customer", customer, param="customer")
    same_code = next((other for other in account.all("promotion_code") if other["code"] == code["code"]), None)
    if same_code is not None and same_code["active"]:
        raise params.invalid("code", "An active promotion code with this code already exists.")
    events.emit(account, "promotion_code.created", account.put(code))
    return code


def update_promotion_code(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/promotion_codes/{id}: `active` and `metadata`."""
    code = account.get("promotion_code", identifier)
    changes = {
        "active": params.boolean("active", default=code["active"]),
        "metadata": params.metadata(code["metadata"]),
    }
    params.reject_unknown()
    return events.emit_if_changed(account, "promotion_code.updated", code, account.update(code, **changes))


def list_promotion_codes(account: Account, params: Params) -> Json:
    """GET /v1/promotion_codes."""
    codes = filter_boolean(params, account.all("promotion_code"), "active")
    codes = filter_equal(params, codes, "code", "customer")
    coupon = params.string("coupon")
    if coupon is not None:
        codes = [code for code in codes if code["promotion"]["coupon"] == coupon]
    return list_page(account, params, "/v1/promotion_codes", codes)


def discounts_from(account: Account, entries: list[Params], customer: str) -> list[Json]:
    """Return the discounts of a request's `discounts`; `add_discounts` puts them and counts the redemptions.

    Raises:
        StripeApiError: 400 if a coupon or promotion code does not exist, is used up, expired, inactive or
            restricted to other customers.
    """
    discounts = []
    for params in entries:
        code: Json | None = None
        if "discount" in params:
            raise not_supported("reusing a discount by its ID", params.encoded_name("discount"))
        if (code_id := params.string("promotion_code")) is not None:
            code = account.get("promotion_code", code_id, param=params.encoded_name("promotion_code"))
            _require_redeemable_code(account, params, code, customer)
            coupon = account.get("coupon", code["promotion"]["coupon"])
        else:
            coupon = account.get("coupon", params.required("coupon"), param=params.encoded_name("coupon"))
        params.reject_unknown()
        _require_redeemable_coupon(account, params, coupon)
        discounts.append(_discount(account, coupon, code, customer))
    return discounts


def _discount(account: Account, coupon: Json, code: Json | None, customer: str) -> Json:
    end = None
    if coupon["duration"] == "repeating":
        end = add_intervals(account.now, "month", coupon["duration_in_months"])
    discount = account.new(
        "discount",
        checkout_session=None,
        customer=customer,
        customer_account=None,
        end=end,
        invoice=None,
        invoice_item=None,
        promotion_code=code["id"] if code else None,
        source={"type": "coupon", "coupon": coupon["id"]},
        start=account.now,
        subscription=None,
        subscription_item=None,
    )
    # Stripe's discounts have `start` instead of `created`, and no `livemode`.
    del discount["created"], discount["livemode"]
    return discount


def _require_redeemable_coupon(account: Account, params: Params, coupon: Json) -> None:
    used_up = coupon["max_redemptions"] is not None and coupon["times_redeemed"] >= coupon["max_redemptions"]
    expired = coupon["redeem_by"] is not None and coupon["redeem_by"] < account.now
    if used_up or expired or not coupon["valid"]:
        raise params.invalid("coupon", f"Coupon expired: {coupon['id']}", "coupon_expired")


def _require_redeemable_code(account: Account, params: Params, code: Json, customer: str) -> None:
    used_up = code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]
    expired = code["expires_at"] is not None and code["expires_at"] < account.now
    if used_up or expired or not code["active"]:
        raise params.invalid("promotion_code", "This promotion code is expired or inactive.")
    if code["customer"] not in {None, customer}:
        raise params.invalid("promotion_code", "This promotion code is for another customer.")
    if code["restrictions"]["first_time_transaction"] and account.owned("charge", customer):
        raise params.invalid("promotion_code", "This promotion code is for customers without prior transactions.")


def add_discounts(account: Account, discounts: list[Json], subscription: str) -> list[str]:
    """Add discounts to a subscription, count the redemptions and emit the events; return the discounts' IDs."""
    for discount in discounts:
        added = account.put({**discount, "subscription": subscription})
        coupon = account.get("coupon", discount["source"]["coupon"])
        account.update(coupon, times_redeemed=coupon["times_redeemed"] + 1)
        if discount["promotion_code"] is not None:
            code = account.get("promotion_code", discount["promotion_code"])
            account.update(code, times_redeemed=code["times_redeemed"] + 1)
        events.emit(account, "customer.discount.created", added)
    return [discount["id"] for discount in discounts]


def end_discounts(account: Account, identifiers: list[str]) -> None:
    """End discounts and emit `customer.discount.deleted` for each."""
    for identifier in identifiers:
        discount = account.get("discount", identifier)
        events.emit(account, "customer.discount.deleted", account.update(discount, end=account.now))


def discount_amounts(account: Account, identifiers: list[str], amount: int) -> list[tuple[str, int]]:
    """Return the amount that each active discount takes off, applied one after the other, in the smallest unit."""
    amounts = []
    remaining = amount
    for identifier in identifiers:
        discount = account.get("discount", identifier)
        if discount["end"] is not None and discount["end"] <= account.now:
            continue
        coupon = account.get("coupon", discount["source"]["coupon"])
        if coupon["percent_off"] is not None:
            off = round(remaining * coupon["percent_off"] / 100)
        else:
            off = min(remaining, coupon["amount_off"])
        amounts.append((identifier, off))
        remaining -= off
    return amounts


def once_only(account: Account, identifiers: list[str]) -> list[str]:
    """Return those of the discounts whose coupon has `duration=once`."""
    return [
        identifier
        for identifier in identifiers
        if account.get("coupon", account.get("discount", identifier)["source"]["coupon"])["duration"] == "once"
    ]
