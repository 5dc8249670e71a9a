"""What auth is asked and ordered about dead letters, of whatever service: seeing them, and letting them be handled."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.messages.auth.errors import DeadLetterNotFound, InvalidCursor
from shared.messages.message import Command, Moment, Part, Query, Reply

DEAD_LETTERS: Final = "dead-letters"
"""The ``key`` of every replay: they are handled one after the other."""
PREVIEW_BYTES: Final = 2_048
"""How much of a body a list shows."""
PIECE_BYTES: Final = 256 * 1024
"""How much of a body the view of one letter shows; the next piece begins where this one ends."""

Reason = Literal["undecodable", "too_old", "failing"]
Outcome = Literal["replayed", "replayed_before", "too_old", "not_ours", "closed", "gone"]
LetterId = Annotated[str, Field(min_length=3, max_length=300)]


class DeadLetterFilter(Part):
    """Which letters are meant: those that have all of it."""

    topic: str | None = None
    """Where they came from: ``auth.commands``."""
    reason: Reason | None = None
    type: str | None = None
    """The message's wire name: ``mailer.send-mail``."""
    service: str | None = None
    """Who put them aside."""
    since: Moment | None = None
    """Put aside then or later."""
    until: Moment | None = None
    """Put aside before."""


class Octets(Part):
    """Bytes as JSON can carry them: text where they are UTF-8, else base64."""

    size: int
    """How many there are in all; what is shown may be fewer."""
    start: int = 0
    """At which of them this begins."""
    text: str | None = None
    base64: str | None = None


class HeaderView(Part):
    """A header of the original record; null where its value is."""

    name: str
    value: Octets | None


class DeadLetterView(Part):
    """A record that was put aside, as it came, opened for this view. What was sealed in the record stays sealed."""

    id: str
    """Where it lies: ``auth.commands.17``."""
    topic: str
    partition: int | None
    """Where on its topic it was; None where nobody said."""
    offset: int | None
    service: str
    """Who put it aside."""
    reason: str
    detail: str
    """What was wrong: a sentence, or, of ``failing``, the class of the last error."""
    frames: tuple[str, ...]
    """Where that error was raised, outermost first."""
    tries: int | None
    put_aside_at: Moment | None
    type: str | None
    message_id: str | None
    made_at: Moment | None
    """When the message was first put on the bus."""
    key: Octets | None
    headers: tuple[HeaderView, ...]
    headers_left_out: int
    """How many more headers there are than are shown."""
    body: Octets | None
    """None for a record without a value."""
    closed: bool = False
    """It can't be opened: the key that it was sealed with is gone. Of key, headers and body nothing is known."""
    replayed_at: Moment | None
    """When it was replayed last; None for never."""


class DeadLettersView(Reply):
    """A page of dead letters."""

    letters: tuple[DeadLetterView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last. A page may be shorter than its limit, even empty, and
    have a next one: looking for rare letters among many takes more than one call."""


class ListDeadLetters(
    Query,
    wire="auth.list-dead-letters",
    reply_sealed=True,
    audited=True,
    reply=DeadLettersView,
    refuses=(
        InvalidCursor,
        DeadLetterNotFound,
    ),
):
    """What no service could handle."""

    id: LetterId | None = None
    """This one alone, with a larger piece of its body."""
    body_from: Annotated[int, Field(ge=0)] = 0
    """With ``id``: at which byte of the body the piece begins."""
    filter: DeadLetterFilter = DeadLetterFilter()
    """Those that it names; all by default."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: str | None = None
    """``next_cursor`` of the page before."""


class ReplayedView(Part):
    """What became of one letter."""

    id: str
    outcome: Outcome
    """``replayed`` · ``replayed_before``, left alone · ``too_old``, left alone · ``not_ours``: not written by Nest ·
    ``closed``: the key that it was sealed with is gone · ``gone``: no such letter, or not any more."""


class ReplayedDeadLettersView(Reply):
    """What one call did."""

    letters: tuple[ReplayedView, ...]
    """In the order in which they were put back."""
    next_cursor: str | None
    """What the next call is made with; None when all are looked after that there were at the first one."""


class ReplayDeadLetters(
    Command, wire="auth.replay-dead-letters", reply=ReplayedDeadLettersView, refuses=(InvalidCursor,)
):
    """Put letters back on their topics, for who put them aside, oldest first.

    Each once, whoever orders it however often.
    """

    ids: Annotated[tuple[LetterId, ...], Field(max_length=500)] | None = None
    """These; or else, with ``filter``, all that it names."""
    filter: DeadLetterFilter | None = None
    again: bool = Field(default=False, strict=True)
    """Those too that were replayed before."""
    although_too_old: bool = Field(default=False, strict=True)
    """Those too that are older than the inbox remembers: whether they were done can't be told, so they may be done a
    second time."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    """How many letters one call looks after."""
    cursor: str | None = None
    """``next_cursor`` of the call before, which said the same."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        # So that nobody replays everything by leaving something out.
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or a filter; an empty filter means all")
        return self
