"""What does a client's mail wear? Looked up once a second for each client, and not for each mail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.mailer.models.looks import Looks, over
from services.mailer.store.looks import LooksOfClients

FRESH_SECONDS: Final = 1.0
"""So soon a change shows in every instance's mails."""
MOST_CLIENTS: Final = 1_000
"""Kept at once; beyond, all are looked up anew."""


class Wardrobe:
    """The looks of clients, kept for a moment.

    Args:
        own: the deployment's, which those wear of whom nothing was said.
        kept: where it stands what was said.
        clock: monotonic seconds.
    """

    def __init__(self, own: Looks, kept: LooksOfClients, clock: Callable[[], float] = time.monotonic) -> None:
        self.own = own
        self._kept = kept
        self._clock = clock
        self._known: dict[str, tuple[float, Looks]] = {}

    async def of(self, client_id: str | None) -> Looks:
        """What a mail wears that belongs to this client, or to none."""
        if client_id is None:
            return self.own
        known = self._known.get(client_id)
        if known is not None and self._clock() < known[0]:
            return known[1]
        # Before the question is asked: what is changed while it is under way must not count as known for longer.
        until = self._clock() + FRESH_SECONDS
        found = await self._kept.find(client_id)
        looks = self.own if found is None else over(self.own, found.chosen)
        if len(self._known) >= MOST_CLIENTS:
            self._known.clear()
        self._known[client_id] = until, looks
        return looks
