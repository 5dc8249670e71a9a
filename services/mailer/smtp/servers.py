"""Failover between mail servers: the second server is used while the first one is unavailable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from services.mailer.deliveries.models import Accepted, Deferred, Outcome
from services.mailer.smtp.smtp_client import Mail, Refused, SmtpClient, Unavailable
from shared.telemetry import log

MAX_REMEMBERED: Final = 4096
"""Number of latest mails that are remembered because a server accepted them, or may have."""


class MailServers:
    """Sends mails to the first available server.

    The servers are in order of preference. Each has its own circuit breaker: one that refuses connections or hangs is
    skipped after a few mails, one that refuses our sender or our mails by policy after one, and then probed with single
    mails. A permanent error about the recipient is final for all servers. A temporary one defers the mail: a greylisted
    mail is retried at the server that knows it.
    """

    def __init__(self, clients: Sequence[SmtpClient]) -> None:
        self._clients = tuple(clients)
        self._sent: OrderedDict[str, tuple[int | None, Accepted | Deferred]] = OrderedDict()

    async def send(self, mail: Mail) -> Outcome:
        """Try once to send a mail; takes at most as long as ``SmtpClient.send`` per server.

        An order is redelivered if its outcome could not be stored. So a mail that this process has sent is not sent
        again, and one that a server may have accepted not in the same attempt.
        """
        attempt, known = self._sent.get(mail.message_id, (None, None))
        if isinstance(known, Accepted) or (known is not None and attempt is not None and attempt == mail.attempt):
            return known
        reasons: list[str] = []
        for client in self._clients:
            outcome = await client.send(mail)
            if not isinstance(outcome, Unavailable | Refused):
                if isinstance(outcome, Accepted):
                    self._remember(mail, outcome)
                return outcome
            reasons.append(outcome.reason)
            if isinstance(outcome, Refused):
                # The next server may accept the mail, and then nothing else tells the reason.
                log.warning("mail server refused a mail", server=client.name, reason=outcome.reason)
            if isinstance(outcome, Unavailable) and not outcome.not_accepted:
                # The server may have accepted the mail: another server would only add a copy. The retry may do so.
                unknown = Deferred("; ".join(reasons), unknown=True)
                self._remember(mail, unknown)
                return unknown
        return Deferred("; ".join(reasons))

    async def close(self) -> None:
        """Close the connections of all servers."""
        for client in self._clients:
            await client.close()

    def _remember(self, mail: Mail, outcome: Accepted | Deferred) -> None:
        self._sent[mail.message_id] = mail.attempt, outcome
        if len(self._sent) > MAX_REMEMBERED:
            self._sent.popitem(last=False)
