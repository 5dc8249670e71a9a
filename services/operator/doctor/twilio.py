"""Does Twilio take our account, and has the messaging service a number or a name to send from?"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

from services.operator.doctor.findings import Finding, ok, problem
from services.operator.doctor.http import OK, Answer, asked

AREA: Final = "twilio"
BASE: Final = "https://api.twilio.com"
MESSAGING: Final = "https://messaging.twilio.com"
"""Messaging Services have an API of their own (https://www.twilio.com/docs/messaging/api/service-resource)."""
REFUSED: Final = frozenset({401, 403})
SENDERS: Final = {"PhoneNumbers": "phone_numbers", "AlphaSenders": "alpha_senders", "ShortCodes": "short_codes"}


async def look_at_twilio(settings: Any) -> AsyncIterator[Finding]:
    """Whether Twilio takes the account, and its messaging service can send.

    Args:
        settings: the mailer's, with Twilio as the provider of texts.
    """
    sid = settings.twilio_account_sid
    account = await _get(settings, BASE, f"/2010-04-01/Accounts/{sid}.json")
    if account.status in REFUSED:
        yield problem(
            AREA, f"does not take the account ({account.status})", "check NEST_TWILIO_ACCOUNT_SID and _AUTH_TOKEN"
        )
        return
    if account.status != OK:
        yield problem(AREA, f"answers {account.status} about the account", "see status.twilio.com, and try again")
        return
    if account.said.get("status", "active") != "active":
        yield problem(AREA, f"the account is {account.said['status']}", "see Twilio's console")
        return
    yield ok(AREA, "takes the account")
    yield await _of_service(settings)


async def _of_service(settings: Any) -> Finding:
    name = settings.twilio_messaging_service_sid
    service = await _get(settings, MESSAGING, f"/v1/Services/{name}")
    if service.status != OK:
        return problem(
            AREA,
            f"does not know the messaging service {name} ({service.status})",
            "check NEST_TWILIO_MESSAGING_SERVICE_SID: it must be of this account",
        )
    for path, field in SENDERS.items():
        found = await _get(settings, MESSAGING, f"/v1/Services/{name}/{path}")
        if found.said.get(field):
            return ok(AREA, f"the messaging service {name} has {len(found.said[field])} {field.replace('_', ' ')}")
    return problem(
        AREA,
        f"the messaging service {name} has no number and no name to send from",
        "add a sender to it in Twilio's console",
    )


async def _get(settings: Any, base: str, path: str) -> Answer:
    login = f"{settings.twilio_account_sid}:{settings.twilio_auth_token.get_secret_value()}"
    headers = {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    return await asked(f"{settings.twilio_api_base or base}{path}", headers=headers)
