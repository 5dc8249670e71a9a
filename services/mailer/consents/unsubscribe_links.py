"""Unsubscribe links of mails that a user may opt out of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.mail import LANGUAGE_PARAMETER, UNSUBSCRIBE_PATH, unsubscribe_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer

UNSUBSCRIBABLE: Final[frozenset[Template]] = frozenset({"welcome", "welcome-trial", "trial-ending"})
"""Templates with an unsubscribe link. The others are about a login or a payment, or go to operators."""


@dataclass(frozen=True, slots=True)
class UnsubscribeLinks:
    """Makes the links of the ``List-Unsubscribe`` header (RFC 2369, RFC 8058), also shown in the mail's footer.

    A link contains the sealed ID of the user. ``base_url`` is the gateway's public URL, without a slash at the end.
    """

    sealer: Sealer
    base_url: str

    def create(self, template: Template, user_id: str | None, locale: str) -> str | None:
        """Return the unsubscribe link of a mail, or None for mails and recipients without such a link.

        The page behind the link has the mail's language.
        """
        if template not in UNSUBSCRIBABLE or user_id is None:
            return None
        token = unsubscribe_token(self.sealer, user_id)
        return f"{self.base_url}{UNSUBSCRIBE_PATH}/{token}?{LANGUAGE_PARAMETER}={locale}"
