"""Creation of Checkout Sessions, whose parameters are validated as Stripe does.

docs.stripe.com/api/checkout/sessions/create
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from services.stripe_double import subscriptions, trials
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.clock import DAY, HOUR
from services.stripe_double.errors import StripeApiError, not_supported
from services.stripe_double.params import Params
from services.stripe_double.prices import is_metered
from services.stripe_double.rendering import checkout_line_item
from services.stripe_double.subscription_items import MAX_ITEMS

KIND = "checkout.session"
LIFETIME = DAY
MIN_LIFETIME = HOUR // 2
MAX_LINE_ITEMS = 100
LOCALES = frozenset(
    (
        *(
            "auto",
            "bg",
            "cs",
            "da",
            "de",
            "el",
            "en",
            "en-GB",
            "es",
            "es-419",
            "et",
            "fi",
            "fil",
            "fr",
            "fr-CA",
            "hr",
            "hu",
            "id",
        ),
        *(
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
            "th",
        ),
        *("tr", "vi", "zh", "zh-HK", "zh-TW"),
    )
)
NOT_SUPPORTED = (
    "adaptive_pricing",
    "after_expiration",
    "branding_settings",
    "consent_collection",
    "currency",
    "custom_fields",
    "custom_text",
    "customer_account",
    "invoice_creation",
    "optional_items",
    "phone_number_collection",
    "return_url",
    "saved_payment_method_options",
    "setup_intent_data",
    "shipping_address_collection",
    "shipping_options",
    "submit_type",
)


def create_session(account: Account, params: Params) -> Json:
    """POST /v1/checkout/sessions, of mode `payment` or `subscription`.

    Raises:
        StripeApiError: 400 for parameters that are unknown, not supported, invalid or do not fit together.
    """
    mode = params.choice("mode", ("payment", "setup", "subscription"))
    if mode is None:
        raise params.missing("mode")
    if mode == "setup" or params.choice("ui_mode", ("custom", "embedded", "hosted", "hosted_page"), "hosted") not in {
        "hosted",
        "hosted_page",
    }:
        raise not_supported("Checkout Sessions of mode `setup`, or on a page of one's own", "mode")
    customer = _read_customer(account, params)
    items = _read_items(account, params, mode)
    currency = account.get("price", items[0]["price"])["currency"]
    if customer is not None and mode == "subscription":
        subscriptions.reject_other_currency(account, customer, currency)
    subtotal = sum(checkout_line_item(account, item)["amount_total"] for item in items)
    session = {
        **_new_session(account, params, mode),
        **_read_settings(account, params, mode, customer),
        "amount_subtotal": subtotal,
        "amount_total": subtotal,
        "currency": currency,
        "customer": None if customer is None else customer["id"],
        "customer_email": params.string("customer_email"),
        "_items": items,
    }
    for name in NOT_SUPPORTED:
        if name in params:
            raise not_supported(name, name)
    params.reject_unknown()
    if session["subscription_data"]["trial"]:
        session["amount_total"] = 0
    del session["subscription_data"]["trial"]
    session["_subscription_data"] = session.pop("subscription_data")
    return account.put(session)


def _new_session(account: Account, params: Params, mode: str) -> Json:
    expires_at = params.integer("expires_at")
    if expires_at is None:
        expires_at = account.now + LIFETIME
    if not account.now + MIN_LIFETIME <= expires_at <= account.now + LIFETIME:
        raise params.invalid(
            "expires_at",
            "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from Checkout Session"
            " creation.",
        )
    session = account.new(
        KIND,
        **_CONSTANT_MEMBERS,
        cancel_url=_read_url(params, "cancel_url"),
        client_reference_id=params.string("client_reference_id"),
        customer_details=None,
        expires_at=expires_at,
        invoice=None,
        locale=params.choice("locale", LOCALES),
        metadata=params.metadata(),
        mode=mode,
        payment_intent=None,
        payment_method_types=params.strings("payment_method_types") or ["card", "us_bank_account"],
        payment_status="unpaid",
        setup_intent=None,
        status="open",
        subscription=None,
        success_url=_read_url(params, "success_url"),
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    )
    if session["success_url"] is None:
        raise params.missing("success_url")
    return session


def _read_url(params: Params, name: str) -> str | None:
    url = params.string(name)
    if url is None:
        return None
    parts = urlsplit(url)
    if not parts.scheme:
        raise params.invalid(name, "Invalid URL: An explicit scheme (such as https) must be provided.", "url_invalid")
    if parts.scheme in {"http", "https"} and not parts.hostname:
        raise params.invalid(name, "Not a valid URL", "url_invalid")
    return url


def _read_customer(account: Account, params: Params) -> Json | None:
    customer = params.string("customer")
    if customer is None:
        return None
    if "customer_email" in params:
        raise params.invalid(
            "customer", "You may only specify one of these parameters: customer, customer_email.", "parameter_invalid"
        )
    return account.get("customer", customer, param="customer")


def _read_items(account: Account, params: Params, mode: str) -> list[Json]:
    """Return the line items.

    Raises:
        StripeApiError: 400 for prices that are missing, inactive or do not fit the mode or each other.
    """
    items = [_read_item(account, entry, position) for position, entry in enumerate(params.nested_list("line_items"))]
    if not items:
        raise params.missing("line_items")
    prices = [account.get("price", item["price"]) for item in items]
    recurring = [price for price in prices if price["recurring"] is not None]
    if mode == "payment" and recurring:
        raise StripeApiError(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use"
            " only one-time prices.",
            param="line_items",
        )
    if mode == "subscription" and not recurring:
        raise StripeApiError(
            "You must provide at least one recurring price in `subscription` mode when using prices.",
            param="line_items",
        )
    if len(items) > MAX_LINE_ITEMS or len(recurring) > MAX_ITEMS:
        raise StripeApiError(
            f"A Checkout Session may have up to {MAX_LINE_ITEMS} line items, {MAX_ITEMS} of them recurring.",
            param="line_items",
        )
    if len({price["currency"] for price in prices}) > 1:
        raise StripeApiError("All line items of a Checkout Session must have the same currency.", param="line_items")
    if len({(each["recurring"]["interval"], each["recurring"]["interval_count"]) for each in recurring}) > 1:
        raise StripeApiError(
            "Checkout does not support multiple prices with different billing intervals.", param="line_items"
        )
    if mode == "subscription" and len(recurring) < len(prices):
        raise not_supported("one-time prices beside recurring ones", "line_items")
    return items


def _read_item(account: Account, params: Params, position: int) -> Json:
    if "price_data" in params:
        raise not_supported("price_data in Checkout Sessions", params.encoded_name("price_data"))
    price = account.get("price", params.required("price"), param=params.encoded_name("price"))
    if not price["active"]:
        raise params.invalid("price", "The price specified is inactive. This field only accepts active prices.")
    if not account.get("product", price["product"])["active"]:
        raise params.invalid("price", "The price specified is attached to an inactive product.")
    metered = is_metered(price)
    quantity = params.integer("quantity", minimum=1)
    if metered and quantity is not None:
        raise params.invalid("quantity", "Quantity should not be specified where usage_type is `metered`.")
    if quantity is None and not metered:
        raise params.missing("quantity")
    params.reject_unknown()
    return {"id": f"li_1{random_string(23)}", "position": position, "price": price["id"], "quantity": quantity}


def _read_settings(account: Account, params: Params, mode: str, customer: Json | None) -> Json:
    """Return the members that other parameters set, and `subscription_data` for the subscription to create."""
    promotion_codes = params.boolean("allow_promotion_codes")
    if promotion_codes and "discounts" in params:
        raise params.invalid(
            "discounts", "You may only specify one of these parameters: allow_promotion_codes, discounts."
        )
    if "discounts" in params:
        raise not_supported("discounts of Checkout Sessions", "discounts")
    saved = _read_group(params, "customer_update", ("address", "name", "shipping"))
    if saved and customer is None:
        raise params.invalid("customer_update", "`customer_update` can only be used with `customer`.")
    tax = params.nested("automatic_tax")
    automatic = bool(tax and tax.boolean("enabled"))
    if tax is not None:
        tax.reject_unknown()
    if automatic and customer is not None and not customer["address"] and saved.get("address") != "auto":
        raise params.invalid(
            "automatic_tax",
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to the"
            " Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' to"
            " save the address entered in Checkout to the Customer.",
            "customer_tax_location_invalid",
        )
    tax_ids = params.nested("tax_id_collection")
    collects_tax_ids = bool(tax_ids and tax_ids.boolean("enabled"))
    if tax_ids is not None:
        tax_ids.reject_unknown()
    for name, other in (("subscription_data", "payment"), ("payment_intent_data", "subscription")):
        if name in params and mode == other:
            raise params.invalid(name, f"You can not pass `{name}` in `{other}` mode.")
    return {
        "allow_promotion_codes": promotion_codes,
        "automatic_tax": {
            "enabled": automatic,
            "liability": {"type": "self"} if automatic else None,
            "provider": "stripe" if automatic else None,
            "status": "requires_location_inputs" if automatic else None,
        },
        "billing_address_collection": params.choice("billing_address_collection", ("auto", "required")),
        "payment_method_collection": params.choice(
            "payment_method_collection", ("always", "if_required"), "always" if mode == "subscription" else None
        ),
        "tax_id_collection": {"enabled": collects_tax_ids, "required": "never"},
        "subscription_data": _read_subscription_data(account, params),
        "_payment_intent_data": _read_payment_intent_data(params),
    }


def _read_group(params: Params, name: str, members: Iterable[str]) -> dict[str, str | None]:
    group = params.nested(name)
    if group is None:
        return {}
    values = {member: group.choice(member, ("auto", "never")) for member in members}
    group.reject_unknown()
    return values


def _read_subscription_data(account: Account, params: Params) -> Json:
    data = params.nested("subscription_data")
    if data is None:
        return {"trial": False}
    days = data.integer("trial_period_days", minimum=1)
    trial_end = data.integer("trial_end", minimum=account.now + 2 * DAY)
    if days is not None and trial_end is not None:
        raise data.invalid("trial_end", "You may only specify one of these: trial_end, trial_period_days.")
    sent = {name: data.raw(name) for name in ("description", "metadata", "trial_settings") if name in data}
    data.metadata()
    trials.read_trial_settings(data)
    data.reject_unknown()
    if days is not None:
        sent["trial_period_days"] = str(days)
    if trial_end is not None:
        sent["trial_end"] = str(trial_end)
    return {**sent, "trial": days is not None or trial_end is not None}


def _read_payment_intent_data(params: Params) -> Json:
    data = params.nested("payment_intent_data")
    if data is None:
        return {"description": None, "metadata": {}}
    values = {"description": data.string("description"), "metadata": data.metadata()}
    data.choice("setup_future_usage", ("off_session", "on_session"))
    data.reject_unknown()
    return values


_CONSTANT_MEMBERS: Json = {
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer_account": None,
    "customer_creation": None,
    "discounts": [],
    "integration_identifier": None,
    "invoice_creation": None,
    "managed_payments": None,
    "origin_context": None,
    "payment_link": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {},
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "submit_type": None,
    "ui_mode": "hosted_page",
    "wallet_options": None,
}
"""Members that no supported parameter changes."""
