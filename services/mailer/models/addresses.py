"""Which addresses can be written to?"""

from __future__ import annotations

import re
from typing import Final

from email_validator import EmailNotValidError, validate_email

from services.mailer.errors import UnusableAddress

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN: Final = re.compile(rf"(?=.{{1,254}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+")
"""Almost every address: a dot-atom and a host name (RFC 5321 section 4.1.2). The rest is read with more care."""


def usable_address(address: str) -> str:
    """The address as mail servers read it: its domain in ASCII (RFC 5891), its local part as it came.

    Whether the domain takes mail is not asked here: the mail server finds out.

    Raises:
        UnusableAddress: not an address by RFC 5321 and 6531, or one with quotes, which nobody has and attacks use.
    """
    if _PLAIN.fullmatch(address):
        local, _, domain = address.partition("@")
        return f"{local}@{domain.lower()}"
    try:
        parsed = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError as wrong:
        raise UnusableAddress(type(wrong).__name__) from None
    return f"{parsed.local_part}@{parsed.ascii_domain}"
