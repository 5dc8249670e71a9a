"""Tax rates, and the taxes of the invoices that have them.

Taxes are computed for each line after its part of the discounts, and rounded half up to the smallest unit. The rates of
a subscription become those of its invoices (docs.stripe.com/billing/taxes/tax-rates).
"""

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import accumulate, pairwise

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_boolean, list_page

MAX_RATES = 5
"""Default tax rates of an invoice (docs.stripe.com/invoicing/taxes/tax-rates)."""
MAX_PERCENTAGE = 100
MAX_DECIMALS = 4
_TEXTS = ("country", "description", "jurisdiction", "state", "tax_type")


def create_tax_rate(account: Account, params: Params) -> Json:
    """POST /v1/tax_rates: `display_name`, `percentage` from 0 to 100, and `inclusive`."""
    inclusive = params.boolean("inclusive")
    percentage = _percentage(params)
    rate = account.new(
        "tax_rate",
        active=params.boolean("active", default=True),
        **{name: params.string(name) for name in _TEXTS},
        display_name=params.required("display_name"),
        effective_percentage=None,
        flat_amount=None,
        inclusive=inclusive,
        jurisdiction_level=None,
        metadata=params.metadata(),
        percentage=percentage,
        rate_type="percentage",
    )
    params.reject_unknown()
    if inclusive is None:
        raise params.missing("inclusive")
    events.emit(account, "tax_rate.created", account.put(rate))
    return rate


def _percentage(params: Params) -> float:
    text = params.required("percentage")
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise params.invalid("percentage", f"Invalid decimal: {text}") from error
    if not number.is_finite() or not 0 <= number <= MAX_PERCENTAGE:
        raise params.invalid("percentage", "percentage must be between 0 and 100.")
    if int(number.as_tuple().exponent) < -MAX_DECIMALS:
        raise params.invalid("percentage", "percentage may have up to 4 decimal places.")
    return float(number)


def update_tax_rate(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/tax_rates/{id}; `percentage` and `inclusive` are immutable."""
    before = account.get("tax_rate", identifier)
    changes = {
        **params.sent_strings((*_TEXTS, "display_name")),
        "active": params.boolean("active", default=before["active"]),
        "metadata": params.metadata(before["metadata"]),
    }
    params.reject_unknown()
    return events.emit_if_changed(account, "tax_rate.updated", before, account.update(before, **changes))


def list_tax_rates(account: Account, params: Params) -> Json:
    """GET /v1/tax_rates: `active`, `inclusive`."""
    rates = account.all("tax_rate")
    for member in ("active", "inclusive"):
        rates = filter_boolean(params, rates, member)
    return list_page(account, params, "/v1/tax_rates", rates)


def _retrieve(account: Account, params: Params, identifier: str) -> Json:
    params.reject_unknown()
    return account.get("tax_rate", identifier)


def read_default_tax_rates(account: Account, params: Params, current: list[str] | None = None) -> list[str]:
    """Return the IDs of `default_tax_rates`.

    Args:
        account: The account.
        params: The parameters of a subscription.
        current: The IDs before; they may have become inactive.

    Raises:
        StripeApiError: 400 for more than five rates, and for one that does not exist or is inactive.
    """
    identifiers = list(dict.fromkeys(params.strings("default_tax_rates")))
    if len(identifiers) > MAX_RATES:
        raise params.invalid("default_tax_rates", f"You may only specify up to {MAX_RATES} tax rates.")
    for index, identifier in enumerate(identifiers):
        rate = account.get("tax_rate", identifier, param=f"{params.encoded_name('default_tax_rates')}[{index}]")
        if not rate["active"] and identifier not in (current or []):
            raise params.invalid("default_tax_rates", f"The tax rate {identifier} is inactive.")
    return identifiers


def amounts(account: Account, identifiers: list[str], lines: list[Json], discount: int) -> Json:
    """Return the lines of an invoice with their taxes, and the amounts of the invoice that depend on taxes.

    Args:
        account: The account.
        identifiers: IDs of the tax rates.
        lines: The line items.
        discount: What the invoice's discounts take off the discountable lines together.
    """
    rates = [account.get("tax_rate", identifier) for identifier in identifiers]
    shares = _shares(discount, [line["amount"] if line["discountable"] else 0 for line in lines])
    taxed = [
        {**line, "taxes": _taxes(rates, line["amount"] - share)} for line, share in zip(lines, shares, strict=True)
    ]
    subtotal = sum(line["amount"] for line in lines)
    included_before_discount = sum(_sum(_taxes(rates, line["amount"]), "inclusive") for line in lines)
    taxes = [tax for line in taxed for tax in line["taxes"]]
    included, added = _sum(taxes, "inclusive"), _sum(taxes, "exclusive")
    return {
        "lines": taxed,
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal - included_before_discount,
        "total": subtotal - discount + added,
        "total_excluding_tax": subtotal - discount - included,
        "total_taxes": [_total(rate, taxes) for rate in rates if lines],
    }


def _shares(discount: int, discountable: list[int]) -> list[int]:
    """Divide a discount among amounts in proportion, so that the parts are whole and add up to it."""
    total = sum(discountable)
    if total <= 0:
        return [0 for _ in discountable]
    ends = [_rounded(Decimal(discount) * part / total) for part in accumulate(discountable)]
    return [end - start for start, end in pairwise([0, *ends])]


def _taxes(rates: list[Json], amount: int) -> list[Json]:
    included = sum((Decimal(str(rate["percentage"])) for rate in rates if rate["inclusive"]), Decimal(0))
    net = Decimal(amount) * 100 / (100 + included)
    taxes = [
        {
            "amount": _rounded(net * Decimal(str(rate["percentage"])) / 100),
            "tax_behavior": "inclusive" if rate["inclusive"] else "exclusive",
            "tax_rate_details": {"tax_rate": rate["id"]},
            "taxability_reason": "not_available",
            "type": "tax_rate_details",
        }
        for rate in rates
    ]
    return [{**tax, "taxable_amount": amount - _sum(taxes, "inclusive")} for tax in taxes]


def _total(rate: Json, taxes: list[Json]) -> Json:
    """Return the tax of one rate over all lines."""
    own = [tax for tax in taxes if tax["tax_rate_details"]["tax_rate"] == rate["id"]]
    return {**own[0], **{name: sum(tax[name] for tax in own) for name in ("amount", "taxable_amount")}}


def _sum(taxes: list[Json], behavior: str) -> int:
    return sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == behavior)


def _rounded(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_HALF_UP))


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/tax_rates": list_tax_rates,
    "POST /v1/tax_rates": create_tax_rate,
    "GET /v1/tax_rates/{}": _retrieve,
    "POST /v1/tax_rates/{}": update_tax_rate,
}
"""All requests about tax rates; `{}` stands for an ID."""
