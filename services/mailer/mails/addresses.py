"""Validation and normalisation of mail addresses."""

from __future__ import annotations

import re
from typing import Final

from email_validator import EmailNotValidError, validate_email

from shared.messages.types import trimmed_address

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_COMMON: Final = re.compile(rf"(?=.{{1,254}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+")
"""Almost every address: a dot-atom and a host name (RFC 5321 section 4.1.2). The slower library parses the others."""


class UnusableAddress(Exception):
    """Mail cannot be sent to the address; the text gives the reason without the address."""


def usable_address(address: str) -> str:
    """Return an address in the form that mail servers expect: domain in ASCII (RFC 5891), local part unchanged.

    White space around it is dropped.

    Whether the domain accepts mail is not checked: the mail server finds out.

    Raises:
        UnusableAddress: the address is invalid by RFC 5321 and 6531, or quoted; quoted addresses occur in attacks
            only.
    """
    address = trimmed_address(address)
    if _COMMON.fullmatch(address):
        local, _, domain = address.partition("@")
        return f"{local}@{domain.lower()}"
    try:
        parsed = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError as invalid:
        raise UnusableAddress(type(invalid).__name__) from None
    return f"{parsed.local_part}@{parsed.ascii_domain}"
