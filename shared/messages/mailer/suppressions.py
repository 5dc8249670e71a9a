"""What the mailer is asked and ordered by operators about addresses that it does not write to any more."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.messages.mailer.errors import RecipientComplained, SuppressionNotFound
from shared.messages.message import Command, Event, Moment, Query, Reply, Sealed

Cause = Literal["bounce", "complaint"]
"""Mail to the address came back for good, or its reader called some of it spam."""


class SuppressionView(Reply):
    """An address that gets nothing but what is asked for at it. The address is not told: only its hash is kept."""

    delivery_id: str
    """The mail that showed it, by which it can be lifted."""
    cause: Cause
    since: Moment
    template: str | None
    """Which mail it was; null where it is not kept any more."""
    reason: str | None
    """What was said of that mail."""


class SuppressionsView(Reply):
    """A page of suppressions."""

    suppressions: tuple[SuppressionView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListSuppressions(Query, wire="mailer.list-suppressions", audited=True, reply=SuppressionsView):
    """Which addresses are written to no more."""

    recipient: Sealed | None = None
    """Only that of this address."""
    cause: Cause | None = None
    since: Moment | None = None
    """Suppressed then or later."""
    until: Moment | None = None
    """Suppressed before."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: str | None = None
    """``next_cursor`` of the page before."""


class LiftSuppression(
    Command,
    wire="mailer.lift-suppression",
    audited=True,
    reply=SuppressionView,
    refuses=(
        SuppressionNotFound,
        RecipientComplained,
    ),
):
    """Write to an address again."""

    recipient: Sealed | None = None
    """The address, or"""
    delivery_id: Annotated[str, Field(min_length=1)] | None = None
    """the mail that showed it."""
    although_complained: bool = False
    """Lift it even if the reader called a mail spam: they have asked for it themselves."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.recipient is None) == (self.delivery_id is None):
            raise ValueError("give either recipient or delivery_id")
        return self


class SuppressionLifted(Event, wire="mailer.suppression-lifted"):
    """An address gets all mails again."""

    delivery_id: str
    """The mail for which it had been suppressed."""
    cause: Cause
    at: Moment
