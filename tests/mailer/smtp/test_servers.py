import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.smtp import smtp_client as smtp_module
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import MailServer, SmtpClient
from tests.mailer.smtp.test_smtp_client import mail
from tests.mailer.smtp_server import SmtpServer, until


@asynccontextmanager
async def both(first: SmtpServer, second: SmtpServer, *, timeout: float = 1.0) -> AsyncIterator[MailServers]:
    ways = [
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
        for server in (first, second)
    ]
    servers = MailServers(ways)
    try:
        yield servers
    finally:
        await servers.close()


@pytest.fixture
async def first() -> AsyncIterator[SmtpServer]:
    async with SmtpServer(pipelining=True) as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[SmtpServer]:
    async with SmtpServer(pipelining=True) as server:
        yield server


async def test_the_second_server_hears_nothing_while_the_first_works(first: SmtpServer, second: SmtpServer) -> None:
    async with both(first, second) as servers:
        for number in range(10):
            assert isinstance(await servers.send(mail(number)), Accepted)
    assert (len(first.arrivals), second.connections) == (10, 0)


async def test_a_mail_that_was_handed_over_is_not_handed_over_again(first: SmtpServer, second: SmtpServer) -> None:
    async with both(first, second) as servers:
        await first.stop()
        taken = await servers.send(mail())
        await first.start()
        assert await servers.send(mail()) == taken
    assert (len(first.arrivals), len(second.arrivals)) == (0, 1)


async def test_a_server_that_refuses_connections_costs_no_mail_and_is_used_again_when_it_is_back(
    first: SmtpServer, second: SmtpServer
) -> None:
    async with both(first, second) as servers:
        await first.stop()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(50)))
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert len(second.arrivals) == 50
        await first.start()
        numbers = iter(range(100, 10_000))

        async def back() -> bool:
            assert isinstance(await servers.send(mail(next(numbers))), Accepted)
            return bool(first.arrivals)

        await until(back)
        before = len(second.arrivals)
        for number in range(20):
            await servers.send(mail(20_000 + number))
        assert len(second.arrivals) == before


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_a_server_that_hangs_delays_only_the_mails_that_found_it_out(
    first: SmtpServer, second: SmtpServer, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tarpit(_argument: str) -> None:
        await asyncio.sleep(60)

    first.answers[verb] = tarpit
    monkeypatch.setattr(smtp_module, "WAIT_SECONDS", 0.5)
    async with both(first, second, timeout=1.0) as servers:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(servers.send(mail(number)) for number in range(60)))
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert time.monotonic() - began < 4
        began = time.monotonic()
        for number in range(100, 150):
            assert isinstance(await servers.send(mail(number)), Accepted)
        # One probe at most hung meanwhile.
        assert time.monotonic() - began < 2.5
    assert len(second.arrivals) == 110


@pytest.mark.parametrize("answer", ["421 4.3.2 shutting down", "535 5.7.8 who are you", "530 5.7.0 log in first"])
async def test_a_server_that_takes_no_mail_of_ours_is_passed_over(
    first: SmtpServer, second: SmtpServer, answer: str
) -> None:
    first.refusing("MAIL", answer)
    async with both(first, second) as servers:
        assert isinstance(await servers.send(mail()), Accepted)
    assert len(second.arrivals) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"), [("450 4.2.1 greylisted", Deferred), ("550 5.7.1 not this one", Rejected)]
)
async def test_what_a_server_says_of_the_mail_itself_is_not_asked_elsewhere(
    first: SmtpServer, second: SmtpServer, answer: str, outcome: type
) -> None:
    first.refusing("RCPT", answer)
    async with both(first, second) as servers:
        assert isinstance(await servers.send(mail()), outcome)
    assert second.connections == 0


async def test_a_mail_that_the_first_server_may_have_is_not_given_to_the_second_at_once(
    first: SmtpServer, second: SmtpServer
) -> None:
    first.drop_after_data = True
    async with both(first, second) as servers:
        assert isinstance(await servers.send(mail()), Deferred)
    assert (len(first.arrivals), second.connections) == (1, 0)


async def test_with_both_servers_in_trouble_a_mail_is_put_off_with_both_reasons(
    first: SmtpServer, second: SmtpServer
) -> None:
    await first.stop()
    second.refusing("MAIL", "421 4.3.2 shutting down")
    async with both(first, second) as servers:
        outcome = await servers.send(mail())
    assert isinstance(outcome, Deferred)
    assert outcome.reason.startswith("connecting: ")
    assert outcome.reason.endswith("; MAIL: 421 4.3.2 shutting down")
