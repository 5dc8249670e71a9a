"""Marketing consents of users, and the state of their sync to the audience provider."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from services.mailer.deliveries.models import Accepted, AccountRefused, Deferred, Outcome, Rejected, retry_pause
from shared.messages import Caller
from shared.messages.mailer.consents import ConsentLevel, MarketingConsentView

SyncState = Literal["carried", "waiting", "given_up", "no_address"]
FIRST_PAUSE: Final = timedelta(seconds=10)
MAX_PAUSE: Final = timedelta(hours=2)
RETRY_PERIOD: Final = timedelta(days=7)
"""How long a sync is retried during an outage of the provider. While it refuses our account, there is no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """Marketing mail that a user agreed to receive.

    Attributes:
        id: ``mktngconsent_…``.
        source: where the choice was made: ``user``, ``internal`` or ``unsubscribe-link``.
        updated_at: the time of the latest choice.
        version: counts the user's choices.
    """

    id: str
    user_id: str
    level: ConsentLevel
    source: str
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(cls, user_id: str, level: ConsentLevel, *, id: str, source: str, at: datetime) -> Self:  # noqa: A002
        """Record a user's first choice."""
        return cls(id=id, user_id=user_id, level=level, source=source, created_at=at, updated_at=at)

    def choose(self, level: ConsentLevel, *, source: str, at: datetime) -> Self:
        """Record a later choice; repeating the same level also updates the time and the source."""
        return replace(self, level=level, source=source, updated_at=at)

    def change(self, *, id: str, number: int, caller: Caller) -> ConsentChange:  # noqa: A002 -- the field's name
        """Return the history entry of this choice, with its number; the user's first is 1."""
        return ConsentChange(
            id=id,
            user_id=self.user_id,
            number=number,
            level=self.level,
            source=self.source,
            caller=ChangeCaller(kind=caller.kind, user_id=caller.user_id),
            created_at=self.updated_at,
        )

    def view(self) -> MarketingConsentView:
        """Return the consent as clients read it."""
        return MarketingConsentView(level=self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCaller:
    """Caller who made a choice, as verified by the gateway.

    ``kind`` is ``anonymous`` for the unsubscribe link of a mail. ``user_id`` is the user of the access token, if there
    was one.
    """

    kind: str
    user_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """History entry of one choice: the proof of who agreed to what. Its ID differs from the consent's."""

    id: str
    user_id: str
    number: int
    level: ConsentLevel
    source: str
    caller: ChangeCaller
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceMember:
    """State of the sync of one user's consent to the audience provider.

    Attributes:
        id: the user's ID.
        state: ``carried`` when the provider has accepted the level, ``waiting`` while it is retried, ``given_up`` after
            the last attempt, ``no_address`` if the user has no mail address.
        level: the level that was sent last.
        consent_version: the number of the choice that was sent last.
        attempts: number of calls to the provider for this choice.
        reason: the last error, if the provider accepted nothing.
    """

    id: str
    state: SyncState
    level: ConsentLevel
    consent_version: int
    attempts: int = 0
    reason: str | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(cls, consent: Consent, *, at: datetime) -> Self:
        """Create the state of a user whose consent was never sent."""
        return cls(
            id=consent.user_id,
            state="waiting",
            level=consent.level,
            consent_version=consent.version,
            created_at=at,
            updated_at=at,
        )

    def without_address(self, consent: Consent, *, at: datetime) -> Self:
        """Return the state of a user who has no mail address."""
        return replace(self._at_version_of(consent), state="no_address", reason=None, updated_at=at)

    def after(self, outcome: Outcome, consent: Consent, *, ordered_at: datetime, at: datetime) -> Self:
        """Return the state after one more call to the provider.

        Retries end seven days after the first order, unless they wait for an operator.
        """
        current = self._at_version_of(consent)
        attempted = replace(current, attempts=current.attempts + 1, updated_at=at)
        match outcome:
            case Accepted():
                return replace(attempted, state="carried", reason=None)
            case Rejected(reason=reason):
                return replace(attempted, state="given_up", reason=reason)
            case Deferred(reason):
                expired = at >= ordered_at + RETRY_PERIOD and not isinstance(outcome, AccountRefused)
                return replace(attempted, state="given_up" if expired else "waiting", reason=reason)

    def _at_version_of(self, consent: Consent) -> Self:
        if consent.version == self.consent_version:
            return self
        return replace(self, level=consent.level, consent_version=consent.version, attempts=0)


def next_attempt(user_id: str, attempt: int, *, at: datetime) -> datetime:
    """Return the time of the next call for a user: pauses double from 10 seconds to 2 hours."""
    return at + retry_pause(user_id, attempt, first=FIRST_PAUSE, longest=MAX_PAUSE)
