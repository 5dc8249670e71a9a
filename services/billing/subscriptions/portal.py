"""Limit on calls to Stripe that a user causes, such as sessions of the customer portal."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from datetime import datetime, timedelta
from typing import Final

SESSIONS: Final = 10
"""Sessions of one user within ``WINDOW``."""
LISTS: Final = 60
"""Lists of one user's invoices within ``WINDOW``."""
WINDOW: Final = timedelta(minutes=10)
MAX_USERS: Final = 10_000
"""Users that are remembered; those who opened a portal longest ago are forgotten first."""


class PortalLimit:
    """Counts sessions by user, in the memory of this process: each instance has its own limit.

    ``sessions`` are those of one user within ``WINDOW``.
    """

    def __init__(self, sessions: int = SESSIONS) -> None:
        self._sessions = sessions
        self._opened: OrderedDict[str, deque[datetime]] = OrderedDict()

    def open(self, user_id: str, *, at: datetime) -> int:
        """Count a session, and return 0; or count none, and return the seconds to wait."""
        opened = self._opened.setdefault(user_id, deque())
        self._opened.move_to_end(user_id)
        if len(self._opened) > MAX_USERS:
            self._opened.popitem(last=False)
        while opened and opened[0] <= at - WINDOW:
            opened.popleft()
        if len(opened) >= self._sessions:
            return math.ceil((opened[0] + WINDOW - at).total_seconds())
        opened.append(at)
        return 0
