"""Rules of outgoing webhooks: endpoints with their secrets, and deliveries with their attempts and pauses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from services.mailer.deliveries.models import retry_pause
from shared.messages.mailer.errors import (
    TooManyWebhookEndpoints,
    TooManyWebhookSecrets,
    WebhookEndpointChanged,
    WebhookEndpointDisabled,
)
from shared.messages.mailer.webhooks import (
    DeliveryState,
    DisabledReason,
    ErrorClass,
    WebhookAttemptView,
    WebhookDeliveryView,
    WebhookEndpointView,
    WebhookSecretView,
)

MAX_ENDPOINTS_PER_CLIENT: Final = 16
"""Endpoints of one client, and of no client."""
MAX_SECRETS: Final = 4
"""Secrets of an endpoint that sign at the same time; each adds 48 bytes to a header."""
FIRST_PAUSE: Final = timedelta(seconds=2)
MAX_PAUSE: Final = timedelta(hours=4)
RETRY_PERIOD: Final = timedelta(days=3)
"""How long an event is retried, counted from its first failure."""
MAX_LOGGED_ATTEMPTS: Final = 50
"""More than an event has within the retry period, which has 30."""
GONE: Final = 410
"""Status with which a receiver removes its endpoint."""
ERASED_POSITION: Final = 0
"""Position of ``user.erased``, which is delivered before everything else that is pending about the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret of an endpoint.

    Attributes:
        sealed: ``whsec_…``, sealed for the mailer.
        expires_at: when it stops signing; None for the newest one.
    """

    id: str
    sealed: str
    created_at: datetime
    expires_at: datetime | None = None

    def signs(self, *, at: datetime) -> bool:
        """Return True if it signs webhooks at this time."""
        return self.expires_at is None or at < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that events are posted to.

    Attributes:
        client_id: the client whose users' events it gets; None for all users.
        types: the chosen types and families.
        secrets: newest first.
        enabled_at: when it was created or last enabled; failures before do not count.
        disabled_at: None while it is enabled.
    """

    id: str
    client_id: str | None
    url: str
    types: tuple[str, ...]
    description: str
    secrets: tuple[Secret, ...]
    enabled_at: datetime
    disabled_reason: DisabledReason | None = None
    disabled_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @property
    def enabled(self) -> bool:
        """Whether events are recorded for it and delivered."""
        return self.disabled_at is None

    def wants(self, event_type: str) -> bool:
        """Return True if it is enabled and has chosen a type, by name or by family."""
        return self.enabled and chooses(self.types, event_type)

    def must_have_version(self, version: int | None) -> None:
        """Check the version that the caller has read; None skips the check.

        Raises:
            WebhookEndpointChanged: the endpoint has another version.
        """
        if version is not None and version != self.version:
            raise WebhookEndpointChanged(version=self.version)

    def must_be_enabled(self) -> None:
        """Raise WebhookEndpointDisabled if it is disabled."""
        if not self.enabled:
            raise WebhookEndpointDisabled

    def change(
        self,
        *,
        url: str | None,
        types: Sequence[str] | None,
        description: str | None,
        enabled: bool | None,
        at: datetime,
    ) -> Self:
        """Return the changed endpoint; None leaves a field as it is."""
        changed = replace(
            self,
            url=self.url if url is None else url,
            types=self.types if types is None else tuple(dict.fromkeys(types)),
            description=self.description if description is None else description,
            updated_at=at,
        )
        if enabled is None or enabled == self.enabled:
            return changed
        return changed.enable(at=at) if enabled else changed.disable("operator", at=at)

    def enable(self, *, at: datetime) -> Self:
        """Return the enabled endpoint; what failed before has the whole retry period again."""
        return replace(self, enabled_at=at, disabled_at=None, disabled_reason=None, updated_at=at)

    def disable(self, reason: DisabledReason, *, at: datetime) -> Self:
        """Return the disabled endpoint."""
        return replace(self, disabled_at=at, disabled_reason=reason, updated_at=at)

    def roll(self, secret: Secret, *, overlap: timedelta, at: datetime) -> Self:
        """Return the endpoint with a new secret; the earlier ones sign for the overlap too, or until their own end.

        Raises:
            TooManyWebhookSecrets: it has ``MAX_SECRETS`` that sign beyond the overlap.
        """
        ends = at + overlap
        kept = [
            replace(each, expires_at=ends if each.expires_at is None else min(each.expires_at, ends))
            for each in self.secrets
        ]
        kept = [each for each in kept if each.signs(at=at)]
        if len(kept) >= MAX_SECRETS:
            raise TooManyWebhookSecrets(limit=MAX_SECRETS)
        return replace(self, secrets=(secret, *kept), updated_at=at)

    def signing(self, *, at: datetime) -> tuple[Secret, ...]:
        """Return the secrets that sign now, newest first."""
        return tuple(each for each in self.secrets if each.signs(at=at))

    def view(self, *, pending: int, last_delivered_at: datetime | None, at: datetime) -> WebhookEndpointView:
        """Return the endpoint as operators see it, without its secrets."""
        return WebhookEndpointView(
            id=self.id,
            client_id=self.client_id,
            url=self.url,
            types=self.types,
            description=self.description,
            enabled=self.enabled,
            disabled_reason=self.disabled_reason,
            disabled_at=self.disabled_at,
            secrets=tuple(
                WebhookSecretView(id=each.id, created_at=each.created_at, expires_at=each.expires_at)
                for each in self.signing(at=at)
            ),
            pending=pending,
            last_delivered_at=last_delivered_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
            version=self.version,
        )


