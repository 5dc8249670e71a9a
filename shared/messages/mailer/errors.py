"""TODO."""

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
