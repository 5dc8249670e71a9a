"""Waterfall of one request: the spans of its trace, and where between two processes a message waited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.traces import ReceivedSpan

WIDTH: Final = 40
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Step:
    """One line of a waterfall.

    Attributes:
        name: of a span; or ``record to <service>``, from the start of its sending to the start of its processing; or
            ``reply and response``, from the start of the reply's sending to the response.
        process: service without ``nest-``.
        depth: of the span in its trace.
        start: milliseconds after the start of the request.
        milliseconds: its duration.
    """

    name: str
    process: str
    depth: int
    start: float
    milliseconds: float

    @property
    def command(self) -> str:
        """The kind of round trip: ``produce``, ``MongoDB find``, ``SMTP``; empty for others."""
        verb, _, rest = self.name.partition(" ")
        if verb == "send":
            return "Kafka produce"
        if self.name == "smtp send":
            return "SMTP"
        return f"MongoDB {verb}" if rest and verb in _COMMANDS else ""


_COMMANDS: Final = frozenset(
    {"find", "insert", "update", "delete", "aggregate", "commitTransaction", "abortTransaction", "findAndModify"}
    | {"getMore", "bulkWrite", "count", "distinct"}
)


def steps(spans: Sequence[ReceivedSpan], root: str) -> list[Step]:
    """The steps of a trace in the order of a walk through its tree.

    Args:
        spans: of one trace.
        root: ID of the parent of its first span.
    """
    first = min((each for each in spans if each.parent == root), key=lambda each: each.start)
    return list(_walk(spans, root, first, 0, sent=None))


def _walk(
    spans: Sequence[ReceivedSpan], parent: str, first: ReceivedSpan, depth: int, sent: ReceivedSpan | None
) -> Iterator[Step]:
    zero = first.start
    for each in sorted((span for span in spans if span.parent == parent), key=lambda span: span.start):
        process = each.service.removeprefix("nest-")
        if each.kind == "CONSUMER" and sent is not None:
            # What the producer, the broker and the fetch of the reader take.
            yield Step(f"record to {process}", process, depth, _ms(sent.start - zero), _ms(each.start - sent.start))
        yield Step(_name(each), process, depth, _ms(each.start - zero), _ms(each.end - each.start))
        if each.name.endswith("gateway.replies") and each.start < first.end:
            # The gateway reads replies without a span of their own, and responds at once.
            yield Step("reply and response", "gateway", depth, _ms(each.start - zero), _ms(first.end - each.start))
        yield from _walk(spans, each.id, first, depth + 1, sent=each if each.kind == "PRODUCER" else None)


def _name(span: ReceivedSpan) -> str:
    wire = span.attributes.get("nest.message.type")
    return f"{span.name} ({wire})" if wire else span.name


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def total(found: Sequence[Step]) -> float:
    """Milliseconds until the response."""
    return found[0].milliseconds


def lines(found: Sequence[Step]) -> Iterator[tuple[str, str, str, str, str]]:
    """Process, indented name, start, duration and bar of each step, as texts."""
    end = max(step.start + step.milliseconds for step in found)
    for step in found:
        before = round(WIDTH * step.start / end)
        bar = " " * before + "█" * max(1, round(WIDTH * step.milliseconds / end))
        name = "  " * step.depth + step.name
        yield step.process, name, f"{step.start:.2f}", f"{step.milliseconds:.2f}", bar[:WIDTH].ljust(WIDTH)
