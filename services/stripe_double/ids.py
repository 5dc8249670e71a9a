"""What are new objects called? Ids that look like Stripe's."""

import random
import string

_ALPHABET = string.ascii_letters + string.digits
# Seeded by the operating system, never by a test: a restarted account must not repeat its ids.
_RANDOM = random.Random()  # noqa: S311 - names, not secrets

PREFIXES = {
    "account": "acct_1",
    "charge": "ch_3",
    "coupon": "",
    "customer": "cus_",
    "customer_balance_transaction": "cbtxn_1",
    "discount": "di_1",
    "dispute": "du_1",
    "event": "evt_1",
    "invoice": "in_1",
    "invoice_payment": "inpay_1",
    "invoiceitem": "ii_1",
    "line_item": "il_1",
    "payment_intent": "pi_3",
    "payment_method": "pm_1",
    "billing_portal.session": "bps_1",
    "price": "price_1",
    "product": "prod_",
    "promotion_code": "promo_1",
    "refund": "re_3",
    "request": "req_",
    "subscription": "sub_1",
    "subscription_item": "si_",
    "webhook_endpoint": "we_1",
}
_LENGTHS = {"coupon": 8, "customer": 14, "product": 14, "request": 14, "subscription_item": 14}


def new_id(kind: str) -> str:
    """Returns a fresh id of that kind of object: its prefix, if it has one, and random characters."""
    return PREFIXES[kind] + token(_LENGTHS.get(kind, 23))


def token(length: int) -> str:
    """Returns random letters and digits."""
    return "".join(_RANDOM.choices(_ALPHABET, k=length))
