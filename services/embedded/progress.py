"""How does a slow start tell the person who waits what it is doing?"""

from typing import Protocol


class Progress(Protocol):
    """Told about each step as it begins; must return at once and may be called from another thread."""

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
