"""Unsubscribe links of mails that a user may opt out of."""

from __future__ import annotations

from typing import Final

from shared.mail import LANGUAGE_PARAMETER, UNSUBSCRIBE_PATH, unsubscribe_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer

UNSUBSCRIBABLE: Final[frozenset[Template]] = frozenset({"welcome", "welcome-trial", "trial-ending"})
"""Templates with an unsubscribe link. The others are about a login or a payment, or go to operators."""


class UnsubscribeLinks:
    """Makes the links of the ``List-Unsubscribe`` header (RFC 2369, RFC 8058), also shown in the mail's footer.

    Args:
        sealer: seals the user's ID in the link.
        base_url: the public URL of the gateway, without a slash at the end; None for no links.
    """

    def __init__(self, sealer: Sealer, base_url: str | None) -> None:
        self._sealer = sealer
        self._base_url = base_url

    def create(self, template: Template, user_id: str | None, locale: str) -> str | None:
        """Return the unsubscribe link of a mail, or None if it has none.

        Args:
            template: the mail's template.
            user_id: the recipient, if it is a user.
            locale: the mail's language, in which the page behind the link is shown.
        """
        if template not in UNSUBSCRIBABLE or user_id is None or self._base_url is None:
            return None
        token = unsubscribe_token(self._sealer, user_id)
        return f"{self._base_url}{UNSUBSCRIBE_PATH}/{token}?{LANGUAGE_PARAMETER}={locale}"
