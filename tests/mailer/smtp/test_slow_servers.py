"""A mail server that holds one verb back for a minute, whichever it is: what that costs a mail, and what the others."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.smtp import smtp_client as smtp_module
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import MailServer, SmtpClient, Tls, Unavailable
from tests.mailer.smtp.test_smtp_client import mail
from tests.mailer.smtp_server import SmtpServer

HELD = 60.0
"""Seconds."""
BEFORE_THE_CONTENT = ("greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA")
TIMEOUT = 0.5


@dataclass
class Tarpit:
    """Says what a good server says, but lets one verb wait for a minute.

    Attributes:
        held: the verb; ``greeting`` before any, ``content`` for the mail itself.
        port: where it listens.
        taken: how many mails it has got whole.
        refuses: a recipient that it does not know.
    """

    held: str
    pipelining: bool = False
    port: int = 0
    taken: int = 0
    refuses: str = "nobody@example.com"
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _conversations: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens on a free port of loopback."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self._over.set()
            for writer in self._conversations:
                writer.transport.abort()
            await asyncio.gather(*self._conversations.values())

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations[writer] = conversation
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients = 0
        await self._say(writer, "greeting", "220 localhost")
        while line := await reader.readline():
            verb, _, argument = line.decode().strip().partition(" ")
            if verb == "DATA" and recipients:
                await self._say(writer, verb, "354 go on")
                await reader.readuntil(b"\r\n.\r\n")
                self.taken += 1
                await self._say(writer, "content", "250 taken")
                continue
            offered = "250-localhost\r\n" + ("250-PIPELINING\r\n" if self.pipelining else "") + "250 STARTTLS"
            known = self.refuses not in argument
            recipients = recipients + known if verb == "RCPT" else 0
            answers = {"EHLO": offered, "RCPT": "250 fine" if known else "550 5.1.1 nobody", "DATA": "503 to whom?"}
            await self._say(writer, verb, answers.get(verb, "250 fine"))

    async def _say(self, writer: asyncio.StreamWriter, verb: str, answer: str) -> None:
        if verb == self.held:
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD):
                    await self._over.wait()
        writer.write(answer.encode() + b"\r\n")
        await writer.drain()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_module, "CONNECT_SECONDS", TIMEOUT)
    monkeypatch.setattr(smtp_module, "QUIT_SECONDS", TIMEOUT)


def way(port: int, *, tls: Tls = "none", name: str = "smtp") -> SmtpClient:
    server = MailServer(
        host="127.0.0.1", port=port, tls=tls, username=None, password=None, ca_file=None, ehlo_name="nest.example"
    )
    return SmtpClient(server, connections=2, timeout=TIMEOUT, name=f"{name}-{port}")


@pytest.fixture(params=[False, True], ids=["in-turn", "pipelining"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("held", BEFORE_THE_CONTENT)
async def test_a_verb_held_back_before_the_content_costs_the_timeout_and_the_second_server_takes_the_mail(
    held: str, *, pipelining: bool
) -> None:
    tarpit = Tarpit(held, pipelining=pipelining)
    async with tarpit.listening(), SmtpServer() as good:
        tls: Tls = "required" if held == "STARTTLS" else "none"
        servers = MailServers([way(tarpit.port, tls=tls), way(good.port, name="second")])
        began = time.monotonic()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(4)))
        assert time.monotonic() - began < HELD / 6
        await servers.close()
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    assert (tarpit.taken, len(good.arrivals)) == (0, 4)


async def test_a_server_that_holds_back_what_it_says_of_the_content_may_have_the_mail(*, pipelining: bool) -> None:
    tarpit = Tarpit("content", pipelining=pipelining)
    async with tarpit.listening(), SmtpServer() as good:
        servers = MailServers([way(tarpit.port), way(good.port, name="second")])
        outcome = await servers.send(mail())
        await servers.close()
    assert isinstance(outcome, Deferred)
    assert (tarpit.taken, good.arrivals) == (1, [])


async def test_a_server_that_does_not_forget_a_refused_mail_harms_the_next_one_by_the_timeout_alone(
    *, pipelining: bool
) -> None:
    tarpit = Tarpit("RSET", pipelining=pipelining)
    async with tarpit.listening():
        smtp = way(tarpit.port)
        assert isinstance(await smtp.send(mail(1, tarpit.refuses)), Rejected)
        held = await smtp.send(mail(2))
        assert isinstance(held, Unavailable)
        assert held.not_accepted
        assert isinstance(await smtp.send(mail(3)), Accepted)
        await smtp.close()
    assert tarpit.taken == 1


async def test_a_server_that_does_not_let_us_go_is_left() -> None:
    tarpit = Tarpit("QUIT")
    async with tarpit.listening():
        smtp = way(tarpit.port)
        assert isinstance(await smtp.send(mail()), Accepted)
        began = time.monotonic()
        await smtp.close()
        assert time.monotonic() - began < HELD / 6
