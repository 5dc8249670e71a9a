"""How does a mail get to the mail server? One envelope each, over a few connections that stay open.

Follows RFC 5321 and, for TLS, RFC 3207 and 8314. What went wrong with the connection or with our own login never ends
a mail: it is put off. Only what the server says about this sender, this recipient or this content for good does.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected

from services.mailer.dialogue import CLOSING, COMPLETED, Dialogue, Lost, Reply
from services.mailer.models.deliveries import HandedOver, HandOver, PutOff, TurnedDown
from services.mailer.models.suppressions import DEAD_ADDRESS
from shared.circuit_breaker import CircuitBreaker
from shared.mail import redact_addresses

Tls = Literal["required", "implicit", "none"]
CONNECT_SECONDS: Final = 10.0
QUIT_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 30.0
"""Servers hang up on idle connections, after a minute some of them; we go first."""
WAIT_SECONDS: Final = 5.0
"""How long a mail waits for a connection to be free."""
PERMANENT: Final = range(500, 600)
OUR_FAULT: Final = frozenset({530, 534, 535, 538})
"""The server wants a login, or another one (RFC 4954 section 6): an operator mends that, the mail is not to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mails are handed over, and how.

    Attributes:
        host: its name, which its certificate must bear.
        port: 587, 465 or the like.
        tls: ``required``: STARTTLS or nothing; ``implicit``: TLS from the first byte; ``none``: for one's own machine.
        username: None for no login.
        password: belongs to it.
        ca_file: certificates to trust instead of the system's.
        own_name: how we greet it.
    """

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None
    ca_file: str | None
    own_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """An envelope with one recipient, and what is in it.

    Attributes:
        message_id: tells mails apart; the same for every copy of one mail.
        sender: an ASCII address.
        recipient: an address, its domain in ASCII.
        content: headers and body, lines ended by CRLF.
    """

    message_id: str
    sender: str
    recipient: str
    content: bytes


@dataclass(frozen=True, slots=True)
class InTrouble:
    """The server, or the way to it, is in trouble, or busy; the mail is not to blame.

    Attributes:
        reason: what is known of it.
        unheard: it can't have taken the mail: another connection, or another server, may be tried at once.
    """

    reason: str
    unheard: bool = True


class Smtp:
    """Hands mails over to one server.

    Args:
        server: the server.
        connections: how many connections there are at most.
        timeout: seconds that one mail may keep a connection.
        name: of its circuit breaker; for metrics.
    """

    def __init__(self, server: MailServer, *, connections: int, timeout: float, name: str = "smtp") -> None:
        self._server = server
        self._timeout = timeout
        self._free = asyncio.Semaphore(connections)
        self._idle: list[tuple[float, Dialogue]] = []
        self._breaker = CircuitBreaker(name)
        self._last_answer = 0.0
        self._tls = None if server.tls == "none" else ssl.create_default_context(cafile=server.ca_file)

    async def hand_over(self, mail: Mail) -> HandOver | InTrouble:
        """Try once to hand a mail over; takes the time-out and some seconds of waiting at most."""
        if (reason := self._breaker.refusal) is not None:
            return InTrouble(reason)
        asked = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            if self._last_answer < asked:
                self._breaker.failed("no connection became free")
            return InTrouble("all connections are busy")
        try:
            if (reason := self._breaker.admit()) is not None:
                return InTrouble(reason)
            return self._judged(await self._try(mail))
        finally:
            self._free.release()

    async def close(self) -> None:
        """Take leave of the server on every idle connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_leave(dialogue) for _, dialogue in idle))

    def _judged(self, outcome: HandOver | InTrouble) -> HandOver | InTrouble:
        if isinstance(outcome, InTrouble):
            self._breaker.failed(outcome.reason)
        else:
            self._breaker.succeeded()
            self._last_answer = time.monotonic()
        return outcome

    async def _try(self, mail: Mail) -> HandOver | InTrouble:
        dialogue = None
        try:
            async with asyncio.timeout(self._timeout):
                dialogue = self._take_idle()
                if dialogue is not None:
                    outcome = await self._converse(dialogue, mail)
                    if not (isinstance(outcome, InTrouble) and outcome.unheard):
                        return outcome
                    # The server had closed the idle connection, or closes it now.
                try:
                    dialogue = await self._connect()
                except (SMTPException, OSError) as failure:
                    return InTrouble(f"connecting: {_told(failure)}")
                return await self._converse(dialogue, mail)
        except TimeoutError:
            unheard = dialogue is None or not dialogue.content_sent
            return InTrouble(f"no answer within {self._timeout:g} s", unheard=unheard)

    async def _connect(self) -> Dialogue:
        """A connection, encrypted and logged in as the settings say.

        Raises:
            SMTPException, OSError: it can't be had like that.
        """
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=server.own_name,
            use_tls=server.tls == "implicit",
            # Said outright: left open, the library goes on in plain text where a server offers no STARTTLS.
            start_tls=server.tls == "required",
            tls_context=self._tls,
            username=server.username,
            password=server.password,
            timeout=self._timeout,
        )
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        if not client.is_connected:
            raise SMTPServerDisconnected("Connection lost")
        return Dialogue(
            # By its methods it is one; uvloop's are no subclass.
            cast("asyncio.Transport", client.transport),
            pipelining=client.supports_extension("pipelining"),
            smtputf8=client.supports_extension("smtputf8"),
        )

    async def _converse(self, dialogue: Dialogue, mail: Mail) -> HandOver | InTrouble:
        """One mail over one connection, which is kept if it is still good."""
        good = False
        try:
            if not mail.recipient.isascii() and not dialogue.smtputf8:
                good = True
                return TurnedDown("the mail server does not take addresses outside ASCII (SMTPUTF8)")
            reply = await dialogue.say(mail.sender, mail.recipient, mail.content)
            good = reply.code != CLOSING
            return _meaning(dialogue, reply, mail)
        except Lost as lost:
            return InTrouble(
                redact_addresses(f"{dialogue.stage}: {lost}", address=mail.recipient), unheard=not dialogue.content_sent
            )
        finally:
            if good and dialogue.ready:
                self._idle.append((time.monotonic(), dialogue))
            else:
                dialogue.abort()

    def _take_idle(self) -> Dialogue | None:
        """The connection used last that is still open; those behind it close as they age."""
        while self._idle:
            used, dialogue = self._idle.pop()
            if dialogue.ready and time.monotonic() - used < IDLE_SECONDS:
                return dialogue
            dialogue.abort()
        return None


