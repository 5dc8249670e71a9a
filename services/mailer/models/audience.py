"""What does the audience provider know of a user's consent, and when is it told again?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from services.mailer.models.consents import Consent
from shared.messages.mailer.consents import ConsentLevel

MemberState = Literal["carried", "waiting", "given_up", "no_address"]
FIRST_PAUSE: Final = timedelta(seconds=10)
LONGEST_PAUSE: Final = timedelta(hours=2)
TRIED_FOR: Final = timedelta(days=7)
"""How long a provider may be away, or its key be wrong, before somebody must see to it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The provider has taken it."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """The provider can't be reached, is busy, or does not let us in. Another try may do; this one may have done."""

    reason: str


@dataclass(frozen=True, slots=True)
class Never:
    """The provider will not take this address, whenever it is asked."""

    reason: str


Carriage = Carried | NotNow | Never
"""What became of one try to tell the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceMember:
    """One user, as far as the audience provider was told.

    Attributes:
        user_id: who; one user is one member.
        state: ``carried`` when the provider has taken the level, ``waiting`` while it is tried, ``given_up`` when
            nobody tries any more, ``no_address`` when the user has none.
        level: what it was told, or was to be told, last.
        consent_version: which of the user's choices that was.
        attempts: how often the provider was asked about this choice.
        reason: what it said last, if it took nothing.
        version: guards the next write.
    """

    user_id: str
    state: MemberState
    level: ConsentLevel
    consent_version: int
    attempts: int
    reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def of(cls, consent: Consent, *, at: datetime) -> Self:
        """A user of whom the provider was told nothing yet."""
        return cls(
            user_id=consent.user_id,
            state="waiting",
            level=consent.level,
            consent_version=consent.version,
            attempts=0,
            reason=None,
            created_at=at,
            updated_at=at,
        )

    def without_address(self, consent: Consent, *, at: datetime) -> Self:
        """The same, found to have no address that the provider could be told of."""
        return replace(self._about(consent), state="no_address", reason=None, updated_at=at)

    def after(self, carriage: Carriage, consent: Consent, *, ordered_at: datetime, at: datetime) -> Self:
        """The same after the provider was asked once more to take a consent."""
        known = self._about(consent)
        tried = replace(known, attempts=known.attempts + 1, updated_at=at)
        match carriage:
            case Carried():
                return replace(tried, state="carried", reason=None)
            case Never(reason):
                return replace(tried, state="given_up", reason=reason)
            case NotNow(reason):
                too_late = at >= ordered_at + TRIED_FOR
                return replace(tried, state="given_up" if too_late else "waiting", reason=reason)

    def _about(self, consent: Consent) -> Self:
        if consent.version == self.consent_version:
            return self
        return replace(self, level=consent.level, consent_version=consent.version, attempts=0)


def next_try(user_id: str, attempt: int, *, at: datetime) -> datetime:
    """When the provider is asked again: after pauses that double up to two hours, give or take a fifth.

    What shortens or lengthens them is drawn from the user, so that those who wait together come back apart.
    """
    pause = min(FIRST_PAUSE * 2 ** min(attempt - 1, 20), LONGEST_PAUSE)
    drawn = hashlib.sha256(f"{user_id} {attempt}".encode()).digest()[0] / 255
    spread: timedelta = pause * (0.8 + 0.4 * drawn)
    return at + spread
