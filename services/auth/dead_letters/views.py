"""Views of dead letters for operators: the record as it was, truncated; sealed fields stay sealed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Final

from shared.dead_letters.records import DeadLetter
from shared.messages.auth.dead_letters import PIECE_BYTES, PREVIEW_BYTES, DeadLetterView, HeaderView, Octets

MAX_HEADERS_IN_LIST: Final = 20
MAX_HEADERS: Final = 200
MAX_HEADER_BYTES_IN_LIST: Final = 256
MAX_HEADER_BYTES: Final = 1_024
MAX_KEY_BYTES: Final = 1_024
MAX_DETAIL_CHARACTERS: Final = 1_000
MAX_MILLISECOND: Final = 253_402_300_799_999
"""The last moment that a datetime can represent."""
CONTROL_CHARACTERS: Final = frozenset(map(chr, range(0x20))) - {"\t", "\n", "\r"}
CONTINUATION_BYTES: Final = range(0x80, 0xC0)
"""Bytes of UTF-8 that continue a character (RFC 3629)."""


def octets(value: bytes, *, start: int = 0, limit: int) -> Octets:
    """Up to ``limit`` bytes of a value: as text if they are UTF-8 without control characters, else as base64."""
    piece = value[start : start + limit]
    end = start + len(piece)
    if end < len(value) and value[end] in CONTINUATION_BYTES:
        # The cut is within a character: drop its first bytes.
        shorter = piece
        while shorter and len(piece) - len(shorter) < 4 and shorter[-1] in CONTINUATION_BYTES:  # noqa: PLR2004 -- bytes
            shorter = shorter[:-1]
        piece = shorter[:-1] or piece
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = None
    # JSON escapes a control character as six characters; a body full of them would exceed Kafka's message size.
    if text is not None and CONTROL_CHARACTERS.isdisjoint(text):
        return Octets(size=len(value), start=start, text=text)
    piece = value[start : start + limit]
    return Octets(size=len(value), start=start, base64=base64.b64encode(piece).decode())


def view(
    letter: DeadLetter, service: str, replayed_at: datetime | None, *, body_start: int | None = None
) -> DeadLetterView:
    """A dead letter: in a list, with the beginning of its body; alone, with the part that begins at ``body_start``."""
    if body_start is None:
        start, limit, max_headers, max_header_bytes = 0, PREVIEW_BYTES, MAX_HEADERS_IN_LIST, MAX_HEADER_BYTES_IN_LIST
    else:
        start, limit, max_headers, max_header_bytes = body_start, PIECE_BYTES, MAX_HEADERS, MAX_HEADER_BYTES
    partition, offset = letter.source or (None, None)
    return DeadLetterView(
        id=letter.id,
        topic=letter.topic,
        partition=partition,
        offset=offset,
        service=service,
        reason=letter.reason,
        detail=letter.detail[:MAX_DETAIL_CHARACTERS],
        frames=tuple(line.strip() for line in letter.trace.splitlines() if line.strip()),
        tries=letter.attempts,
        put_aside_at=letter.written_at,
        type=_truncated(letter.header("type"), max_header_bytes),
        message_id=_truncated(letter.header("id"), max_header_bytes),
        made_at=_datetime(letter.message_time),
        key=None if letter.key is None else octets(letter.key, limit=MAX_KEY_BYTES),
        headers=tuple(
            HeaderView(
                name=name[:max_header_bytes],
                value=None if value is None else octets(value, limit=max_header_bytes),
            )
            for name, value in letter.headers[:max_headers]
        ),
        headers_left_out=max(0, len(letter.headers) - max_headers),
        body=None if letter.value is None else octets(letter.value, start=start, limit=limit),
        closed=letter.sealed,
        replayed_at=replayed_at,
    )


def _truncated(text: str | None, limit: int) -> str | None:
    return None if text is None else text[:limit]


def _datetime(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or milliseconds > MAX_MILLISECOND:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
