"""Failover between mail servers: the second server is used while the first one is unavailable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from services.mailer.deliveries.models import Accepted, Deferred, Outcome
from services.mailer.smtp.smtp_client import Mail, SmtpClient, Unavailable

MAX_REMEMBERED: Final = 4096
"""Number of latest accepted mails that are remembered."""


class MailServers:
    """Sends mails to the first available server.

    Each server has its own circuit breaker: one that refuses connections or hangs is skipped after a few mails and then
    probed with single mails until it answers. Any reply about the mail itself is final for all servers: a greylisted
    mail is retried at the server that knows it. The servers are in order of preference.
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
            if not isinstance(outcome, Unavailable):
                return self._remembered(mail, outcome)
            reasons.append(outcome.reason)
            if not outcome.not_accepted:
                # The server may have accepted the mail: another server would only add a copy. The retry may do so.
                break
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
