"""Refusals of mailer. Clients rely on the codes, so they never change."""

from shared.errors import Kind, Refusal


class AwaitingConsent(Refusal, kind=Kind.NOT_FOUND):
    """The user has not chosen yet."""


class SuppressionNotFound(Refusal, kind=Kind.NOT_FOUND):
    """The address is not on the suppression list, or no suppression has this delivery."""


class RecipientComplained(Refusal, kind=Kind.CONFLICT):
    """The recipient reported a mail as spam; ``although_complained`` lifts the suppression all the same."""


class WebhookEndpointNotFound(Refusal, kind=Kind.NOT_FOUND):
    """There is no webhook endpoint with this ID."""


class WebhookEndpointChanged(Refusal, kind=Kind.CONFLICT):
    """The webhook endpoint has changed since the ``version`` in the request."""


class WebhookEndpointDisabled(Refusal, kind=Kind.CONFLICT):
    """The webhook endpoint is disabled."""


class WebhookUrlRefused(Refusal):
    """Nest does not send webhooks to this URL. ``meta.reason`` says why."""


class TooManyWebhookEndpoints(Refusal, kind=Kind.CONFLICT):
    """The client has as many webhook endpoints as it may have. ``meta.limit`` is their number."""


class TooManyWebhookSecrets(Refusal, kind=Kind.CONFLICT):
    """The webhook endpoint has as many secrets that sign as it may have. ``meta.limit`` is their number."""
