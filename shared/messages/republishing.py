"""Commands to send messages again that expired from a topic before they were read."""

from typing import Final

from shared.messages.message import Command

REPUBLISHING: Final = "republishing"
"""Topic of these commands. Every service reads those to others too, and ignores them."""


class RepublishMessages(Command):
    """Send a topic's messages again that the service's inbox rows hold. Receivers ignore those that they have handled.

    The bus handles these commands itself. Their key is the topic.
    """

    recipient: str
    """Topic of the messages, without prefix: ``mailer.commands``."""
    since: int
    """Unix milliseconds: messages that are older were read."""
    before: int
    """Unix milliseconds: messages from then on have not expired."""


class RepublishFromAuth(RepublishMessages, wire="auth.republish-from-auth", topic=REPUBLISHING):
    """Send messages of auth again."""


class RepublishFromBilling(RepublishMessages, wire="billing.republish-from-billing", topic=REPUBLISHING):
    """Send messages of billing again."""


class RepublishFromMailer(RepublishMessages, wire="mailer.republish-from-mailer", topic=REPUBLISHING):
    """Send messages of mailer again."""


class RepublishFromNews(RepublishMessages, wire="news.republish-from-news", topic=REPUBLISHING):
    """Send messages of news again."""


REPUBLISH_COMMANDS: Final = (RepublishFromAuth, RepublishFromBilling, RepublishFromMailer, RepublishFromNews)
"""The command of each service."""