def chooses(types: Sequence[str], event_type: str) -> bool:
    """Return True if a choice of types and families includes a type."""
    return "*" in types or event_type in types or f"{event_type.partition('.')[0]}.*" in types


def must_have_room(existing: int) -> None:
    """Check the number of a client's endpoints before one is added.

    Raises:
        TooManyWebhookEndpoints: there are as many as allowed.
    """
    if existing >= MAX_ENDPOINTS_PER_CLIENT:
        raise TooManyWebhookEndpoints(limit=MAX_ENDPOINTS_PER_CLIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt to deliver an event.

    Attributes:
        status: HTTP status of the response; None without one.
        error: kind of the failure; None for a success.
    """

    at: datetime
    duration_ms: int
    status: int | None = None
    error: ErrorClass | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the receiver accepted the event."""
        return self.error is None

    def view(self) -> WebhookAttemptView:
        """Return the attempt as operators see it."""
        return WebhookAttemptView(at=self.at, duration_ms=self.duration_ms, status=self.status, error=self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """An event for one endpoint.

    Attributes:
        event_id: the header ``webhook-id``.
        subject: what the order is kept for: a user, or the event itself if it is about none.
        position: place in the order of the subject's events at the endpoint.
        body: the signed JSON, sealed for the mailer.
        attempts: all attempts, those before a replay included.
        failures: failed attempts in a row, since the event was added, replayed or resumed.
        failing_since: time of the first of these failures.
        log: the latest attempts, oldest first.
        delivered_at: time of the last success.
    """

    id: str
    endpoint_id: str
    event_id: str
    type: str
    user_id: str | None
    subject: str
    position: int
    body: str
    state: DeliveryState = "pending"
    attempts: int = 0
    failures: int = 0
    failing_since: datetime | None = None
    next_attempt_at: datetime | None = None
    log: tuple[Attempt, ...] = ()
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None = None
    version: int = 1

    @property
    def pending(self) -> bool:
        """Whether it still has to be delivered."""
        return self.state == "pending"

    def after(self, attempt: Attempt, *, retry_after: timedelta | None, at: datetime) -> Self:
        """Return the delivery after one more attempt.

        ``retry_after`` is the pause that the receiver requests. It lengthens the own pause, up to ``MAX_PAUSE``.
        """
        logged = replace(
            self, attempts=self.attempts + 1, log=(*self.log, attempt)[-MAX_LOGGED_ATTEMPTS:], updated_at=at
        )
        if attempt.succeeded:
            return replace(
                logged, state="delivered", failures=0, failing_since=None, next_attempt_at=None, delivered_at=at
            )
        failures = self.failures + 1
        pause = retry_pause(self.id, failures, first=FIRST_PAUSE, longest=MAX_PAUSE)
        if retry_after is not None:
            pause = max(pause, min(retry_after, MAX_PAUSE))
        return replace(
            logged, failures=failures, failing_since=self.failing_since or attempt.at, next_attempt_at=at + pause
        )

    def expired(self, endpoint: Endpoint) -> bool:
        """Return True if its next attempt is after the retry period."""
        if self.failing_since is None or self.next_attempt_at is None:
            return False
        return self.next_attempt_at > max(self.failing_since, endpoint.enabled_at) + RETRY_PERIOD

    def given_up(self) -> Self:
        """Return the delivery without further attempts."""
        return replace(self, state="failed", next_attempt_at=None)

    def replay(self, *, at: datetime) -> Self:
        """Return the delivery, pending again with the whole retry period."""
        return replace(self, state="pending", failures=0, failing_since=None, next_attempt_at=at, updated_at=at)

    def due(self, *, at: datetime) -> bool:
        """Return True if it may be attempted now."""
        return self.next_attempt_at is None or self.next_attempt_at <= at

    def view(self) -> WebhookDeliveryView:
        """Return the delivery as operators see it, without its body."""
        return WebhookDeliveryView(
            endpoint_id=self.endpoint_id,
            event_id=self.event_id,
            type=self.type,
            user_id=self.user_id,
            state=self.state,
            created_at=self.created_at,
            updated_at=self.updated_at,
            next_attempt_at=self.next_attempt_at,
            attempts=tuple(each.view() for each in self.log),
        )
