"""SMTP client of one mail server: a pool of connections, timeouts and a circuit breaker.

Follows RFC 5321 and, for TLS, RFC 3207 and 8314. One envelope is sent per mail. Only a permanent error about its
recipient fails a mail. A failure of the connection, or a refusal of our login, sender or content, does not: another
server may take the mail, or the same one later.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, Deferred, Outcome, Rejected
from services.mailer.smtp.smtp_session import CLOSING, ConnectionLost, Reply, SmtpSession
from services.mailer.suppressions.models import shows_dead_address
from shared.circuit_breaker import CircuitBreaker
from shared.mail import provider_id_in, redact_addresses
from shared.tracing import smtp_mail

Tls = Literal["required", "implicit", "none"]
CONNECT_SECONDS: Final = 10.0
QUIT_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 30.0
"""Idle connections are closed before the servers do so; some close them after a minute."""
WAIT_SECONDS: Final = 5.0
"""How long a mail waits for a free connection."""
LOGIN_ERRORS: Final = frozenset({530, 534, 535, 538})
"""The server requires a login, or rejected ours (RFC 4954 section 6): an operator corrects that; the mail is fine."""
POLICY: Final = re.compile(r"(?:^|[#(\[])5\.7\.[0-9]{1,3}(?!\.?\d)")
"""Enhanced status codes of a policy, for example against our network or a domain without DKIM (RFC 3463 section 3.8).
They come after the content from servers that check it; some at the end of the text: ``554 denied (#5.7.1)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Address and credentials of a mail server.

    Attributes:
        host: the host name, for which its certificate must be valid.
        port: usually 587 or 465.
        tls: ``required``: STARTTLS or no mail; ``implicit``: TLS from the first byte; ``none``: for local servers.
        username: None for no login.
        password: None for no login.
        ca_file: a PEM file of CA certificates to trust instead of the system's.
        ehlo_name: our name in EHLO.
    """

    host: str
    port: int
    tls: Tls
    username: SecretStr | None
    password: SecretStr | None
    ca_file: Path | None
    ehlo_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail with its envelope: an ASCII sender and one recipient, whose domain is in ASCII.

    All copies of a mail have the same ``message_id``, and all runs of one attempt the same ``attempt``, if it is known.
    The lines of ``content``, headers and body, end with CRLF.
    """

    message_id: str
    attempt: int | None = None
    sender: str
    recipient: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The server is unreachable, failing or busy; the mail is fine.

    ``not_accepted``: the server cannot have accepted the mail, so another connection or server may be tried at once.
    """

    reason: str
    not_accepted: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Permanent refusal that does not depend on the recipient. Another server may accept the mail.

    ``all_mails``: the refusal concerns our login, sender or network, so the server would refuse other mails too.
    """

    reason: str
    all_mails: bool


class SmtpClient:
    """Sends mails to one server, over at most ``connections`` connections.

    A mail may use a connection for ``timeout`` seconds. ``name`` is the circuit breaker's name in metrics.
    """

    def __init__(self, server: MailServer, *, connections: int, timeout: float, name: str = "smtp") -> None:
        self.name = name
        self._server = server
        self._timeout = timeout
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[tuple[float, SmtpSession]] = []
        self._breaker = CircuitBreaker(name)
        self._last_success = 0.0
        self._tls = None if server.tls == "none" else ssl.create_default_context(cafile=server.ca_file)

    async def send(self, mail: Mail) -> Outcome | Unavailable | Refused:
        """Try once to send a mail; takes at most ``WAIT_SECONDS`` plus the timeout."""
        if (reason := self._breaker.rejection) is not None:
            return Unavailable(reason)
        began = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            if self._last_success < began:
                self._breaker.failed("no connection became free")
            return Unavailable("all connections are busy")
        try:
            if (reason := self._breaker.before_call()) is not None:
                return Unavailable(reason)
            with smtp_mail(self._server.host, self._server.port) as span:
                outcome = await self._attempt(mail)
                if not isinstance(outcome, Accepted):
                    span.fail(type(outcome).__name__.lower())
            return self._recorded(outcome)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close the idle connections with QUIT."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_close(session) for _, session in idle))

    def _recorded(self, outcome: Outcome | Unavailable | Refused) -> Outcome | Unavailable | Refused:
        if isinstance(outcome, Unavailable):
            self._breaker.failed(outcome.reason)
        elif isinstance(outcome, Refused) and outcome.all_mails:
            self._breaker.open(outcome.reason)
        else:
            self._breaker.succeeded()
            self._last_success = time.monotonic()
        return outcome

    async def _attempt(self, mail: Mail) -> Outcome | Unavailable | Refused:
        session = None
        try:
            async with asyncio.timeout(self._timeout):
                session = self._take_idle()
                if session is not None:
                    outcome = await self._send_over(session, mail)
                    if not (isinstance(outcome, Unavailable) and outcome.not_accepted):
                        return outcome
                    # The server closed the idle connection.
                try:
                    session = await self._connect()
                except (SMTPException, OSError) as failure:
                    return Unavailable(f"connecting: {_error_text(failure)}")
                return await self._send_over(session, mail)
        except TimeoutError:
            not_accepted = session is None or not session.content_sent
            return Unavailable(f"no answer within {self._timeout:g} s", not_accepted=not_accepted)

    async def _connect(self) -> SmtpSession:
        """Open a connection, encrypted and authenticated as configured.

        Raises:
            SMTPException, OSError: connecting, TLS or the login failed.
        """
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=server.ehlo_name,
            use_tls=server.tls == "implicit",
            # Explicit: by default the library continues in plain text if a server does not offer STARTTLS.
            start_tls=server.tls == "required",
            tls_context=self._tls,
            username=None if server.username is None else server.username.get_secret_value(),
            password=None if server.password is None else server.password.get_secret_value(),
            timeout=self._timeout,
        )
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        if not client.is_connected:
            raise SMTPServerDisconnected("Connection lost")
        return SmtpSession(
            # uvloop's transports have the methods but are no subclass.
            cast("asyncio.Transport", client.transport),
            pipelining=client.supports_extension("pipelining"),
            smtputf8=client.supports_extension("smtputf8"),
        )

    async def _send_over(self, session: SmtpSession, mail: Mail) -> Outcome | Unavailable | Refused:
        """Send one mail over a session; keep the session if it is still usable."""
        reusable = False
        try:
            if not mail.recipient.isascii() and not session.smtputf8:
                reusable = True
                return Rejected("the mail server does not accept addresses outside ASCII (SMTPUTF8)")
            reply = await session.send(mail.sender, mail.recipient, mail.content)
            reusable = reply.code != CLOSING
            return _outcome(session, reply, mail)
        except ConnectionLost as lost:
            reason = redact_addresses(f"{session.stage}: {lost}", address=mail.recipient)
            return Unavailable(reason, not_accepted=not session.content_sent)
        finally:
            if reusable and session.ready:
                self._idle.append((time.monotonic(), session))
            else:
                session.abort()

    def _take_idle(self) -> SmtpSession | None:
        """Take the most recently used open connection; the others expire in time."""
        while self._idle:
            used_at, session = self._idle.pop()
            if session.ready and time.monotonic() - used_at < IDLE_SECONDS:
                return session
            session.abort()
        return None


