"""Mail servers that delay one reply for a minute, whichever it is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.smtp import smtp_client as smtp_client_module
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import MailServer, SmtpClient, Tls, Unavailable
from tests.mailer.smtp.test_smtp_client import mail
from tests.mailer.smtp_server import SmtpServer

DELAY = 60.0
"""Seconds."""
BEFORE_THE_CONTENT = ("greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA")
TIMEOUT = 0.5


@dataclass
class SlowServer:
    """SMTP server that delays the reply to one verb.

    Attributes:
        delayed: the verb; also ``greeting``, or ``content`` for the reply to the content.
        pipelining: whether PIPELINING is advertised.
        port: its port.
        accepted: number of mails whose content it has received.
        unknown: a recipient that it rejects.
    """

    delayed: str
    pipelining: bool = False
    port: int = 0
    accepted: int = 0
    unknown: str = "nobody@example.com"
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _sessions: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self._stopped.set()
            for writer in self._sessions:
                writer.transport.abort()
            await asyncio.gather(*self._sessions.values())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        assert session is not None
        self._sessions[writer] = session
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients = 0
        await self._reply(writer, "greeting", "220 localhost")
        while line := await reader.readline():
            verb, _, argument = line.decode().strip().partition(" ")
            if verb == "DATA" and recipients:
                await self._reply(writer, verb, "354 go on")
                await reader.readuntil(b"\r\n.\r\n")
                self.accepted += 1
                await self._reply(writer, "content", "250 taken")
                continue
            extensions = "250-localhost\r\n" + ("250-PIPELINING\r\n" if self.pipelining else "") + "250 STARTTLS"
            known = self.unknown not in argument
            recipients = recipients + known if verb == "RCPT" else 0
            replies = {"EHLO": extensions, "RCPT": "250 fine" if known else "550 5.1.1 nobody", "DATA": "503 to whom?"}
            await self._reply(writer, verb, replies.get(verb, "250 fine"))

    async def _reply(self, writer: asyncio.StreamWriter, verb: str, reply: str) -> None:
        if verb == self.delayed:
            with suppress(TimeoutError):
                async with asyncio.timeout(DELAY):
                    await self._stopped.wait()
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_client_module, "CONNECT_SECONDS", TIMEOUT)
    monkeypatch.setattr(smtp_client_module, "QUIT_SECONDS", TIMEOUT)


def client_of(port: int, *, tls: Tls = "none", name: str = "smtp") -> SmtpClient:
    server = MailServer(
        host="127.0.0.1", port=port, tls=tls, username=None, password=None, ca_file=None, ehlo_name="nest.example"
    )
    return SmtpClient(server, connections=2, timeout=TIMEOUT, name=f"{name}-{port}")


@pytest.fixture(params=[False, True], ids=["in-turn", "pipelining"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("delayed", BEFORE_THE_CONTENT)
async def test_delay_before_the_content_sends_the_mail_to_the_second_server(delayed: str, *, pipelining: bool) -> None:
    slow = SlowServer(delayed, pipelining=pipelining)
    async with slow.listening(), SmtpServer() as good:
        tls: Tls = "required" if delayed == "STARTTLS" else "none"
        servers = MailServers([client_of(slow.port, tls=tls), client_of(good.port, name="second")])
        began = time.monotonic()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(4)))
        assert time.monotonic() - began < DELAY / 6
        await servers.close()
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    assert (slow.accepted, len(good.arrivals)) == (0, 4)


async def test_delay_after_the_content_defers_the_mail(*, pipelining: bool) -> None:
    slow = SlowServer("content", pipelining=pipelining)
    async with slow.listening(), SmtpServer() as good:
        servers = MailServers([client_of(slow.port), client_of(good.port, name="second")])
        outcome = await servers.send(mail())
        await servers.close()
    assert isinstance(outcome, Deferred)
    assert (slow.accepted, good.arrivals) == (1, [])


async def test_delay_of_rset_costs_the_next_mail_one_timeout(*, pipelining: bool) -> None:
    slow = SlowServer("RSET", pipelining=pipelining)
    async with slow.listening():
        client = client_of(slow.port)
        assert isinstance(await client.send(mail(1, slow.unknown)), Rejected)
        outcome = await client.send(mail(2))
        assert isinstance(outcome, Unavailable)
        assert outcome.not_accepted
        assert isinstance(await client.send(mail(3)), Accepted)
        await client.close()
    assert slow.accepted == 1


async def test_delay_of_quit_does_not_delay_the_close() -> None:
    slow = SlowServer("QUIT")
    async with slow.listening():
        client = client_of(slow.port)
        assert isinstance(await client.send(mail()), Accepted)
        began = time.monotonic()
        await client.close()
        assert time.monotonic() - began < DELAY / 6
