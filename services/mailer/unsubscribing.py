"""Beside which mails does a mail program offer to get no more of them?"""

from __future__ import annotations

from typing import Final

from shared.messages.mailer import Template
from shared.sealed import Sealer
from shared.unsubscribing import PATH, unsubscribe_token

UNSUBSCRIBABLE: Final[frozenset[Template]] = frozenset({"welcome", "welcome-trial", "trial-ending"})
"""The others are about a login, or about money, or go to operators."""


class UnsubscribeLinks:
    """Makes the links of ``List-Unsubscribe`` (RFC 2369, RFC 8058).

    Args:
        sealer: seals whom they are about.
        base_url: where the gateway is reached, without a slash at its end; None: there are no links.
    """

    def __init__(self, sealer: Sealer, base_url: str | None) -> None:
        self._sealer = sealer
        self._base_url = base_url

    def beside(self, template: Template, user_id: str | None) -> str | None:
        """The link beside a mail; None where there is none to be."""
        if template not in UNSUBSCRIBABLE or user_id is None or self._base_url is None:
            return None
        return f"{self._base_url}{PATH}/{unsubscribe_token(self._sealer, user_id)}"
