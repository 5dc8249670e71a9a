"""Links to apps in mails, by way of a page of the gateway.

Gmail and other mail programs remove links with other schemes than http and https, such as ``myapp://callback``. Clients
may have a page with a button in front of their other links too, because mail scanners open every link.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from services.mailer.branding.models import Branding
from shared.mail import LANGUAGE_PARAMETER, OPEN_PATH, PRESS_PATH, PressLink, app_link_token, press_link_token
from shared.messages.mailer.mails import Template
from shared.sealing import Sealer

LINK_TO_APP: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link"})
"""Templates whose link is one of an app; those of the others go to Stripe."""
LINK_TO_PAGE: Final[frozenset[Template]] = frozenset({"password-reset", "verify-address"})
"""Templates whose link is a page of the gateway."""
WEB_SCHEMES: Final = ("https://", "http://")
MAX_LOGO_URL: Final = 200
"""Characters of a logo's URL that fit into the token of a link; the page shows the product's name instead of others."""


@dataclass(frozen=True, slots=True)
class AppLinks:
    """Makes links that every mail program shows. ``base_url`` is the gateway's public URL, without a slash at the end.

    A link contains the sealed link to the app: the gateway stores nothing for it, and nobody else can make one.
    """

    sealer: Sealer
    base_url: str

    def shown_in(self, template: Template, variables: str, *, branding: Branding, locale: str) -> str:
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
        if not isinstance(link, str):
            return variables
        if not link.lower().startswith(WEB_SCHEMES):
            path, token = OPEN_PATH, app_link_token(self.sealer, link, product_name=branding.product_name)
        elif values.get("press"):
            path, token = PRESS_PATH, press_link_token(self.sealer, _press_link(link, branding))
        else:
            return variables
        return json.dumps(values | {"link": f"{self.base_url}{path}/{token}?{LANGUAGE_PARAMETER}={locale}"})


def _press_link(link: str, branding: Branding) -> PressLink:
    logo_url = branding.logo_url
    return PressLink(
        link=link,
        product_name=branding.product_name,
        accent=branding.palette.accent,
        on_accent=branding.palette.on_accent,
        background=branding.palette.page,
        logo_url=logo_url if logo_url is not None and len(logo_url) <= MAX_LOGO_URL else None,
    )
