"""Interface of text providers, and the providers for development: the inbox and the terminal."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from typing import Final

from services.mailer.deliveries.models import Accepted, Outcome, Rejected
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import Mail

INBOX_DOMAIN: Final = "texts.localhost"
"""A text to +41791234567 is sent to the development inbox as a mail to ``+41791234567@texts.localhost``. Names under
``localhost`` never resolve to other machines (RFC 6761 section 6.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text message to one phone.

    Attributes:
        order_id: the ID of the text's order; the same in every attempt.
        to: the number in E.164.
        body: the content.
        useful_for: how long from now the text is useful to its reader.
        may_have_been_sent: whether the provider may have accepted an earlier attempt whose outcome was lost.
    """

    order_id: str
    to: str
    body: str
    useful_for: timedelta
    may_have_been_sent: bool


class TextProvider(ABC):
    """Service that sends texts."""

    @abstractmethod
    async def send(self, text: Text) -> Outcome:
        """Try once to send a text, within seconds. Errors are returned, not raised."""

    async def close(self) -> None:  # noqa: B027 -- not abstract: most providers have no connections of their own
        """Close the provider's own connections."""


class NoProvider(TextProvider):
    """Provider that rejects every text, for deployments without one."""

    async def send(self, text: Text) -> Outcome:  # noqa: ARG002 -- the interface's signature
        """Reject the text."""
        return Rejected("NEST_TEXT_PROVIDER is none")


class ConsoleProvider(TextProvider):
    """Provider that writes texts to the terminal; not to the log, which is stored."""

    async def send(self, text: Text) -> Outcome:
        """Write the text to standard output."""
        sys.stdout.write(f"\nText to {text.to}:\n{text.body}\n\n")
        sys.stdout.flush()
        return Accepted("shown")


class InboxProvider(TextProvider):
    """Provider that sends texts to the development inbox, as mails to ``INBOX_DOMAIN``; the sender is ASCII."""

    def __init__(self, mail_servers: MailServers, sender: str) -> None:
        self._mail_servers = mail_servers
        self._sender = sender

    async def send(self, text: Text) -> Outcome:
        """As ``MailServers.send``."""
        message_id, recipient = f"<{text.order_id}@{INBOX_DOMAIN}>", f"{text.to}@{INBOX_DOMAIN}"
        message = EmailMessage(policy=policy.SMTP)
        message["From"], message["To"], message["Message-ID"] = self._sender, recipient, message_id
        message.set_content(text.body)
        return await self._mail_servers.send(
            Mail(message_id=message_id, sender=self._sender, recipient=recipient, content=message.as_bytes())
        )
