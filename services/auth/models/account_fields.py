"""What do fields of the accounts API say, and which of them is wrong?"""

from __future__ import annotations

import re
from typing import Final

from services.auth.models.users import normal_email
from shared.messages.auth.errors import FieldRefused, InvalidEmail

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def account_email(text: str, *, test_domains: bool) -> str:
    """As ``normal_email``, for a field that is called ``email``.

    Raises:
        FieldRefused: it can't receive mail.
    """
    try:
        return normal_email(text, test_domains=test_domains)
    except InvalidEmail:
        raise FieldRefused("email", "not an address that can receive mail") from None


def uuid_text(text: str, field: str) -> str:
    """A UUID as RFC 9562 section 4 writes it, in lower case.

    Raises:
        FieldRefused: it is none.
    """
    lower = text.lower()
    if not _UUID.fullmatch(lower):
        raise FieldRefused(field, "not a UUID")
    return lower
