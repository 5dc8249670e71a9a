import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.smtp import smtp_client as smtp_client_module
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import MailServer, SmtpClient
from tests.mailer.smtp.test_smtp_client import mail
from tests.mailer.smtp_server import SmtpServer, until


@asynccontextmanager
async def mail_servers(*servers: SmtpServer, timeout: float = 1.0) -> AsyncIterator[MailServers]:
    clients = [
        SmtpClient(
            MailServer(
                host="127.0.0.1",
                port=server.port,
                tls="none",
                username=None,
                password=None,
                ca_file=None,
                ehlo_name="nest.example",
            ),
            connections=2,
            timeout=timeout,
            name=f"server-{server.port}",
        )
        for server in servers
    ]
    failover = MailServers(clients)
    try:
        yield failover
    finally:
        await failover.close()


@pytest.fixture
async def first() -> AsyncIterator[SmtpServer]:
    async with SmtpServer(pipelining=True) as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[SmtpServer]:
    async with SmtpServer(pipelining=True) as server:
        yield server


async def test_second_server_is_unused_while_the_first_works(first: SmtpServer, second: SmtpServer) -> None:
    async with mail_servers(first, second) as servers:
        for number in range(10):
            assert isinstance(await servers.send(mail(number)), Accepted)
    assert (len(first.arrivals), second.connections) == (10, 0)


async def test_accepted_mail_is_not_sent_again(first: SmtpServer, second: SmtpServer) -> None:
    async with mail_servers(first, second) as servers:
        await first.stop()
        outcome = await servers.send(mail())
        await first.start()
        assert await servers.send(mail()) == outcome
    assert (len(first.arrivals), len(second.arrivals)) == (0, 1)


async def test_outage_of_the_first_server_defers_no_mail(first: SmtpServer, second: SmtpServer) -> None:
    async with mail_servers(first, second) as servers:
        await first.stop()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(50)))
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert len(second.arrivals) == 50
        await first.start()
        numbers = iter(range(100, 10_000))

        async def first_is_used_again() -> bool:
            assert isinstance(await servers.send(mail(next(numbers))), Accepted)
            return bool(first.arrivals)

        await until(first_is_used_again)
        before = len(second.arrivals)
        for number in range(20):
            await servers.send(mail(20_000 + number))
        assert len(second.arrivals) == before


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_server_that_hangs_delays_only_the_first_mails(
    first: SmtpServer, second: SmtpServer, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply_slowly(_argument: str) -> None:
        await asyncio.sleep(60)

    first.answers[verb] = reply_slowly
    monkeypatch.setattr(smtp_client_module, "WAIT_SECONDS", 0.5)
    async with mail_servers(first, second, timeout=1.0) as servers:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(60)))
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert time.monotonic() - began < 15
        began = time.monotonic()
        for number in range(100, 150):
            assert isinstance(await servers.send(mail(number)), Accepted)
        # At most one of them probed the first server and waited.
        assert time.monotonic() - began < 15
    assert len(second.arrivals) == 110


@pytest.mark.parametrize(
    ("verb", "reply", "opens"),
    [
        ("MAIL", "421 4.3.2 shutting down", False),
        ("MAIL", "535 5.7.8 who are you", True),
        ("MAIL", "530 5.7.0 log in first", True),
        ("MAIL", "550 sender unknown", True),
        ("MAIL", "553 5.1.8 sender's domain unknown", True),
        ("DATA", "421 4.3.2 shutting down", False),
        ("DATA", "550 5.7.1 refused by policy", True),
        ("DATA", "554 5.7.26 not authenticated", True),
        ("DATA", "554 5.6.0 bad content", False),
        ("DATA", "552 too long", False),
    ],
)
async def test_second_server_gets_the_mails_that_the_first_refuses(
    *, first: SmtpServer, second: SmtpServer, verb: str, reply: str, opens: bool
) -> None:
    first.reply_to(verb, reply)
    async with mail_servers(first, second) as servers:
        assert isinstance(await servers.send(mail()), Accepted)
        is_open = REGISTRY.get_sample_value("nest_breaker_open", {"dependency": f"server-{first.port}"})
    assert (len(first.arrivals), len(second.arrivals)) == (0, 1)
    assert is_open == opens


async def test_mail_that_both_servers_refuse_is_deferred(first: SmtpServer, second: SmtpServer) -> None:
    first.reply_to("MAIL", "550 5.7.1 not you")
    second.reply_to("DATA", "554 5.6.0 bad content")
    async with mail_servers(first, second) as servers:
        outcome = await servers.send(mail())
    assert outcome == Deferred("MAIL: 550 5.7.1 not you; DATA: 554 5.6.0 bad content")


@pytest.mark.parametrize(
    ("reply", "outcome"), [("450 4.2.1 greylisted", Deferred), ("550 5.7.1 not this one", Rejected)]
)
async def test_reply_about_the_mail_is_final_for_both_servers(
    first: SmtpServer, second: SmtpServer, reply: str, outcome: type
) -> None:
    first.reply_to("RCPT", reply)
    async with mail_servers(first, second) as servers:
        assert isinstance(await servers.send(mail()), outcome)
    assert second.connections == 0


async def test_possibly_accepted_mail_is_not_sent_to_the_second_server(first: SmtpServer, second: SmtpServer) -> None:
    first.drop_after_data = True
    async with mail_servers(first, second) as servers:
        outcome = await servers.send(mail())
    assert isinstance(outcome, Deferred)
    assert outcome.unknown
    assert (len(first.arrivals), second.connections) == (1, 0)


async def test_mail_is_deferred_with_the_reasons_of_both_servers(first: SmtpServer, second: SmtpServer) -> None:
    await first.stop()
    second.reply_to("MAIL", "421 4.3.2 shutting down")
    async with mail_servers(first, second) as servers:
        outcome = await servers.send(mail())
    assert isinstance(outcome, Deferred)
    assert outcome.reason.startswith("connecting: ")
    assert outcome.reason.endswith("; MAIL: 421 4.3.2 shutting down")
