"""Sample variables of every template, for checks and the preview."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from services.mailer.branding.models import Branding
from shared.messages import Part
from shared.messages.mailer.mails import VARIABLES, Template
from shared.messages.mailer.texts import TEXT_VARIABLES, TextTemplate

BRANDING: Final = Branding(
    product_name="Product", sender_address="mail@example.com", support_address="help@example.com"
)
UNSUBSCRIBE: Final = "https://nest.example.com/unsubscribe/k1.Zm9yIHBlb3BsZSB3aG8gaGF2ZSBoYWQgZW5vdWdo?lang=en"
"""A sample unsubscribe link."""
_VALUES: Final[Mapping[str, Any]] = {
    "link": "https://app.example.com/callback?state=x%2Fy&code=authzcode_000000C2kg4d9HyP1Bg09HBF4Bm40."
    "4f9a1c7be2d05836a1f4c9d2e7b80536f1a2c3d4e5f60718293a4b5c6d7e8f90",
    "minutes": 10,
    "code_minutes": 10,
    "press": False,
    "name": "Ada Lovelace",
    "ends_at": "2026-12-05T12:00:00.000Z",
    "dispute_id": "dp_1Nv0FGQ9RKHgCVdK",
    "amount": "12.00 EUR",
    "reason": "fraudulent",
    "outcome": "lost",
    "code": "204817",
    "application": "An app",
    "first": False,
    "without_method": True,
    "retried": True,
    "keeps_access": True,
    "money": "refunded",
    "refunded": "12.00 EUR",
    "credited": "3.00 EUR",
    "days": 9,
    "paused": False,
    "payment_failed": True,
    "price": "12.00 EUR",
    "interval": "month",
    "renews_at": "2026-12-05T12:00:00.000Z",
    "paid_at": "2026-11-28T12:00:00.000Z",
    "card": "4242",
    "expires": "11/2026",
    "plan": "Beak Pro",
    "endpoint_id": "webhookendpoint_000000C2kg4d9HyP1Bg09HBF4Bm40",
    "host": "api.example.com",
    "gone": True,
}
_KINDS: Final[Mapping[str, type[Part]]] = dict([*VARIABLES.items(), *TEXT_VARIABLES.items()])


def all_variables(template: Template | TextTemplate) -> str:
    """Return JSON of all variables of a template."""
    return json.dumps({name: _VALUES[name] for name in _KINDS[template].model_fields})


def required_variables(template: Template | TextTemplate) -> str:
    """Return JSON of the required variables of a template."""
    fields = _KINDS[template].model_fields
    return json.dumps({name: _VALUES[name] for name, field in fields.items() if field.is_required()})
