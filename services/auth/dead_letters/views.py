"""How does a dead letter look to an operator? As the record came, cut where it is long; what came sealed stays so."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Final

from shared.dead_letters.records import DeadLetter
from shared.messages.auth.dead_letters import PIECE_BYTES, PREVIEW_BYTES, DeadLetterView, HeaderView, Octets

HEADERS_IN_LIST: Final = 20
HEADERS_ALONE: Final = 200
HEADER_BYTES_IN_LIST: Final = 256
HEADER_BYTES_ALONE: Final = 1_024
KEY_BYTES: Final = 1_024
DETAIL_CHARACTERS: Final = 1_000
LAST_MILLISECOND: Final = 253_402_300_799_999
"""Beyond it a datetime ends."""
CONTROL: Final = frozenset(map(chr, range(0x20))) - {"\t", "\n", "\r"}
CONTINUATION: Final = range(0x80, 0xC0)
"""Bytes of UTF-8 (RFC 3629) that go on with a character."""


def preview(letter: DeadLetter, service: str, replayed_at: datetime | None) -> DeadLetterView:
    """A letter in a list."""
    return _view(
        letter,
        service,
        replayed_at,
        body=(0, PREVIEW_BYTES),
        headers=HEADERS_IN_LIST,
        header_bytes=HEADER_BYTES_IN_LIST,
    )


def whole(letter: DeadLetter, service: str, replayed_at: datetime | None, *, body_from: int) -> DeadLetterView:
    """A letter alone, with a piece of its body."""
    return _view(
        letter,
        service,
        replayed_at,
        body=(body_from, PIECE_BYTES),
        headers=HEADERS_ALONE,
        header_bytes=HEADER_BYTES_ALONE,
    )


def octets(value: bytes, *, start: int = 0, most: int) -> Octets:
    """Some bytes of a value: text where they are UTF-8 whole, without control characters, else base64."""
    piece = value[start : start + most]
    end = start + len(piece)
    if end < len(value) and value[end] in CONTINUATION:
        # Not within a character, if it is one.
        shorter = piece
        while shorter and len(piece) - len(shorter) < 4 and shorter[-1] in CONTINUATION:  # noqa: PLR2004 -- its longest
            shorter = shorter[:-1]
        piece = shorter[:-1] or piece
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = None
    # JSON writes six characters for each other control character: a piece full of them would be more than Kafka takes.
    if text is not None and CONTROL.isdisjoint(text):
        return Octets(size=len(value), start=start, text=text)
    piece = value[start : start + most]
    return Octets(size=len(value), start=start, base64=base64.b64encode(piece).decode())


def _view(
    letter: DeadLetter,
    service: str,
    replayed_at: datetime | None,
    *,
    body: tuple[int, int],
    headers: int,
    header_bytes: int,
) -> DeadLetterView:
    start, most = body
    partition, offset = letter.source or (None, None)
    return DeadLetterView(
        id=letter.id,
        topic=letter.topic,
        partition=partition,
        offset=offset,
        service=service,
        reason=letter.reason,
        detail=letter.detail[:DETAIL_CHARACTERS],
        frames=tuple(line.strip() for line in letter.trace.splitlines() if line.strip()),
        tries=letter.attempts,
        put_aside_at=letter.written_at,
        type=_short(letter.header("type"), header_bytes),
        message_id=_short(letter.header("id"), header_bytes),
        made_at=_moment(letter.message_time),
        key=None if letter.key is None else octets(letter.key, most=KEY_BYTES),
        headers=tuple(
            HeaderView(
                name=name[:header_bytes],
                value=None if value is None else octets(value, most=header_bytes),
            )
            for name, value in letter.headers[:headers]
        ),
        headers_left_out=max(0, len(letter.headers) - headers),
        body=None if letter.value is None else octets(letter.value, start=start, most=most),
        closed=letter.sealed,
        replayed_at=replayed_at,
    )


def _short(text: str | None, most: int) -> str | None:
    return None if text is None else text[:most]


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or milliseconds > LAST_MILLISECOND:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
