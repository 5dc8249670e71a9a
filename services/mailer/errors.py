"""How does the mailer say no, and what can be wrong with an order?"""

from shared.errors import Kind, Refusal


class AwaitingConsent(Refusal):
    """The user has never said what they consent to."""

    kind = Kind.NOT_FOUND


class SuppressionNotFound(Refusal):
    """Nothing keeps mails from that address."""

    kind = Kind.NOT_FOUND


class RecipientComplained(Refusal):
    """A person called one of our mails spam; that is not taken back by mistake."""

    kind = Kind.CONFLICT


class UnusableAddress(Exception):
    """No mail can be sent to this address; its text says why, without the address."""


class UnusableVariables(Exception):
    """A template was ordered with variables that it can't show; its text names the places, never the values."""


class UnusableHeader(Exception):
    """A header's value holds what no header can: a line break, a control character, a word longer than a line.

    Its text names the header only.
    """


class UnusableTemplate(Exception):
    """A template can't be used; its text names the file and what is wrong with it."""
