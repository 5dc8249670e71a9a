"""Failover between mail servers: the second server is used while the first one is unavailable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from services.mailer.deliveries.models import Accepted, Deferred, Outcome
from services.mailer.smtp.smtp_client import Mail, Refused, SmtpClient, Unavailable

MAX_REMEMBERED: Final = 4096
"""Number of latest accepted mails that are remembered."""


class MailServers:
    """Sends mails to the first available server.

    The servers are in order of preference. Each has its own circuit breaker: one that refuses connections or hangs is
    skipped after a few mails, one that refuses our sender or our mails by policy after one, and then probed with single
    mails. A permanent error about the recipient is final for all servers. A temporary one defers the mail: a greylisted
    mail is retried at the server that knows it.
    """

    def __init__(self, clients: Sequence[SmtpClient]) -> None:
        self._clients = tuple(clients)
        self._accepted: OrderedDict[str, Accepted] = OrderedDict()

    async def send(self, mail: Mail) -> Outcome:
        """Try once to send a mail; takes at most as long as ``SmtpClient.send`` per server.

        A mail that this process has sent is not sent again: its order is redelivered if its outcome could not be
        stored.
        """
        if (accepted := self._accepted.get(mail.message_id)) is not None:
            return accepted
        reasons: list[str] = []
        for client in self._clients:
            outcome = await client.send(mail)
            if not isinstance(outcome, Unavailable | Refused):
                return self._remembered(mail, outcome)
            reasons.append(outcome.reason)
            if isinstance(outcome, Unavailable) and not outcome.not_accepted:
                # The server may have accepted the mail: another server would only add a copy. The retry may do so.
                return Deferred("; ".join(reasons), unknown=True)
        return Deferred("; ".join(reasons))

    async def close(self) -> None:
        """Close the connections of all servers."""
        for client in self._clients:
            await client.close()

    def _remembered(self, mail: Mail, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Accepted):
            self._accepted[mail.message_id] = outcome
            if len(self._accepted) > MAX_REMEMBERED:
                self._accepted.popitem(last=False)
        return outcome
