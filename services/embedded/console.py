"""What does a person at a terminal see while the embedded mode starts and stops?"""

import sys
import threading
import time
from typing import Protocol, TextIO

_BAR = 28
_REDRAW_SECONDS = 0.1


class Console:
    """A `Progress` that writes a line for each step, and on a terminal a bar for each download.

    Args:
        out: where to; standard output by default.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._lock = threading.Lock()
        self._drawn_at = 0.0
        self._bar_open = False

    def step(self, text: str) -> None:
        """One line."""
        with self._lock:
            self._close_bar()
            self._out.write(f"  {text}\n")
            self._out.flush()

    def download(self, what: str, done: int, total: int) -> None:
        """A bar that is drawn over itself; without a terminal only its end is told."""
        with self._lock:
            whole = done >= total
            if self._terminal and (whole or time.monotonic() - self._drawn_at > _REDRAW_SECONDS):
                self._drawn_at = time.monotonic()
                filled = _BAR * done // max(total, 1)
                bar = "━" * filled + "╌" * (_BAR - filled)
                self._out.write(f"\r  {what} {bar} {done >> 20} of {total >> 20} MB")
                self._bar_open = True
                self._out.flush()
            if whole:
                self._close_bar()

    def say(self, text: str) -> None:
        """Some lines of text, as they are."""
        with self._lock:
            self._close_bar()
            self._out.write(f"{text}\n")
            self._out.flush()

    def _close_bar(self) -> None:
        if self._bar_open:
            self._out.write("\n")
            self._bar_open = False


class Progress(Protocol):
    """ShutdownSignal about each step as it begins; must return at once and may be called from another thread."""

    def step(self, text: str) -> None:
        """Something begins now: a few words without a full stop, e.g. "starting Apache Kafka"."""

    def download(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what` have arrived; `done` equals `total` once, at the end."""


class Silent:
    """A `Progress` that says nothing, for tests and scripts."""

    def step(self, text: str) -> None:
        """Says nothing."""

    def download(self, what: str, done: int, total: int) -> None:
        """Says nothing."""
