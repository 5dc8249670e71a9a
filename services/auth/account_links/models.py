"""Account links: the permission behind a mailed link that sets a password or proves an address."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from services.auth.tokens.credentials import Code, hash_key
from shared.documents import stored_as
from shared.messages.auth.account_links import LinkKind
from shared.messages.auth.errors import LinkNotValid

LIFETIMES: Final[dict[LinkKind, timedelta]] = {"reset": timedelta(minutes=30), "verify": timedelta(days=1)}
AccountKind = Literal["owner", "user"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLink:
    """The permission behind one mailed link. It works once: redeeming it removes the document.

    Attributes:
        key_hash: SHA-256 of the link's key. The key itself exists only in the mail.
        account_id: ID of the owner, or of the application's user.
        email: address that the link was mailed to, in normal form; the link is void once the account has another one.
    """

    id: str
    key_hash: str = stored_as("key")
    kind: LinkKind
    account_kind: AccountKind
    account_id: str
    email: str
    created_at: datetime
    expires_at: datetime
    version: int = 1

    @classmethod
    def issue(
        cls, kind: LinkKind, account_kind: AccountKind, account_id: str, email: str, code: Code, *, at: datetime
    ) -> AccountLink:
        """A new link with the ID of the code."""
        return cls(
            id=code.id,
            key_hash=hash_key(code.key),
            kind=kind,
            account_kind=account_kind,
            account_id=account_id,
            email=email,
            created_at=at,
            expires_at=at + LIFETIMES[kind],
        )

    def must_open(self, kind: LinkKind, *, at: datetime) -> None:
        """Check that this is a link of a kind, and that it still works.

        Raises:
            LinkNotValid: it is one of another kind, or has expired.
        """
        if self.kind != kind or at >= self.expires_at:
            raise LinkNotValid
