"""Who is a person to us, and by which addresses and numbers are they known?"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, Self

from email_validator import EmailNotValidError, validate_email

from shared.messages.auth.errors import InvalidEmail, UserAlreadyRegistered

IdentifierType = Literal["email", "phone"]
PLAIN_LOCAL: Final = re.compile(r"[A-Za-z0-9_+-]{1,31}(?:\.[A-Za-z0-9_+-]{1,31})?")
"""What may stand before any @: well within the dot-atom of RFC 5322 and the 64 characters of RFC 5321."""
MOST_CHARACTERS: Final = 254
"""Of a whole address (RFC 5321 section 4.5.3.1.3, with its angle brackets)."""


def normal_email(text: str, *, test_domains: bool) -> str:
    """The one form of an address that is compared, stored, shown and written to: ASCII, lower case.

    Mail goes to this form and never to what was typed, so that whoever follows a link has shown control of exactly the
    address the account hangs on. Two spellings that mean one mailbox anywhere in practice (case, an international
    domain and its punycode) become one account; spellings that may be two mailboxes (dots, ``+tags``, letters outside
    ASCII) never do. The part before the @ must be ASCII: few mail servers take anything else (RFC 6531).

    Args:
        text: as a client sent it.
        test_domains: whether ``.test`` counts as a domain that can receive mail (RFC 6761); never in production.

    Raises:
        InvalidEmail: it can't receive mail, by its form alone; DNS is not asked.
    """
    local, _, domain = text.partition("@")
    if PLAIN_LOCAL.fullmatch(local):
        # To look at every character of the same few domains again and again costs what all the rest of an order does.
        plain = f"{local.lower()}@{_normal_domain(domain, test_domains=test_domains)}"
        if len(plain) <= MOST_CHARACTERS:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person. What is known of them hangs on the id.

    Attributes:
        first_name: empty until they have said it; the same for ``last_name``.
    """

    id: str
    created_at: datetime
    first_name: str = ""
    last_name: str = ""
    version: int = 1

    def introduce(self, first_name: str, last_name: str) -> Self:
        """The same with a name.

        Raises:
            UserAlreadyRegistered: they have one already.
        """
        if self.first_name or self.last_name:
            raise UserAlreadyRegistered
        return replace(self, first_name=first_name, last_name=last_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """An address or a number by which a person logs in; one person's at a time.

    Attributes:
        identifier_value: in normal form.
        verified_at: since when the person has shown that it is theirs; None before they ever did.
        removed_at: since when it is theirs no longer, and free for somebody else.
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

    @classmethod
    def of_new(
        cls,
        user: User,
        identifier_type: IdentifierType,
        identifier_value: str,
        *,
        id: str,  # noqa: A002 -- the field's name
        verified: bool,
        at: datetime,
    ) -> Self:
        """The first identifier of a new user.

        Args:
            user: whose it is.
            identifier_type: what sort it is.
            identifier_value: in normal form.
            id: its own.
            verified: whether they have just shown that it is theirs.
            at: now.
        """
        return cls(
            id=id,
            user_id=user.id,
            identifier_type=identifier_type,
            identifier_value=identifier_value,
            created_at=at,
            updated_at=at,
            verified_at=at if verified else None,
        )

    @property
    def is_proven_email(self) -> bool:
        """Whether mail to it reaches its user."""
        return self.identifier_type == "email" and self.verified_at is not None and self.removed_at is None

    def verify(self, *, at: datetime) -> Self:
        """The same, shown to be theirs now."""
        return replace(self, verified_at=at, updated_at=at)
