"""Placeholders for links to pages of Stripe in billing's replies, which the gateway replaces with links of its own.

Only the gateway knows its URL and the calling client. A placeholder is no secret, so it may be in a record of Kafka,
unlike the link. Fields with a placeholder have names that end with ``_url``.
"""

from __future__ import annotations

import re
from typing import Final, Literal

LINK: Final = "link:"
"""Beginning of every placeholder."""
PORTAL: Final = f"{LINK}portal"
"""Placeholder of the link to the user's customer portal."""
_INVOICE: Final = re.compile(r"link:(payment|hosted|pdf):([A-Za-z0-9_]{1,255})")


def payment_link(stp_subscription_id: str) -> str:
    """Placeholder of the link that pays the newest open invoice of a subscription."""
    return f"{LINK}payment:{stp_subscription_id}"


def invoice_link(stp_invoice_id: str, page: Literal["hosted", "pdf"]) -> str:
    """Placeholder of the link to a page or the PDF of an invoice."""
    return f"{LINK}{page}:{stp_invoice_id}"


def invoice_of(placeholder: str) -> dict[str, str] | None:
    """The fields that a placeholder gives to GetInvoiceLink; None for another text."""
    match = _INVOICE.fullmatch(placeholder)
    if match is None:
        return None
    page, stripe_id = match.groups()
    return {"subscription_id": stripe_id} if page == "payment" else {"invoice_id": stripe_id, "page": page}