def _meaning(dialogue: Dialogue, reply: Reply, mail: Mail) -> HandOver | InTrouble:
    """What an answer says about the mail, or about the server."""
    if dialogue.stage == "DATA" and reply.code == COMPLETED:
        return HandedOver(redact_addresses(f"{reply.code} {reply.text}", address=mail.recipient))
    reason = redact_addresses(f"{dialogue.stage}: {reply.code} {reply.text}", address=mail.recipient)
    if reply.code == CLOSING or reply.code in OUR_FAULT:
        # With either answer it has said that it does not take the mail, even where it has all of it.
        return InTrouble(reason)
    if reply.code in PERMANENT:
        return TurnedDown(reason, dead_address=dialogue.stage == "RCPT" and DEAD_ADDRESS.match(reply.text) is not None)
    return PutOff(reason)


async def _leave(dialogue: Dialogue) -> None:
    with suppress(Lost, TimeoutError):
        async with asyncio.timeout(QUIT_SECONDS):
            await dialogue.quit()
    dialogue.abort()


def _told(failure: Exception) -> str:
    """What a failure says: the server's code and words, or the kind of trouble."""
    if isinstance(failure, SMTPResponseException):
        return f"{failure.code} {failure.message}"
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    return f"{type(failure).__name__}: {failure}"