def _outcome(session: SmtpSession, reply: Reply, mail: Mail) -> Outcome | Unavailable | Refused:
    if session.content_sent and reply.completed:
        answer = redact_addresses(f"{reply.code} {reply.text}", address=mail.recipient)
        return Accepted(answer, provider_id=_provider_id(reply, mail))
    reason = redact_addresses(f"{session.stage}: {reply.code} {reply.text}", address=mail.recipient)
    if reply.code == CLOSING:
        # The server did not accept the mail, even if it has received the content.
        return Unavailable(reason)
    if reply.code in LOGIN_ERRORS:
        return Refused(reason, all_mails=True)
    if not reply.permanent:
        return Deferred(reason)
    match session.stage:
        case "MAIL":
            # Servers may refuse SMTPUTF8, which only a recipient outside ASCII needs (RFC 6531 section 3.5).
            return Refused(reason, all_mails=mail.recipient.isascii())
        case "RCPT":
            return Rejected(reason, dead_address=shows_dead_address(f"{reply.code} {reply.text}"))
        case "DATA":
            return Refused(reason, all_mails=POLICY.search(reply.text) is not None)


def _provider_id(reply: Reply, mail: Mail) -> str | None:
    """Return the first ID in the reply; not the recipient's address, which is stored sealed only."""
    local_part = mail.recipient.rpartition("@")[0].lower()
    ids = filter(None, map(provider_id_in, reply.text.split()))
    return next((each for each in ids if local_part != each.lower()), None)


async def _close(session: SmtpSession) -> None:
    # The server may have closed the connection already, which is no error.
    with suppress(ConnectionLost, TimeoutError):
        async with asyncio.timeout(QUIT_SECONDS):
            await session.quit()
    session.abort()


def _error_text(failure: Exception) -> str:
    """Return the server's code and message, or the kind of the error."""
    if isinstance(failure, SMTPResponseException):
        return f"{failure.code} {failure.message}"
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    return f"{type(failure).__name__}: {failure}"
