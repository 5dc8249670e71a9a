"""How does the mailer say no, and what can be wrong with an order?"""


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
