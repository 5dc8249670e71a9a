"""What is taken off a price? Coupons, promotion codes, and the discounts made of them."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import not_played
from services.stripe_double.ids import token
from services.stripe_double.listing import filtered, flagged, page
from services.stripe_double.params import Params
from services.stripe_double.periods import add

DURATIONS = ("forever", "once", "repeating")


def create_coupon(account: Account, params: Params) -> Json:
    """POST /v1/coupons: either `percent_off` or `amount_off` with `currency`."""
    identifier = params.text("id")
    percent, amount = params.number("percent_off"), params.integer("amount_off", least=1)
    currency = params.text("currency")
    duration = params.choice("duration", DURATIONS, "once")
    months = params.integer("duration_in_months", least=1)
    coupon = account.new(
        "coupon",
        amount_off=amount,
        currency=currency,
        duration=duration,
        duration_in_months=months,
        max_redemptions=params.integer("max_redemptions", least=1),
        metadata=params.metadata(),
        name=params.text("name"),
        percent_off=percent,
        redeem_by=params.integer("redeem_by"),
        times_redeemed=0,
        valid=True,
    )
    params.finish()
    if (percent is None) == (amount is None):
        raise params.refuse("percent_off", "You must pass either amount_off or percent_off.")
    if percent is not None and not 0 < percent <= 100:  # noqa: PLR2004 - a percentage
        raise params.refuse("percent_off", "percent_off must be greater than 0 and at most 100.")
    if amount is not None and currency is None:
        raise params.refuse("currency", "You must pass currency when passing amount_off.")
    if (duration == "repeating") != (months is not None):
        raise params.refuse("duration_in_months", "duration_in_months goes with duration=repeating only.")
    if identifier is not None:
        coupon["id"] = identifier
    if account.find("coupon", coupon["id"]) is not None:
        raise params.refuse("id", "Coupon already exists.", "resource_already_exists")
    events.emit(account, "coupon.created", account.put(coupon))
    return coupon


def create_promotion_code(account: Account, params: Params) -> Json:
    """POST /v1/promotion_codes: a word for customers that stands for a coupon."""
    promotion = params.child("promotion")
    if promotion is None:
        raise params.refuse("promotion", "Missing required param: promotion.", "parameter_missing")
    promotion.choice("type", ("coupon",))
    coupon = account.get("coupon", promotion.needed("coupon"), param="promotion[coupon]")
    promotion.finish()
    restrictions = params.child("restrictions") or Params({})
    customer = params.text("customer")
    code = account.new(
        "promotion_code",
        active=params.flag("active", default=True),
        code=params.text("code") or token(8).upper(),
        customer=customer,
        customer_account=None,
        expires_at=params.integer("expires_at"),
        max_redemptions=params.integer("max_redemptions", least=1),
        metadata=params.metadata(),
        promotion={"type": "coupon", "coupon": coupon["id"]},
        restrictions={
            "first_time_transaction": restrictions.flag("first_time_transaction", default=False),
            "minimum_amount": restrictions.integer("minimum_amount"),
            "minimum_amount_currency": restrictions.text("minimum_amount_currency"),
        },
        times_redeemed=0,
    )
    restrictions.finish()
    params.finish()
    if customer is not None:
        account.get("customer", customer, param="customer")
    rival = next((other for other in account.all("promotion_code") if other["code"] == code["code"]), None)
    if rival is not None and rival["active"]:
        raise params.refuse("code", "An active promotion code with this code already exists.")
    events.emit(account, "promotion_code.created", account.put(code))
    return code


def update_promotion_code(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/promotion_codes/{id}: `active` and `metadata`."""
    code = account.get("promotion_code", identifier)
    changes = {
        "active": params.flag("active", default=code["active"]),
        "metadata": params.metadata(code["metadata"]),
    }
    params.finish()
    return events.changed(account, "promotion_code.updated", code, account.update(code, **changes))


def list_promotion_codes(account: Account, params: Params) -> Json:
    """GET /v1/promotion_codes."""
    codes = flagged(params, account.all("promotion_code"), "active")
    codes = filtered(params, codes, "code", "customer")
    coupon = params.text("coupon")
    if coupon is not None:
        codes = [code for code in codes if code["promotion"]["coupon"] == coupon]
    return page(account, params, "/v1/promotion_codes", codes)


