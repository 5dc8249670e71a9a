"""What is a marketing consent?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from shared.messages import Caller
from shared.messages.mailer.consents import ConsentLevel, MarketingConsentView


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user lets us send besides what they ordered.

    Attributes:
        id: ``mktngconsent_…``.
        source: where the choice was made: ``user``, ``internal``, ``unsubscribe-link``.
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

    def change(self, *, id: str, number: int, caller: Caller) -> ConsentChange:  # noqa: A002 -- the field's name
        """This choice, to be kept for good.

        Args:
            id: its own.
            number: counts the user's choices from 1.
            caller: who made it.
        """
        return ConsentChange(
            id=id,
            user_id=self.user_id,
            number=number,
            level=self.level,
            source=self.source,
            caller_kind=caller.kind,
            caller_user_id=caller.user_id,
            created_at=self.updated_at,
        )

    def view(self) -> MarketingConsentView:
        """The consent as clients read it."""
        return MarketingConsentView(level=self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """One choice that a user has made: what shows later who consented to what.

    Attributes:
        id: ``mktngconsent_…``, its own.
        number: counts the user's choices from 1.
        source: as in ``Consent``.
        caller_kind: who made it, as the gateway verified them: the user, an operator or back end, or whoever had the
            link of a mail.
        caller_user_id: the user of the bearer token, if it was one.
        created_at: when.
    """

    id: str
    user_id: str
    number: int
    level: ConsentLevel
    source: str
    caller_kind: str
    caller_user_id: str | None
    created_at: datetime
