"""Links to apps in mails, by way of a page of the gateway.

Gmail and other mail programs remove links with other schemes than http and https, such as ``myapp://callback``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from shared.mail import LANGUAGE_PARAMETER, OPEN_PATH, app_link_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer

LINK_TO_APP: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link"})
"""Templates whose link is one of an app; those of the others go to Stripe."""
LINK_TO_PAGE: Final[frozenset[Template]] = frozenset({"password-reset", "verify-address"})
"""Templates whose link is a page of the gateway."""
WEB_SCHEMES: Final = ("https://", "http://")


@dataclass(frozen=True, slots=True)
class AppLinks:
    """Makes links that every mail program shows. ``base_url`` is the gateway's public URL, without a slash at the end.

    A link contains the sealed link to the app: the gateway stores nothing for it, and nobody else can make one.
    """

    sealer: Sealer
    base_url: str

    def shown_in(self, template: Template, variables: str, *, product_name: str, locale: str) -> str:
        """Return a mail's variables, as JSON, with a link that mail programs show; unchanged if they do already.

        The page behind the link has the mail's language, whose tag also ends the link in a letter or a digit: mail
        programs cut off others.
        """
        if template not in LINK_TO_APP | LINK_TO_PAGE:
            return variables
        values = json.loads(variables)
        link = values.get("link") if isinstance(values, dict) else None
        if isinstance(link, str) and template in LINK_TO_PAGE:
            return json.dumps(values | {"link": f"{link}?{LANGUAGE_PARAMETER}={locale}"})
        if not isinstance(link, str) or link.lower().startswith(WEB_SCHEMES):
            return variables
        token = app_link_token(self.sealer, link, product_name=product_name)
        return json.dumps(values | {"link": f"{self.base_url}{OPEN_PATH}/{token}?{LANGUAGE_PARAMETER}={locale}"})
