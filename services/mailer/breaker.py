"""Is it worth asking the mail server now? After several failures in a row not, for a while that grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAILURES: Final = 3
"""So many in a row say that it is the server, and not one connection."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
PROBE_SECONDS: Final = 60.0
"""A probe that has not reported by then never will."""


class Breaker:
    """Keeps mails from queueing up before a server that is down: they are put off at once instead.

    After a pause one mail goes ahead as a probe; its success lets all through again, its failure doubles the pause.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._reason = ""
        self._pause = 0.0
        self._closed_until = 0.0
        self._probing = False

    @property
    def refusal(self) -> str | None:
        """Why nothing may go out now; None when something may."""
        return self._reason if self._pause and self._clock() < self._closed_until else None

    def admit(self) -> str | None:
        """Ask right before a mail goes out: None lets it go, otherwise why not. The first one after a pause probes."""
        refusal = self.refusal
        if refusal is None and self._pause:
            self._probing = True
            self._closed_until = self._clock() + PROBE_SECONDS
        return refusal

    def succeeded(self) -> None:
        """The server has answered, whatever it said to the mail."""
        self._failures = 0
        self._pause = 0.0
        self._probing = False

    def failed(self, reason: str) -> None:
        """The server could not be reached, or did not answer."""
        self._failures += 1
        self._reason = reason
        if self._failures < FAILURES or (self.refusal is not None and not self._probing):
            # Too few yet; or mails that went out before the pause began, which say nothing new.
            return
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._closed_until = self._clock() + self._pause
        self._probing = False
