"""What is a marketing consent?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from shared.messages.mailer import ConsentLevel, MarketingConsentView


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user lets us send besides what they ordered.

    Attributes:
        id: ``mktngconsent_…``.
        source: where the choice was made: ``user``, ``internal``.
        updated_at: when the choice was made last.
        version: guards the next write.
    """

    id: str
    user_id: str
    level: ConsentLevel
    source: str
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def give(cls, user_id: str, level: ConsentLevel, *, id: str, source: str, at: datetime) -> Self:  # noqa: A002
        """A user's first choice."""
        return cls(id=id, user_id=user_id, level=level, source=source, created_at=at, updated_at=at)

    def choose(self, level: ConsentLevel, *, source: str, at: datetime) -> Self:
        """A user's next choice; the same one again is kept too, with its time and source."""
        return replace(self, level=level, source=source, updated_at=at)

    def view(self) -> MarketingConsentView:
        """The consent as clients read it."""
        return MarketingConsentView(level=self.level)
