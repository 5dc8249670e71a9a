"""What tells a record that was put back from one that came by itself? One or two headers behind its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Headers = tuple[tuple[str, bytes], ...]
"""As Kafka keeps them: in order, one name any number of times. A foreign client may have written a value that is null;
it is kept."""
REPLAY_TIME: Final = "replay-time"
"""When an operator ordered a message to be handled that is older than the inbox remembers; Unix milliseconds."""
REPLAY_FOR: Final = "replay-for"
"""The consumer group that put the record aside: nobody else takes its replay. Always the last header, so that whoever
reads records sees it at a glance."""
REPLAYED: Final = frozenset({REPLAY_TIME, REPLAY_FOR})
"""What a record gets when it is replayed; not its own when it is put aside again."""


def is_replay(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether a record is a letter that was put back."""
    return bool(headers) and headers[-1][0] == REPLAY_FOR


def for_others(headers: Sequence[tuple[str, bytes]], group: str) -> bool:
    """Whether a record is the replay of what another consumer group has put aside."""
    return is_replay(headers) and headers[-1][1] != group.encode()


def own_headers(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """A record's headers without what a replay has added."""
    own = list(headers)
    if is_replay(own):
        own.pop()
        if own and own[-1][0] == REPLAY_TIME:
            own.pop()
    return tuple(own)
