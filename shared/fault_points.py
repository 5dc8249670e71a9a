"""Fault points: places where a test kills the process, to prove that a crash there loses nothing.

``NEST_CRASH_AT=<point>[:n]`` ends the process as ``kill -9`` would, when it reaches the point for the n-th time:

- G1: before the gateway sends a command; G2: after Kafka has acknowledged it.
- V1: before a commit; V2: after it, before anything is sent; V3: after half of its messages are sent; V4: after all of
  them are sent, before the offset is committed.
- T1: after the message of a timer is sent, before its row is deleted.
- M1: after the mail server's 250, before the delivery is saved.
- M2: after an app accepted a webhook, before the commit.
- W1: after a webhook's event is stored, before the response.
- B1: after a call to Stripe, before the commit.
- R1: after a dead letter is replayed, before the replay is saved.
"""

import os
from typing import Final

POINTS: Final = frozenset({"G1", "G2", "V1", "V2", "V3", "V4", "T1", "M1", "M2", "W1", "B1", "R1"})
EXIT_CODE: Final = 137
"""Exit code of a process that received SIGKILL."""

_point, _, _count = os.environ.get("NEST_CRASH_AT", "").partition(":")
_remaining = int(_count or 1)
if _point and _point not in POINTS:
    raise SystemExit(f"NEST_CRASH_AT: unknown point {_point!r}, use one of {', '.join(sorted(POINTS))}")


def armed(point: str) -> bool:
    """Return True if this process is to die at the point."""
    return point == _point


def fault_point(point: str) -> None:
    """End the process here if ``NEST_CRASH_AT`` says so."""
    global _remaining  # noqa: PLW0603 -- one countdown for the process
    if point == _point:
        _remaining -= 1
        if _remaining <= 0:
            os._exit(EXIT_CODE)
