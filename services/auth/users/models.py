"""Users, and the addresses and phone numbers that identify them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, Self

from email_validator import EmailNotValidError, validate_email

from services.auth.phone.models import number_spellings
from shared.messages.auth.errors import InvalidEmail, UserAlreadyRegistered
from shared.messages.types import trimmed_address

IdentifierType = Literal["email", "phone"]
PLAIN_LOCAL_PART: Final = re.compile(r"[A-Za-z0-9_+-]{1,31}(?:\.[A-Za-z0-9_+-]{1,31})?")
"""Local parts that are valid in any address: a subset of the dot-atom of RFC 5322, within RFC 5321's 64 characters."""
MAX_ADDRESS_LENGTH: Final = 254
"""RFC 5321 section 4.5.3.1.3: 256 octets with the angle brackets."""


def normal_email(text: str, *, test_domains: bool) -> str:
    """Return the normal form of an email address: ASCII, in lower case.

    All comparisons, documents and mails use this form, never the text that was typed. So a person who follows a link
    has proven control of exactly the address that identifies the account. Spellings that mean one mailbox everywhere in
    practice (case, an international domain and its punycode, white space around the address) become one account.
    Spellings that may be two mailboxes (dots, ``+tags``, letters outside ASCII) stay different. The local part must be
    ASCII, since few mail servers accept anything else (RFC 6531), and a dot-atom: ``taro.@example.com``, which some
    mobile carriers assigned, has no form that all mail servers accept (RFC 5321 section 4.1.2). ``.test`` domains
    (RFC 6761) are valid only if ``test_domains``, never in production.

    Raises:
        InvalidEmail: the text is not the address of a mailbox. DNS is not queried.
    """
    text = trimmed_address(text)
    local, _, domain = text.partition("@")
    if PLAIN_LOCAL_PART.fullmatch(local):
        # Full validation of the same few domains would cost as much as the rest of the request, so it is cached.
        plain = f"{local.lower()}@{_normal_domain(domain, test_domains=test_domains)}"
        if len(plain) <= MAX_ADDRESS_LENGTH:
            return plain
    return _validated(text, test_domains=test_domains)


@lru_cache(maxsize=4_096)
def _normal_domain(domain: str, *, test_domains: bool) -> str:
    return _validated(f"a@{domain}", test_domains=test_domains).partition("@")[2]


def _validated(text: str, *, test_domains: bool) -> str:
    try:
        valid = validate_email(
            text,
            allow_smtputf8=False,
            allow_quoted_local=False,
            check_deliverability=False,
            strict=True,
            test_environment=test_domains,
        )
    except EmailNotValidError as invalid:
        raise InvalidEmail from invalid
    if valid.ascii_email is None:
        raise InvalidEmail
    return valid.ascii_email.lower()


def spellings(identifier_type: IdentifierType, value: str) -> tuple[str, ...]:
    """Return all values under which an identifier may be stored, the present one first; see ``number_spellings``."""
    return number_spellings(value) if identifier_type == "phone" else (value,)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person; without a name until the person registers one."""

    id: str
    created_at: datetime
    first_name: str = ""
    last_name: str = ""
    version: int = 1

    def set_name(self, first_name: str, last_name: str) -> Self:
        """Set the name of a user who has none.

        Raises:
            UserAlreadyRegistered: the user has a name.
        """
        if self.first_name or self.last_name:
            raise UserAlreadyRegistered
        return replace(self, first_name=first_name, last_name=last_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """An email address or phone number with which a user logs in; it belongs to one user at a time.

    Attributes:
        identifier_value: in normal form.
        verified_at: when the user proved control of it for the first time; None before.
        removed_at: when it was removed from the user, and became free for others.
    """

    id: str
    user_id: str
    identifier_type: IdentifierType
    identifier_value: str
    created_at: datetime
    updated_at: datetime
    verified_at: datetime | None
    removed_at: datetime | None = None
    version: int = 1

    @property
    def is_verified_email(self) -> bool:
        """Whether it is an email address that its user still has and has verified."""
        return self.identifier_type == "email" and self.verified_at is not None and self.removed_at is None

    def verify(self, *, at: datetime) -> Self:
        """Mark the identifier as verified."""
        return replace(self, verified_at=at, updated_at=at)
