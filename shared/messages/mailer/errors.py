"""Refusals of mailer. Clients rely on the codes, so they never change."""

from shared.errors import Kind, Refusal


class AwaitingConsent(Refusal):
    """The user has not chosen yet."""

    kind = Kind.NOT_FOUND


class SuppressionNotFound(Refusal):
    """The address is not on the suppression list, or no suppression has this delivery."""

    kind = Kind.NOT_FOUND


class RecipientComplained(Refusal):
    """The recipient reported a mail as spam; ``although_complained`` lifts the suppression all the same."""

    kind = Kind.CONFLICT