def granted(account: Account, wanted: list[Params], customer: str) -> list[Json]:
    """Makes the discounts that a call asks for; they are not put yet, the coupons not yet counted.

    Raises:
        StripeApiError: 400, when a coupon or code isn't there, is used up, expired, inactive or not
            for this customer.
    """
    discounts = []
    for params in wanted:
        code: Json | None = None
        if "discount" in params:
            raise not_played("carrying a discount over by its id", params.spelled("discount"))
        if (word := params.text("promotion_code")) is not None:
            code = account.get("promotion_code", word, param=params.spelled("promotion_code"))
            _usable_code(account, params, code, customer)
            coupon = account.get("coupon", code["promotion"]["coupon"])
        else:
            coupon = account.get("coupon", params.needed("coupon"), param=params.spelled("coupon"))
        params.finish()
        _usable_coupon(account, params, coupon)
        discounts.append(_discount(account, coupon, code, customer))
    return discounts


def _discount(account: Account, coupon: Json, code: Json | None, customer: str) -> Json:
    end = None
    if coupon["duration"] == "repeating":
        end = add(account.now, "month", coupon["duration_in_months"])
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
    # Stripe's discounts say when they start, not when they were made.
    del discount["created"], discount["livemode"]
    return discount


def _usable_coupon(account: Account, params: Params, coupon: Json) -> None:
    used_up = coupon["max_redemptions"] is not None and coupon["times_redeemed"] >= coupon["max_redemptions"]
    late = coupon["redeem_by"] is not None and coupon["redeem_by"] < account.now
    if used_up or late or not coupon["valid"]:
        raise params.refuse("coupon", f"Coupon expired: {coupon['id']}", "coupon_expired")


def _usable_code(account: Account, params: Params, code: Json, customer: str) -> None:
    used_up = code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]
    late = code["expires_at"] is not None and code["expires_at"] < account.now
    if used_up or late or not code["active"]:
        raise params.refuse("promotion_code", "This promotion code is expired or inactive.")
    if code["customer"] not in {None, customer}:
        raise params.refuse("promotion_code", "This promotion code is for another customer.")
    if code["restrictions"]["first_time_transaction"] and account.owned("charge", customer):
        raise params.refuse("promotion_code", "This promotion code is for customers without prior transactions.")


def attach(account: Account, discounts: list[Json], subscription: str) -> list[str]:
    """Puts discounts on a subscription, counts their coupons and announces them; returns their ids."""
    for discount in discounts:
        attached = account.put({**discount, "subscription": subscription})
        coupon = account.get("coupon", discount["source"]["coupon"])
        account.update(coupon, times_redeemed=coupon["times_redeemed"] + 1)
        if discount["promotion_code"] is not None:
            code = account.get("promotion_code", discount["promotion_code"])
            account.update(code, times_redeemed=code["times_redeemed"] + 1)
        events.emit(account, "customer.discount.created", attached)
    return [discount["id"] for discount in discounts]


def detach(account: Account, identifiers: list[str]) -> None:
    """Ends discounts and announces it."""
    for identifier in identifiers:
        discount = account.get("discount", identifier)
        events.emit(account, "customer.discount.deleted", account.update(discount, end=account.now))


def taken_off(account: Account, identifiers: list[str], amount: int) -> list[tuple[str, int]]:
    """Returns what each discount takes off an amount, one after the other, in the smallest unit."""
    taken = []
    left = amount
    for identifier in identifiers:
        discount = account.get("discount", identifier)
        if discount["end"] is not None and discount["end"] <= account.now:
            continue
        coupon = account.get("coupon", discount["source"]["coupon"])
        if coupon["percent_off"] is not None:
            off = round(left * coupon["percent_off"] / 100)
        else:
            off = min(left, coupon["amount_off"])
        taken.append((identifier, off))
        left -= off
    return taken


def spent(account: Account, identifiers: list[str]) -> list[str]:
    """Returns those discounts that were good for one invoice only."""
    return [
        identifier
        for identifier in identifiers
        if account.get("coupon", account.get("discount", identifier)["source"]["coupon"])["duration"] == "once"
    ]
