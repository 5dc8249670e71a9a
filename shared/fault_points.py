"""Where may a process be told to die, to prove that nothing is lost there?

``NEST_CRASH_AT=<point>[:n]`` ends the process, as kill -9 would, when the point is reached for the n-th time:
G1 before a command is produced, G2 after Kafka has acknowledged it; V1 before a commit, V2 after it and before anything
is published, V3 when half of its messages are published, V4 after all of them and before the offset is committed;
T1 a timer's message published, its row not yet removed; M1 after the mail server's 250 and before the mark;
W1 a webhook's event stored and not yet answered; B1 after a call to Stripe and before the commit; R1 a dead letter put
back and not yet marked so.
"""

import os
from typing import Final

POINTS: Final = frozenset({"G1", "G2", "V1", "V2", "V3", "V4", "T1", "M1", "W1", "B1", "R1"})
EXIT_CODE: Final = 137
"""As of a process that got SIGKILL."""

_point, _, _count = os.environ.get("NEST_CRASH_AT", "").partition(":")
_left = int(_count or 1)
if _point and _point not in POINTS:
    raise SystemExit(f"NEST_CRASH_AT: no point {_point!r}; there are {', '.join(sorted(POINTS))}")


def armed(point: str) -> bool:
    """Whether this process is told to die at the point."""
    return point == _point


def fault_point(point: str) -> None:
    """Die here if this is the point and the time; else nothing."""
    global _left  # noqa: PLW0603 -- one countdown for the process
    if point == _point:
        _left -= 1
        if _left <= 0:
            os._exit(EXIT_CODE)
