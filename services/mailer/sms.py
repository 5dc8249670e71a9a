"""Who carries texts to phones? A provider behind a small port; on a developer's machine the inbox or the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from typing import Final, Protocol

from services.mailer.models.deliveries import HandedOver, HandOver, TurnedDown
from services.mailer.servers import MailServers
from services.mailer.smtp import Mail

INBOX_DOMAIN: Final = "texts.localhost"
"""A development inbox takes mail to ``+41791234567@texts.localhost`` for a text to that number. Names under
``localhost`` lead nowhere else (RFC 6761 section 6.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text to one phone.

    Attributes:
        order_id: tells texts apart; the same at every try of one text.
        to: E.164.
        body: what it says.
        useful_for: how long it is of use to whoever gets it, from now.
        perhaps_sent: whether an earlier try may have been taken without our learning of it.
    """

    order_id: str
    to: str
    body: str
    useful_for: timedelta
    perhaps_sent: bool


class TextProvider(Protocol):
    """Whoever takes texts from us."""

    async def hand_over(self, text: Text) -> HandOver:
        """Try once to hand a text over, in some seconds at most. What goes wrong is told, never raised."""

    async def close(self) -> None:
        """Take leave."""


class NoProvider:
    """Takes no texts: the settings name nobody who would."""

    async def hand_over(self, text: Text) -> HandOver:  # noqa: ARG002 -- the port
        """Never."""
        return TurnedDown("NEST_TEXT_PROVIDER is none")

    async def close(self) -> None:
        """Nothing is open."""


class Console:
    """Shows texts on the terminal; not in the log, which is kept."""

    async def hand_over(self, text: Text) -> HandOver:
        """Always."""
        sys.stdout.write(f"\nText to {text.to}:\n{text.body}\n\n")
        sys.stdout.flush()
        return HandedOver("shown")

    async def close(self) -> None:
        """Nothing is open."""


class Inbox:
    """Hands texts to the development inbox, as mails to ``INBOX_DOMAIN``; another mail server shows them as such.

    Args:
        smtp: the way to it.
        sender: an ASCII address.
    """

    def __init__(self, smtp: MailServers, sender: str) -> None:
        self._smtp = smtp
        self._sender = sender

    async def hand_over(self, text: Text) -> HandOver:
        """As ``MailServers.hand_over``."""
        message_id, recipient = f"<{text.order_id}@{INBOX_DOMAIN}>", f"{text.to}@{INBOX_DOMAIN}"
        message = EmailMessage(policy=policy.SMTP)
        message["From"], message["To"], message["Message-ID"] = self._sender, recipient, message_id
        message.set_content(text.body)
        return await self._smtp.hand_over(
            Mail(message_id=message_id, sender=self._sender, recipient=recipient, content=message.as_bytes())
        )

    async def close(self) -> None:
        """The connections are closed with the mails'."""
