"""Usage: what is charged by metered prices, as back ends report it."""

from typing import Annotated, Final

from pydantic import Field

from shared.messages.billing.errors import UsageIdentifierReused, UsageOutOfTime, UserWithoutCustomer
from shared.messages.billing.stripe_events import StripeCommand
from shared.messages.message import Command, Part, Reply
from shared.messages.types import Many, Moment, UserId

MAX_USAGE: Final = 100
"""Entries of one call."""
MAX_VALUE: Final = 10**12
Identifier = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")]
"""The caller's own name of an entry: 1 to 100 characters of printable ASCII without spaces."""


class Usage(Part):
    """An entry of usage."""

    identifier: Identifier
    """The caller's own ID of the entry, 1 to 100 characters of printable ASCII without spaces, unique in the
    deployment. An entry that is repeated under its identifier counts once."""
    user_id: UserId
    event_name: Annotated[str, Field(min_length=1, max_length=100)]
    """Event name of the meter in Stripe."""
    value: Annotated[int, Field(ge=0, le=MAX_VALUE)]
    """Quantity: a whole number of at most 1,000,000,000,000."""
    at: Moment | None = None
    """When it was used: within the past 35 days, and at most 5 minutes ahead. Null for now."""


class UsageAccepted(Reply):
    """Usage that is stored, and will be sent to Stripe."""

    accepted: int
    """Number of new entries."""
    repeated: int
    """Number of entries that were accepted by an earlier call."""


class ReportUsage(
    Command,
    wire="billing.report-usage",
    audited=True,
    reply=UsageAccepted,
    refuses=(UserWithoutCustomer, UsageOutOfTime, UsageIdentifierReused),
):
    """Report usage of metered prices. All entries are accepted, or none.

    Accepted entries are stored, and sent to Stripe's meters in the background.
    """

    usage: Annotated[tuple[Usage, ...], Field(min_length=1, max_length=MAX_USAGE)]
    """The entries, 1 to 100."""


class SendUsage(StripeCommand, wire="billing.send-usage"):
    """Send stored usage to Stripe's meters. Entries that were sent already are left out."""

    usage_ids: Many[str]
    """IDs of the rows."""
