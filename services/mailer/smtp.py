"""How does a mail get to the mail server? One envelope each, over a few connections that stay open.

Follows RFC 5321 and, for TLS, RFC 3207 and 8314. What went wrong with the connection or with our own login never ends
a mail: it is put off. Only what the server says about this sender, this recipient or this content for good does.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected

from services.mailer.breaker import Breaker
from services.mailer.models import HandedOver, HandOver, PutOff, TurnedDown

Tls = Literal["required", "implicit", "none"]
CONNECT_SECONDS: Final = 10.0
QUIT_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 30.0
"""Servers hang up on idle connections, after a minute some of them; we go first."""
WAIT_SECONDS: Final = 5.0
"""How long a mail waits for a connection to be free."""
REMEMBERED: Final = 4096
PERMANENT: Final = range(500, 600)
OUR_FAULT: Final = frozenset({530, 534, 535, 538})
"""The server wants a login, or another one (RFC 4954 section 6): an operator mends that, the mail is not to blame."""
REASON_CHARACTERS: Final = 300


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


class Smtp:
    """Hands mails over to one server.

    Args:
        server: the server.
        connections: how many connections there are at most.
        timeout: seconds that one mail may keep a connection.
    """

    def __init__(self, server: MailServer, *, connections: int, timeout: float) -> None:
        self._server = server
        self._timeout = timeout
        self._free = asyncio.Semaphore(connections)
        self._idle: list[tuple[float, SMTP]] = []
        self._breaker = Breaker(time.monotonic)
        self._last_answer = 0.0
        self._accepted: OrderedDict[str, HandedOver] = OrderedDict()
        self._tls = None if server.tls == "none" else ssl.create_default_context(cafile=server.ca_file)

    async def hand_over(self, mail: Mail) -> HandOver:
        """Try once to hand a mail over; takes the time-out and some seconds of waiting at most.

        A mail that this process has handed over is not handed over again: its order may come back when the outcome
        could not be stored.
        """
        if (accepted := self._accepted.get(mail.message_id)) is not None:
            return accepted
        if (reason := self._breaker.refusal) is not None:
            return PutOff(reason)
        asked = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            if self._last_answer < asked:
                self._breaker.failed("no connection became free")
            return PutOff("all connections are busy")
        try:
            if (reason := self._breaker.admit()) is not None:
                return PutOff(reason)
            return self._judged(mail, await self._try(mail))
        finally:
            self._free.release()

    async def close(self) -> None:
        """Take leave of the server on every idle connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_leave(client) for _, client in idle))

    def _judged(self, mail: Mail, outcome: HandOver | _Down) -> HandOver:
        if isinstance(outcome, _Down):
            self._breaker.failed(outcome.reason)
            return PutOff(outcome.reason)
        self._breaker.succeeded()
        self._last_answer = time.monotonic()
        if isinstance(outcome, HandedOver):
            self._accepted[mail.message_id] = outcome
            if len(self._accepted) > REMEMBERED:
                self._accepted.popitem(last=False)
        return outcome

    async def _try(self, mail: Mail) -> HandOver | _Down:
        try:
            async with asyncio.timeout(self._timeout):
                client = self._take_idle()
                if client is not None:
                    try:
                        return await self._converse(client, mail)
                    except _HungUp:
                        # It had closed the idle connection; nothing was handed over on it yet.
                        pass
                try:
                    client = await self._connect()
                except (SMTPException, OSError) as failure:
                    return _Down(f"connecting: {_told(failure)}")
                try:
                    return await self._converse(client, mail)
                except _HungUp as hung_up:
                    return _Down(str(hung_up))
        except TimeoutError:
            return _Down(f"no answer within {self._timeout:g} s")

    async def _connect(self) -> SMTP:
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
        return client

    async def _converse(self, client: SMTP, mail: Mail) -> HandOver | _Down:
        """One mail over one connection, which is kept if it is still good.

        Raises:
            _HungUp: the server closed the connection before it heard of the mail.
        """
        stage, good = "MAIL", False
        try:
            utf8 = not mail.recipient.isascii()
            encoding, options = ("utf-8", ["SMTPUTF8"]) if utf8 else ("ascii", [])
            if utf8 and not client.supports_extension("smtputf8"):
                good = True
                return TurnedDown("the mail server does not take addresses outside ASCII (SMTPUTF8)")
            await client.mail(mail.sender, options=options, encoding=encoding)
            stage = "RCPT"
            await client.rcpt(mail.recipient, encoding=encoding)
            stage = "DATA"
            answer = await client.data(mail.content)
            good = True
            return HandedOver(_shown(f"{answer.code} {answer.message}", mail))
        except SMTPResponseException as refused:
            if stage == "MAIL" and refused.code == 421:  # noqa: PLR2004 -- closing the channel, RFC 5321 section 3.8
                raise _HungUp(_shown(f"MAIL: {_told(refused)}", mail)) from None
            good = await _reset(client)
            reason = _shown(f"{stage}: {_told(refused)}", mail)
            if refused.code in OUR_FAULT:
                return _Down(reason)
            return TurnedDown(reason) if refused.code in PERMANENT else PutOff(reason)
        except (SMTPServerDisconnected, OSError) as lost:
            if stage == "MAIL" and not isinstance(lost, TimeoutError):
                raise _HungUp(f"MAIL: {_told(lost)}") from None
            return _Down(f"{stage}: {_told(lost)}")
        finally:
            if good and client.is_connected:
                self._idle.append((time.monotonic(), client))
            else:
                client.close()

    def _take_idle(self) -> SMTP | None:
        """The connection used last that is still open; those behind it close as they age."""
        while self._idle:
            used, client = self._idle.pop()
            if client.is_connected and time.monotonic() - used < IDLE_SECONDS:
                return client
            client.close()
        return None


@dataclass(frozen=True, slots=True)
class _Down:
    """The server, or the way to it, is in trouble; the mail is not to blame."""

    reason: str


class _HungUp(Exception):
    """The server closed the connection before it heard of the mail."""


async def _reset(client: SMTP) -> bool:
    """Forget the envelope; whether the connection is good for another one."""
    if not client.is_connected:
        return False
    try:
        await client.rset()
    except (SMTPException, OSError):
        return False
    return True


async def _leave(client: SMTP) -> None:
    with suppress(SMTPException, OSError):
        await client.quit(timeout=QUIT_SECONDS)
    client.close()


def _told(failure: Exception) -> str:
    """What a failure says: the server's code and words, or the kind of trouble."""
    if isinstance(failure, SMTPResponseException):
        return f"{failure.code} {failure.message}"
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    return f"{type(failure).__name__}: {failure}"


def _shown(said: str, mail: Mail) -> str:
    """A server's words as we may keep them: ASCII, bounded, without the recipient's address."""
    said = re.sub(re.escape(mail.recipient), "<recipient>", said, flags=re.IGNORECASE)
    return re.sub(r"[^ -~]", "?", said)[:REASON_CHARACTERS]
