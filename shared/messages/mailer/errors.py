"""Refusals of mailer. Clients rely on the codes, so they never change."""

from shared.errors import Kind, Refusal


class AwaitingConsent(Refusal, kind=Kind.NOT_FOUND):
    """The user has not chosen yet."""


class SuppressionNotFound(Refusal, kind=Kind.NOT_FOUND):
    """The address is not on the suppression list, or no suppression has this delivery."""


class RecipientComplained(Refusal, kind=Kind.CONFLICT):
    """The recipient reported a mail as spam; ``although_complained`` lifts the suppression all the same."""
