"""Progress of the embedded mode on a terminal."""

import sys
import threading
import time
from typing import Protocol, TextIO

_BAR = 28
_REDRAW_SECONDS = 0.1


class Progress(Protocol):
    """Receives the steps of a start. Its methods must return at once and may be called from other threads."""

    def step(self, text: str) -> None:
        """Report the start of a step, in a few words without a full stop: "starting Apache Kafka"."""

    def download(self, name: str, done: int, total: int) -> None:
        """Report the downloaded bytes; the last call has `done` equal to `total`."""


class Silent:
    """Progress that prints nothing."""

    def step(self, text: str) -> None:
        """Print nothing."""

    def download(self, name: str, done: int, total: int) -> None:
        """Print nothing."""


class Console:
    """Progress that prints a line per step and, on a terminal, a bar per download.

    Args:
        out: where to print; standard output by default.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._lock = threading.Lock()
        self._drawn_at = 0.0
        self._bar_open = False

    def step(self, text: str) -> None:
        """Print an indented line."""
        self.print(f"  {text}")

    def print(self, text: str) -> None:
        """Print lines of text."""
        with self._lock:
            self._close_bar()
            self._out.write(f"{text}\n")
            self._out.flush()

    def download(self, name: str, done: int, total: int) -> None:
        """Draw a bar over the previous one; print nothing if there is no terminal."""
        if not self._terminal:
            return
        with self._lock:
            if done >= total or time.monotonic() - self._drawn_at > _REDRAW_SECONDS:
                self._drawn_at = time.monotonic()
                filled = _BAR * done // max(total, 1)
                bar = "━" * filled + "╌" * (_BAR - filled)
                self._out.write(f"\r  {name} {bar} {done >> 20} of {total >> 20} MB")
                self._out.flush()
                self._bar_open = True
            if done >= total:
                self._close_bar()

    def _close_bar(self) -> None:
        if self._bar_open:
            self._out.write("\n")
            self._bar_open = False
