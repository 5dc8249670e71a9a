"""Dead letters of all services: listing and replay."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.errors import InvalidCursor
from shared.messages.auth.errors import DeadLetterNotFound
from shared.messages.message import Command, OperatorList, Part, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, Since, Until

DEAD_LETTERS: Final = "dead-letters"
"""Ordering key of all replays: they are handled one at a time."""
PREVIEW_BYTES: Final = 2_048
"""Maximum size of a body in a list."""
PIECE_BYTES: Final = 256 * 1024
"""Maximum size of a body's piece in the view of a single dead letter."""
Piece = Annotated[str, Field(max_length=2 * PIECE_BYTES)]
"""A piece of a body; base64 is a third longer than the bytes."""

Reason = Literal["undecodable", "unauthenticated", "too_old", "failing"]
Outcome = Literal["replayed", "replayed_before", "too_old", "not_ours", "closed", "gone"]
Label = Annotated[str, Field(max_length=256)]
LetterId = Annotated[str, Field(min_length=3, max_length=300)]


class DeadLetterFilter(Part):
    """A filter of dead letters. They must match all of its fields."""

    topic: Label | None = None
    """Topic that the message was on, for example ``auth.commands``."""
    reason: Reason | None = None
    """Reason why it became a dead letter: ``undecodable``, ``unauthenticated`` (not written by Nest, or with a sealing
    key that the service does not hold), ``too_old`` (older than the inbox, so it may have been handled), or ``failing``
    (all attempts failed)."""
    type: Label | None = None
    """Wire name of the message, for example ``mailer.send-mail``."""
    service: Label | None = None
    """Service that could not handle the message."""
    since: Since = None
    until: Until = None


class Octets(Part):
    """Bytes, as text if they are UTF-8 without control characters, else as base64."""

    size: int
    """Total number of bytes. ``text`` or ``base64`` may contain fewer."""
    start: int = 0
    """Index of the first byte in ``text`` or ``base64``."""
    text: Piece | None = None
    """The bytes as text."""
    base64: Piece | None = None
    """The bytes in base64."""


class HeaderView(Part):
    """A header of the original record."""

    name: str
    """Name of the header."""
    value: Octets | None
    """Value of the header; null if the header has none."""


class DeadLetterView(Part):
    """A dead letter: a record that a service could not handle. Sealed fields in it stay encrypted."""

    id: str
    """ID of the dead letter, for example ``auth.commands.17``."""
    topic: str
    """Topic that the message was on."""
    partition: int | None
    """Partition of the original record; null if unknown."""
    offset: int | None
    """Offset of the original record; null if unknown."""
    service: str
    """Service that could not handle the message."""
    reason: str
    """``undecodable``, ``unauthenticated``, ``too_old`` or ``failing``; empty if Nest did not write the letter."""
    detail: str
    """Error in words. For ``failing``: class of the last attempt's exception."""
    frames: Many[str]
    """Stack frames of that exception, outermost first."""
    tries: int | None
    """Number of attempts."""
    put_aside_at: Moment | None
    """When the message became a dead letter."""
    type: str | None
    """Wire name of the message."""
    message_id: str | None
    """ID of the message."""
    made_at: Moment | None
    """When the message was first published."""
    key: Octets | None
    """Key of the record; null if there is none."""
    headers: Many[HeaderView]
    """Headers of the record: the first 20 in a list, the first 200 of a single dead letter."""
    headers_left_out: int
    """Number of further headers."""
    body: Octets | None
    """Value of the record: the first 2 KiB in a list, a piece of 256 KiB of a single dead letter; null if the record
    has no value."""
    closed: bool = False
    """Whether the dead letter cannot be decrypted because its key is gone. ``key``, ``headers`` and ``body`` are
    unknown then."""
    replayed_at: Moment | None
    """When the dead letter was last replayed; null if never."""


class DeadLettersView(Reply):
    """A page of dead letters."""

    letters: Many[DeadLetterView]
    """The dead letters, newest first."""
    next_cursor: str | None
    """``cursor`` of the next page; null on the last one. A page may be short or even empty and still have a next one,
    because each call searches a limited number of records."""


class ListDeadLetters(
    OperatorList,
    wire="auth.list-dead-letters",
    reply_sealed=True,
    audited=True,
    reply=DeadLettersView,
    refuses=(InvalidCursor, DeadLetterNotFound),
):
    """List dead letters, or show a single one."""

    id: LetterId | None = None
    """Show only this dead letter, with a larger piece of its body."""
    body_from: Annotated[int, Field(ge=0)] = 0
    """With ``id``: index of the body's first byte to show."""
    filter: DeadLetterFilter = DeadLetterFilter()
    """Filter of the dead letters to list. All by default."""
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class ReplayedView(Part):
    """Outcome of one dead letter's replay."""

    id: str
    """ID of the dead letter."""
    outcome: Outcome
    """``replayed``; ``replayed_before`` (needs ``again``); ``too_old`` (needs ``although_too_old``); ``not_ours`` (not
    written by Nest); ``closed`` (cannot be decrypted); ``gone`` (does not exist, or was erased)."""


class ReplayedDeadLettersView(Reply):
    """Result of one call of ``replay_dead_letters``."""

    letters: Many[ReplayedView]
    """The outcomes, in the order of the replay."""
    next_cursor: str | None
    """``cursor`` of the next call; null once all dead letters are processed that existed at the first call."""


class ReplayDeadLetters(
    Command, wire="auth.replay-dead-letters", reply=ReplayedDeadLettersView, refuses=(InvalidCursor,)
):
    """Replay dead letters.

    Publishes them again to the service that could not handle them, oldest first. Takes ``ids`` or ``filter``. A dead
    letter is replayed once, unless ``again`` is set.
    """

    ids: Annotated[tuple[LetterId, ...], Field(max_length=500)] | None = None
    """IDs of the dead letters to replay."""
    filter: DeadLetterFilter | None = None
    """Replay all matching dead letters. An empty filter matches all."""
    again: bool = Field(default=False, strict=True)
    """Include dead letters that were replayed before."""
    although_too_old: bool = Field(default=False, strict=True)
    """Include messages that may already have been handled, because they are older than the inbox. They may take effect
    a second time."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    """With ``filter``: maximum number of dead letters that one call processes."""
    cursor: CursorText | None = None
    """``next_cursor`` of the previous call with the same filter."""

    @model_validator(mode="after")
    def _ids_or_filter(self) -> Self:
        # Nobody should replay everything by omitting both.
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or a filter; an empty filter means all")
        return self
