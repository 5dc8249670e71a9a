"""In which mails can their reader have no more news from us?"""

from __future__ import annotations

from typing import Final

from shared.mail import LANGUAGE_PARAMETER, UNSUBSCRIBE_PATH, unsubscribe_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer

UNSUBSCRIBABLE: Final[frozenset[Template]] = frozenset({"welcome", "welcome-trial", "trial-ending"})
"""The others are about a login, or about money, or go to operators."""


class UnsubscribeLinks:
    """Makes the links of ``List-Unsubscribe`` (RFC 2369, RFC 8058), which stand below such a mail too.

    Args:
        sealer: seals whom they are about.
        base_url: where the gateway is reached, without a slash at its end; None: there are no links.
    """

    def __init__(self, sealer: Sealer, base_url: str | None) -> None:
        self._sealer = sealer
        self._base_url = base_url

    def beside(self, template: Template, user_id: str | None, locale: str) -> str | None:
        """The link beside a mail; None where there is none to be.

        Args:
            template: which mail.
            user_id: who reads it, if it is a user.
            locale: the language that it is written in: the page behind the link goes on in it.
        """
        if template not in UNSUBSCRIBABLE or user_id is None or self._base_url is None:
            return None
        token = unsubscribe_token(self._sealer, user_id)
        return f"{self._base_url}{UNSUBSCRIBE_PATH}/{token}?{LANGUAGE_PARAMETER}={locale}"
