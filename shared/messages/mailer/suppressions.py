"""Suppression list: addresses that get only mails requested at them, after a bounce or complaint."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.messages.mailer.errors import RecipientComplained, SuppressionNotFound
from shared.messages.message import Command, Event, Moment, Query, Reply, Sealed

Cause = Literal["bounce", "complaint"]


class SuppressionView(Reply):
    """An entry of the suppression list. Only a hash of the address is stored, so it is not shown."""

    delivery_id: str
    """ID of the delivery that bounced or was reported as spam."""
    cause: Cause
    """``bounce`` for a permanent failure, ``complaint`` for a report as spam."""
    since: Moment
    """When the address was added."""
    template: str | None
    """Template of that mail; null if its delivery is no longer stored."""
    reason: str | None
    """The provider's text about that mail; null if there is none."""


class SuppressionsView(Reply):
    """A page of the suppression list."""

    suppressions: tuple[SuppressionView, ...]
    """The entries, ordered by their mail, newest first."""
    next_cursor: str | None
    """``cursor`` of the next page; null on the last one."""


class ListSuppressions(Query, wire="mailer.list-suppressions", audited=True, reply=SuppressionsView):
    """List the suppressed addresses."""

    recipient: Sealed | None = None
    """Only the entry of this email address."""
    cause: Cause | None = None
    """Only entries with this cause."""
    since: Moment | None = None
    """Only addresses suppressed at this time or later."""
    until: Moment | None = None
    """Only addresses suppressed before this time."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    """Maximum number of entries in the page."""
    cursor: str | None = None
    """``next_cursor`` of the previous page."""


class LiftSuppression(
    Command,
    wire="mailer.lift-suppression",
    audited=True,
    reply=SuppressionView,
    refuses=(SuppressionNotFound, RecipientComplained),
):
    """Remove an address from the suppression list.

    Takes ``recipient`` or ``delivery_id``, and returns the removed entry.
    """

    recipient: Sealed | None = None
    """The email address."""
    delivery_id: Annotated[str, Field(min_length=1)] | None = None
    """ID of the delivery that bounced or was reported as spam."""
    although_complained: bool = False
    """Whether to remove an address that reported a mail as spam. Set it only if the recipient asked for mails again."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.recipient is None) == (self.delivery_id is None):
            raise ValueError("give either recipient or delivery_id")
        return self


class SuppressionLifted(Event, wire="mailer.suppression-lifted"):
    """An address was removed from the suppression list."""

    delivery_id: str
    """Delivery that had caused the suppression."""
    cause: Cause
    at: Moment
