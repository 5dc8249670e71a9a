"""Commands to send messages again that expired from a topic before they were read."""

from typing import Final

from shared.messages.message import Command


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


class RepublishFromAuth(RepublishMessages, wire="auth.republish-from-auth"):
    """Send messages of auth again."""


class RepublishFromBilling(RepublishMessages, wire="billing.republish-from-billing"):
    """Send messages of billing again."""


class RepublishFromMailer(RepublishMessages, wire="mailer.republish-from-mailer"):
    """Send messages of mailer again."""


class RepublishFromNews(RepublishMessages, wire="news.republish-from-news"):
    """Send messages of news again."""


REPUBLISH_COMMANDS: Final = (RepublishFromAuth, RepublishFromBilling, RepublishFromMailer, RepublishFromNews)
"""The command of each service."""
