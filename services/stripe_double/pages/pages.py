"""Templates and responses of the pages, and the requests for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qs

from services.stripe_double.account import Account, Json
from services.stripe_double.idempotency import Response
from shared.money import format_amount
from shared.pages.pages import HTML, Pages, page_headers

STATIC = "/static"
PAGES = Pages("services.stripe_double", static_path=STATIC)
MAX_FORM_BYTES = 20_000
_HEADERS = page_headers(referrer="same-origin")
# A payment redirects to the app that ordered it, on any origin, and that one may redirect again: browsers apply
# `form-action` to all of these redirects.
_POLICY = "content-security-policy"
_HEADERS[_POLICY] = "; ".join(part for part in _HEADERS[_POLICY].split("; ") if not part.startswith("form-action"))


@dataclass(frozen=True)
class PageRequest:
    """A request for a page."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers by lower-case name."""

    @property
    def posts(self) -> bool:
        """Whether a form was submitted."""
        return self.method == "POST"


def parse_form(encoded: bytes) -> dict[str, str]:
    """Return the fields of a form, or of a query string; of a repeated field the last value.

    Raises:
        ValueError: The form is longer than 20,000 bytes, or has more than 100 fields.
    """
    if len(encoded) > MAX_FORM_BYTES:
        raise ValueError("too long")
    fields = parse_qs(encoded.decode(errors="replace"), keep_blank_values=True, max_num_fields=100)
    return {name: values[-1].strip() for name, values in fields.items()}


def page(template: str, status: int = HTTPStatus.OK, **values: object) -> Response:
    """Return a page; templates have the filters of this module and `error`, which is None by default."""
    text = PAGES.render(template, **{"error": None, "notice": None, **values})
    return Response(status, text.encode(), {**_HEADERS, "Content-Type": HTML})


def not_found() -> Response:
    """Return the page for an object that does not exist."""
    text = "The address is incomplete, or the Stripe double was started with another data folder since."
    return message("There is no such page", text, HTTPStatus.NOT_FOUND)


def message(heading: str, text: str, status: int = HTTPStatus.OK) -> Response:
    """Return a page with one message."""
    return page("message.html", status, heading=heading, text=text)


def redirect(url: str) -> Response:
    """Return a redirect after a form (303)."""
    return Response(HTTPStatus.SEE_OTHER, b"", {**_HEADERS, "Location": url})


def money(amount: int, currency: str) -> str:
    """Format an amount in the currency's smallest unit: `1,234.50 EUR`."""
    return format_amount(amount, currency, thousands=",").replace("-", "\N{MINUS SIGN}")


def day(moment: int) -> str:
    """Format a Unix time as a date in UTC: `1 December 2026`."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at.day} {at:%B %Y}"


def interval(recurring: Json) -> str:
    """Format the interval of a price: `per month`, `every 3 months`."""
    count = recurring["interval_count"]
    return f"per {recurring['interval']}" if count == 1 else f"every {count} {recurring['interval']}s"


def price_text(price: Json) -> str:
    """Format a price of one unit: `10.00 USD per month`."""
    recurring = price["recurring"]
    every = f" {interval(recurring)}" if recurring else ""
    if recurring and recurring["usage_type"] == "metered":
        return f"by usage{every}"
    if price["unit_amount"] is None:
        return f"by quantity{every}"
    return money(price["unit_amount"], price["currency"]) + every


def units(name: str, quantity: int | None) -> str:
    """Format the name of a product with its quantity, if that is above 1."""
    return f"{name} \N{MULTIPLICATION SIGN} {quantity}" if (quantity or 1) > 1 else name


def card_text(method: Json) -> str:
    """Format a payment method: `Visa ending in 4242`."""
    details = method[method["type"]]
    name = details["brand"].title() if method["type"] == "card" else details["bank_name"].title()
    return f"{name} ending in {details['last4']}"


def product_name(account: Account, price: Json) -> str:
    """Return the name of a price's product."""
    return str(account.get("product", price["product"])["name"])


PAGES.environment.filters.update(day=day)
