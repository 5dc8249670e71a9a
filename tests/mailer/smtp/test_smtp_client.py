import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.mailer.deliveries.models import Accepted, Deferred, Rejected, SendOutcome
from services.mailer.smtp import smtp_client as smtp_module
from services.mailer.smtp.smtp_client import Mail, MailServer, SmtpClient, Unavailable
from services.mailer.smtp.smtp_session import SmtpSession
from tests.mailer.smtp_server import SmtpServer, server_tls, until


@pytest.fixture(params=[False, True], ids=["in-turn", "pipelining"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SmtpServer]:
    """A mail server that takes commands in turn, and one that takes them at once."""
    async with SmtpServer(pipelining=request.param) as server:
        yield server


def mail(number: int = 1, recipient: str = "person@example.com") -> Mail:
    return Mail(
        message_id=f"<{number}@nest.example>",
        sender="mail@nest.example",
        recipient=recipient,
        content=b"Subject: Hello\r\n\r\n.a line that begins with a dot\r\n",
    )


@asynccontextmanager
async def client(port: int, *, connections: int = 2, timeout: float = 1.0, **changed: Any) -> AsyncIterator[SmtpClient]:
    usual: dict[str, Any] = {
        "host": "localhost",
        "port": port,
        "tls": "none",
        "username": None,
        "password": None,
        "ca_file": None,
        "ehlo_name": "nest.example",
    }
    smtp = SmtpClient(MailServer(**{**usual, **changed}), connections=connections, timeout=timeout)
    try:
        yield smtp
    finally:
        await smtp.close()


async def test_a_mail_is_handed_over_in_an_envelope_of_its_own(server: SmtpServer) -> None:
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Accepted("250 taken")
    [arrival] = server.arrivals
    assert (arrival.sender, arrival.recipients) == ("mail@nest.example", ["person@example.com"])
    assert arrival.content == mail().content


async def test_connections_are_kept_and_bounded(server: SmtpServer) -> None:
    async with client(server.port, connections=3) as smtp:
        outcomes = await asyncio.gather(*(smtp.send(mail(number)) for number in range(60)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert len(server.arrivals) == 60
    assert server.connections == 3


async def test_an_idle_connection_that_the_server_closed_costs_no_mail(server: SmtpServer) -> None:
    async with client(server.port) as smtp:
        await smtp.send(mail(1))
        server.hang_up()
        assert isinstance(await smtp.send(mail(2)), Accepted)
    assert (len(server.arrivals), server.connections) == (2, 2)


async def test_a_server_that_closes_its_channel_on_the_next_mail_costs_no_mail(server: SmtpServer) -> None:
    async with client(server.port) as smtp:
        await smtp.send(mail(1))
        answers = iter(["421 too many mails on this connection"])
        server.answers["MAIL"] = lambda _argument: next(answers, None)
        assert isinstance(await smtp.send(mail(2)), Accepted)
    assert (len(server.arrivals), server.connections) == (2, 2)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_greylisting_server_puts_the_mail_off(server: SmtpServer, verb: str) -> None:
    server.refusing(verb, "451 4.7.1 come back later")
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Deferred(f"{verb}: 451 4.7.1 come back later")
        server.answers.clear()
        assert isinstance(await smtp.send(mail()), Accepted)
    assert server.connections == 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_final_no_turns_the_mail_down_and_keeps_the_connection(server: SmtpServer, verb: str) -> None:
    server.refusing(verb, "550 5.7.1 never")
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Rejected(f"{verb}: 550 5.7.1 never")
        server.answers.clear()
        assert isinstance(await smtp.send(mail(2)), Accepted)
    assert server.connections == 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_server_that_closes_the_channel_is_in_trouble(server: SmtpServer, verb: str) -> None:
    server.refusing(verb, "421 4.3.2 shutting down")
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Unavailable(f"{verb}: 421 4.3.2 shutting down")


async def test_one_dead_recipient_harms_no_other_mail(server: SmtpServer) -> None:
    server.answers["RCPT"] = lambda address: "550 no such user" if address.startswith("dead") else None
    async with client(server.port) as smtp:
        recipients = [f"{'dead' if number == 7 else 'live'}{number}@example.com" for number in range(20)]
        outcomes = await asyncio.gather(*(smtp.send(mail(n, to)) for n, to in enumerate(recipients)))
    assert [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Accepted)] == [7]


async def test_what_the_server_says_is_kept_without_the_address(server: SmtpServer) -> None:
    server.refusing("RCPT", "550 <Person@example.com> (person@example.com): \x07nobody h\xe9re" + "x" * 600)
    async with client(server.port) as smtp:
        outcome = await smtp.send(mail(recipient="Person@example.com"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("RCPT: 550 <<recipient>> (<recipient>):")
    assert "person" not in outcome.reason.lower()
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert len(outcome.reason) == 300


async def test_a_server_that_drops_after_the_content_may_have_the_mail(server: SmtpServer) -> None:
    server.drop_after_data = True
    async with client(server.port) as smtp:
        outcome = await smtp.send(mail())
        assert isinstance(outcome, Unavailable)
        assert outcome.reason.startswith("DATA: ")
        assert not outcome.not_accepted
        server.drop_after_data = False
        assert isinstance(await smtp.send(mail()), Accepted)
    # The first copy was taken, which only the server could know.
    assert len(server.arrivals) == 2


async def test_nobody_listening_is_noticed_and_soon_without_trying(
    server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.stop()
    tried = 0

    async def counted(smtp: SmtpClient) -> SmtpSession:
        nonlocal tried
        tried += 1
        return await connect(smtp)

    connect = SmtpClient._connect
    monkeypatch.setattr(SmtpClient, "_connect", counted)
    async with client(server.port) as smtp:
        for number in range(3):
            outcome = await smtp.send(mail(number))
            assert isinstance(outcome, Unavailable)
            assert outcome.reason.startswith("connecting: ")
        assert tried == 3
        outcomes = await asyncio.gather(*(smtp.send(mail(number)) for number in range(500)))
        # One may look whether it is back.
        assert tried <= 10
        assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_mails_go_out_again_once_the_server_is_back(server: SmtpServer) -> None:
    await server.stop()
    async with client(server.port) as smtp:
        for number in range(4):
            await smtp.send(mail(number))
        await server.start()

        async def taken() -> bool:
            return isinstance(await smtp.send(mail()), Accepted)

        await until(taken)
        outcomes = await asyncio.gather(*(smtp.send(mail(number)) for number in range(10, 20)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)


async def test_a_server_that_holds_a_verb_back_holds_one_connection_for_the_timeout(server: SmtpServer) -> None:
    async def tarpit(address: str) -> str | None:
        if address.startswith("slow"):
            await asyncio.sleep(60)
        return None

    server.answers["RCPT"] = tarpit
    async with client(server.port, timeout=3.0) as smtp:
        slow = asyncio.create_task(smtp.send(mail(0, "slow@example.com")))
        for number in range(1, 20):
            assert isinstance(await smtp.send(mail(number)), Accepted)
        assert not slow.done(), "the others waited for it"
        assert await slow == Unavailable("no answer within 3 s")


async def test_a_server_that_tarpits_every_mail_is_left_alone_for_a_while(
    server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tarpit(_address: str) -> None:
        await asyncio.sleep(60)

    server.answers["MAIL"] = tarpit
    monkeypatch.setattr(smtp_module, "WAIT_SECONDS", 0.5)
    async with client(server.port, timeout=1.0) as smtp:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(smtp.send(mail(number)) for number in range(100)))
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        assert time.monotonic() - began < 10, "each of them waited"
    assert server.connections == 2


async def test_a_silent_greeting_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    monkeypatch.setattr(smtp_module, "CONNECT_SECONDS", 0.3)
    async with silent, client(silent.sockets[0].getsockname()[1], timeout=5.0) as smtp:
        began = time.monotonic()
        assert await smtp.send(mail()) == Unavailable("connecting: no answer in time")
        assert time.monotonic() - began < 4.0


async def test_a_server_that_speaks_something_else_is_in_trouble() -> None:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with other, client(other.sockets[0].getsockname()[1]) as smtp:
        assert isinstance(await smtp.send(mail()), Unavailable)


async def test_starttls_is_used_where_it_is_required(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with client(server.port, tls="required", ca_file=str(pem)) as smtp:
            assert isinstance(await smtp.send(mail()), Accepted)
        assert len(server.arrivals) == 1


@pytest.mark.parametrize("tls", ["none", "required", "implicit"])
async def test_the_event_loop_of_the_services_hands_over_too(pem: Path, tls: str) -> None:
    async def hand_over_two(port: int) -> list[SendOutcome | Unavailable]:
        async with client(port, tls=tls, ca_file=str(pem), timeout=5.0) as smtp:
            return [await smtp.send(mail(1)), await smtp.send(mail(2))]

    context = None if tls == "none" else server_tls(pem)
    async with SmtpServer(tls=context, tls_at_once=tls == "implicit") as server:
        outcomes = await asyncio.to_thread(lambda: uvloop.run(hand_over_two(server.port)))
        assert outcomes == [Accepted("250 taken")] * 2
        assert (len(server.arrivals), server.connections) == (2, 1)


async def test_nothing_is_said_in_plain_text_when_starttls_was_stripped(server: SmtpServer, pem: Path) -> None:
    async with client(server.port, tls="required", ca_file=str(pem)) as smtp:
        outcome = await smtp.send(mail())
    assert isinstance(outcome, Unavailable)
    assert "STARTTLS" in outcome.reason
    assert server.commands == []


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with client(server.port, tls="required") as smtp:
            outcome = await smtp.send(mail())
        assert isinstance(outcome, Unavailable)
        assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason
        assert server.commands == []


async def test_a_certificate_for_another_name_is_not_taken(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with client(server.port, host="127.0.0.1", tls="required", ca_file=str(pem)) as smtp:
            assert isinstance(await smtp.send(mail()), Unavailable)
        assert server.commands == []


async def test_implicit_tls_is_spoken_from_the_first_byte(pem: Path) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), tls_at_once=True) as server,
        client(server.port, tls="implicit", ca_file=str(pem)) as smtp,
    ):
        assert isinstance(await smtp.send(mail()), Accepted)


@pytest.mark.parametrize(("password", "outcome"), [("right", Accepted), ("wrong", Unavailable)])
async def test_a_wrong_login_of_ours_ends_no_mail(pem: Path, password: str, outcome: type) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server,
        client(server.port, tls="required", ca_file=str(pem), username="nest", password=password) as smtp,
    ):
        assert isinstance(await smtp.send(mail()), outcome)


async def test_a_missing_login_of_ours_ends_no_mail(pem: Path) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server,
        client(server.port, tls="required", ca_file=str(pem)) as smtp,
    ):
        outcome = await smtp.send(mail())
    assert isinstance(outcome, Unavailable)
    assert "530" in outcome.reason


async def test_a_recipient_outside_ascii_reaches_a_server_that_can(server: SmtpServer) -> None:
    async with client(server.port) as smtp:
        assert isinstance(await smtp.send(mail(recipient="пошта@example.com")), Accepted)
    assert server.arrivals[0].recipients == ["пошта@example.com"]


async def test_a_recipient_outside_ascii_is_turned_down_where_the_server_can_not() -> None:
    async with SmtpServer(smtputf8=False) as server:
        async with client(server.port) as smtp:
            outcome = await smtp.send(mail(recipient="пошта@example.com"))
            assert isinstance(outcome, Rejected)
            assert "SMTPUTF8" in outcome.reason
            assert isinstance(await smtp.send(mail(2)), Accepted)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("said", "dead"),
    [
        ("550 5.1.1 no such user", True),
        ("550 5.1.10 this domain takes no mail", True),
        ("550 5.2.1 mailbox disabled", True),
        ("552 5.2.2 mailbox full", False),
        ("550 5.7.1 we don't like your network", False),
        ("550 5.1.100 what is that", False),
        ("550 no such user", False),
    ],
)
async def test_only_an_enhanced_status_code_says_that_an_address_is_dead(
    server: SmtpServer, said: str, *, dead: bool
) -> None:
    server.refusing("RCPT", said)
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Rejected(f"RCPT: {said}", dead_address=dead)
    server.answers.clear()
    server.refusing("MAIL", said)
    async with client(server.port) as smtp:
        assert await smtp.send(mail()) == Rejected(f"MAIL: {said}")


async def test_other_addresses_in_what_a_server_says_are_not_kept_either(server: SmtpServer) -> None:
    server.refusing("RCPT", "550 forwarded to <other.person@elsewhere.example>, who is unknown")
    async with client(server.port) as smtp:
        outcome = await smtp.send(mail())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "RCPT: 550 forwarded to <<address>>, who is unknown"


class Meddler(asyncio.Protocol):
    """A man in the middle, who offers STARTTLS and then answers it in his own way."""

    def __init__(self, answer: bytes, heard: list[bytes]) -> None:
        self._answer = answer
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 localhost\r\n")

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)
        if data.upper().startswith(b"EHLO"):
            self._transport.write(b"250-localhost\r\n250 STARTTLS\r\n")
        elif data.upper().startswith(b"STARTTLS"):
            self._transport.write(self._answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"454 4.7.0 TLS not available\r\n",
        b"500 unknown\r\n",
        b"250 fine, go on\r\n",
        b"220 go ahead\r\n250-localhost\r\n250 AUTH BRANDING\r\n",
        b"220 go ahead\r\nthis is no handshake at all\r\n",
    ],
)
async def test_whoever_meddles_with_starttls_hears_nothing_but_the_greeting(pem: Path, answer: bytes) -> None:
    heard: list[bytes] = []
    meddling = await asyncio.get_running_loop().create_server(lambda: Meddler(answer, heard), "127.0.0.1", 0)
    port = meddling.sockets[0].getsockname()[1]
    async with (
        meddling,
        client(port, tls="required", ca_file=str(pem), timeout=3.0, username="nest", password="secret") as smtp,
    ):
        assert isinstance(await smtp.send(mail()), Unavailable)
    said = b"".join(heard)
    assert b"nest.example" in said
    assert all(secret not in said for secret in (b"AUTH", b"MAIL", b"person@", b"Hello"))


async def test_closing_takes_leave(server: SmtpServer) -> None:
    async with client(server.port) as smtp:
        await smtp.send(mail())

    async def gone() -> bool:
        return all(protocol.transport is None or protocol.transport.is_closing() for protocol in server._open)

    await until(gone)
