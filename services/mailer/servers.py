"""Which mail server takes a mail? The first one; while that is in trouble, the second."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from services.mailer.models.deliveries import HandedOver, HandOver, PutOff
from services.mailer.smtp import InTrouble, Mail, Smtp

REMEMBERED: Final = 4096
"""Mails that are known to be handed over, the last ones."""


class MailServers:
    """Hands mails over to one of several servers.

    Each has a circuit breaker of its own. A server that refuses or hangs is left out after a few mails, and asked again
    by single ones until it answers; the others take its place meanwhile. What a server says about the mail itself
    holds for all of them: a greylisted mail comes back to the server that knows it.

    Args:
        servers: the ways to them, the one to be preferred first; one at least.
    """

    def __init__(self, servers: Sequence[Smtp]) -> None:
        self._servers = tuple(servers)
        self._accepted: OrderedDict[str, HandedOver] = OrderedDict()

    async def hand_over(self, mail: Mail) -> HandOver:
        """Try once to hand a mail over; takes the time-out and some seconds of waiting at most, for each server.

        A mail that this process has handed over is not handed over again: its order may come back when the outcome
        could not be stored.
        """
        if (accepted := self._accepted.get(mail.message_id)) is not None:
            return accepted
        troubles: list[str] = []
        for server in self._servers:
            outcome = await server.hand_over(mail)
            if not isinstance(outcome, InTrouble):
                return self._remembered(mail, outcome)
            troubles.append(outcome.reason)
            if not outcome.unheard:
                # It may have the mail: another server would only add a copy. The next try does so too, if it must.
                break
        return PutOff("; ".join(troubles))

    async def close(self) -> None:
        """Take leave of all of them."""
        for server in self._servers:
            await server.close()

    def _remembered(self, mail: Mail, outcome: HandOver) -> HandOver:
        if isinstance(outcome, HandedOver):
            self._accepted[mail.message_id] = outcome
            if len(self._accepted) > REMEMBERED:
                self._accepted.popitem(last=False)
        return outcome
