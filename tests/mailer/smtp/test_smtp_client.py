import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, Deferred, Outcome, Rejected
from services.mailer.smtp import smtp_client as smtp_client_module
from services.mailer.smtp.smtp_client import Mail, MailServer, Refused, SmtpClient, Unavailable
from services.mailer.smtp.smtp_session import SmtpSession
from tests.mailer.smtp.test_smtp_session import ScriptedServer
from tests.mailer.smtp_server import SmtpServer, server_tls, until


@pytest.fixture(params=[False, True], ids=["in-turn", "pipelining"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SmtpServer]:
    """A mail server without and with PIPELINING."""
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
async def smtp_client(
    port: int, *, connections: int = 2, timeout: float = 1.0, **changed: Any
) -> AsyncIterator[SmtpClient]:
    defaults: dict[str, Any] = {
        "host": "localhost",
        "port": port,
        "tls": "none",
        "username": None,
        "password": None,
        "ca_file": None,
        "ehlo_name": "nest.example",
    }
    client = SmtpClient(MailServer(**{**defaults, **changed}), connections=connections, timeout=timeout)
    try:
        yield client
    finally:
        await client.close()


async def test_mail_is_sent_in_its_own_envelope(server: SmtpServer) -> None:
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == Accepted("250 taken")
    [arrival] = server.arrivals
    assert (arrival.sender, arrival.recipients) == ("mail@nest.example", ["person@example.com"])
    assert arrival.content == mail().content


async def test_connections_are_reused_and_bounded(server: SmtpServer) -> None:
    async with smtp_client(server.port, connections=3) as client:
        outcomes = await asyncio.gather(*(client.send(mail(number)) for number in range(60)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert len(server.arrivals) == 60
    assert server.connections == 3


async def test_idle_connection_closed_by_the_server_loses_no_mail(server: SmtpServer) -> None:
    async with smtp_client(server.port) as client:
        await client.send(mail(1))
        server.hang_up()
        assert isinstance(await client.send(mail(2)), Accepted)
    assert (len(server.arrivals), server.connections) == (2, 2)


async def test_reply_421_to_the_next_mail_loses_no_mail(server: SmtpServer) -> None:
    async with smtp_client(server.port) as client:
        await client.send(mail(1))
        replies = iter(["421 too many mails on this connection"])
        server.answers["MAIL"] = lambda _argument: next(replies, None)
        assert isinstance(await client.send(mail(2)), Accepted)
    assert (len(server.arrivals), server.connections) == (2, 2)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_temporary_error_defers_the_mail(server: SmtpServer, verb: str) -> None:
    server.reply_to(verb, "451 4.7.1 come back later")
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == Deferred(f"{verb}: 451 4.7.1 come back later")
        server.answers.clear()
        assert isinstance(await client.send(mail()), Accepted)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("verb", "reply", "outcome"),
    [
        ("MAIL", "550 5.7.1 never", Refused("MAIL: 550 5.7.1 never", all_mails=True)),
        ("MAIL", "553 sender unknown", Refused("MAIL: 553 sender unknown", all_mails=True)),
        ("RCPT", "550 5.7.1 never", Rejected("RCPT: 550 5.7.1 never")),
        ("DATA", "550 5.7.1 never", Refused("DATA: 550 5.7.1 never", all_mails=True)),
        ("DATA", "554 5.7.26 no DKIM", Refused("DATA: 554 5.7.26 no DKIM", all_mails=True)),
        ("DATA", "554 5.6.0 bad content", Refused("DATA: 554 5.6.0 bad content", all_mails=False)),
        ("DATA", "554 denied (#5.7.1)", Refused("DATA: 554 denied (#5.7.1)", all_mails=True)),
        ("DATA", "554 [5.7.1.9] denied", Refused("DATA: 554 [5.7.1.9] denied", all_mails=False)),
        ("DATA", "552 too long", Refused("DATA: 552 too long", all_mails=False)),
    ],
)
async def test_permanent_error_is_final_for_a_recipient_only_and_keeps_the_connection(
    server: SmtpServer, verb: str, reply: str, outcome: Refused | Rejected
) -> None:
    server.reply_to(verb, reply)
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == outcome
        server.answers.clear()

        async def accepted() -> bool:
            return isinstance(await client.send(mail(2)), Accepted)

        await until(accepted)
    assert server.connections == 1


class GreetingServer(ScriptedServer):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b"220 localhost\r\n")


@pytest.mark.parametrize(
    ("to_data", "to_content", "outcome"),
    [
        (b"250 ok\r\n", b"250 ok\r\n", Unavailable("DATA: unexpected reply: 250")),
        (b"354 go\r\n354 go\r\n", b"250 ok\r\n", Unavailable("DATA: the server sent a reply to no command")),
        (b"354 go\r\n250 ok\r\n", b"250 ok\r\n", Unavailable("DATA: the server sent a reply to no command")),
        (b"354 go\r\n", b"354 go\r\n", Unavailable("DATA: unexpected reply to the content: 354", not_accepted=False)),
        (b"354 go\r\n", b"200 ok\r\n", Accepted("200 ok")),
        (b"354 go\r\n", b"252 ok\r\n", Accepted("252 ok")),
        (b"354 go\r\n", b"250 ok\r\n250 ok\r\n", Accepted("250 ok")),
    ],
)
async def test_mail_is_accepted_only_if_its_content_was_sent_and_then_accepted(
    to_data: bytes, to_content: bytes, outcome: Accepted | Unavailable
) -> None:
    connections: list[GreetingServer] = []

    def connect() -> GreetingServer:
        replies = {b"DATA": to_data, b".": to_content}
        connections.append(GreetingServer(lambda line: replies.get(line, b"250 ok\r\n")))
        return connections[-1]

    listener = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with listener, smtp_client(listener.sockets[0].getsockname()[1]) as client:
        for number in range(2):
            assert await client.send(mail(number)) == outcome
    contents = [connection.contents for connection in connections]
    # Every stray reply closes its connection.
    clean = to_content in (b"200 ok\r\n", b"252 ok\r\n")
    assert [len(each) for each in contents] == ([2] if clean else [int(to_data == b"354 go\r\n")] * 2)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_reply_421_means_unavailable(server: SmtpServer, verb: str) -> None:
    server.reply_to(verb, "421 4.3.2 shutting down")
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == Unavailable(f"{verb}: 421 4.3.2 shutting down")


async def test_rejected_recipient_affects_no_other_mail(server: SmtpServer) -> None:
    server.answers["RCPT"] = lambda address: "550 no such user" if address.startswith("dead") else None
    async with smtp_client(server.port) as client:
        recipients = [f"{'dead' if number == 7 else 'live'}{number}@example.com" for number in range(20)]
        outcomes = await asyncio.gather(*(client.send(mail(n, to)) for n, to in enumerate(recipients)))
    assert [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Accepted)] == [7]


async def test_reason_is_redacted_and_bounded(server: SmtpServer) -> None:
    server.reply_to("RCPT", "550 <Person@example.com> (person@example.com): \x07nobody h\xe9re" + "x" * 600)
    async with smtp_client(server.port) as client:
        outcome = await client.send(mail(recipient="Person@example.com"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("RCPT: 550 <<recipient>> (<recipient>):")
    assert "person" not in outcome.reason.lower()
    assert outcome.reason.isascii()
    assert outcome.reason.isprintable()
    assert len(outcome.reason) == 300


async def test_other_addresses_in_a_reply_are_redacted_too(server: SmtpServer) -> None:
    server.reply_to("RCPT", "550 forwarded to <other.person@elsewhere.example>, who is unknown")
    async with smtp_client(server.port) as client:
        outcome = await client.send(mail())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "RCPT: 550 forwarded to <<address>>, who is unknown"


async def test_disconnect_after_the_content_may_mean_accepted(server: SmtpServer) -> None:
    server.drop_after_data = True
    async with smtp_client(server.port) as client:
        outcome = await client.send(mail())
        assert isinstance(outcome, Unavailable)
        assert outcome.reason.startswith("DATA: ")
        assert not outcome.not_accepted
        server.drop_after_data = False
        assert isinstance(await client.send(mail()), Accepted)
    # The first copy was accepted too, which the client cannot know.
    assert len(server.arrivals) == 2


async def test_circuit_breaker_opens_when_nothing_listens(server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.stop()
    attempts = 0

    async def counted(client: SmtpClient) -> SmtpSession:
        nonlocal attempts
        attempts += 1
        return await connect(client)

    connect = SmtpClient._connect
    monkeypatch.setattr(SmtpClient, "_connect", counted)
    async with smtp_client(server.port) as client:
        for number in range(3):
            outcome = await client.send(mail(number))
            assert isinstance(outcome, Unavailable)
            assert outcome.reason.startswith("connecting: ")
        assert attempts == 3
        outcomes = await asyncio.gather(*(client.send(mail(number)) for number in range(500)))
        # Single mails may probe the server.
        assert attempts <= 10
        assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_mails_are_sent_again_after_an_outage(server: SmtpServer) -> None:
    await server.stop()
    async with smtp_client(server.port) as client:
        for number in range(4):
            await client.send(mail(number))
        await server.start()

        async def accepted() -> bool:
            return isinstance(await client.send(mail()), Accepted)

        await until(accepted)
        outcomes = await asyncio.gather(*(client.send(mail(number)) for number in range(10, 20)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)


async def test_slow_reply_occupies_one_connection_until_the_timeout(server: SmtpServer) -> None:
    async def reply_slowly(address: str) -> str | None:
        if address.startswith("slow"):
            await asyncio.sleep(60)
        return None

    server.answers["RCPT"] = reply_slowly
    async with smtp_client(server.port, timeout=3.0) as client:
        slow = asyncio.create_task(client.send(mail(0, "slow@example.com")))
        for number in range(1, 20):
            assert isinstance(await client.send(mail(number)), Accepted)
        assert not slow.done(), "the others waited for it"
        assert await slow == Unavailable("no answer within 3 s")


async def test_circuit_breaker_opens_when_every_reply_is_slow(
    server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply_slowly(_address: str) -> None:
        await asyncio.sleep(60)

    server.answers["MAIL"] = reply_slowly
    monkeypatch.setattr(smtp_client_module, "WAIT_SECONDS", 0.5)
    async with smtp_client(server.port, timeout=1.0) as client:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(client.send(mail(number)) for number in range(100)))
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        assert time.monotonic() - began < 20, "each of them waited"
    assert server.connections == 2


async def test_missing_greeting_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(send_nothing, "127.0.0.1", 0)
    monkeypatch.setattr(smtp_client_module, "CONNECT_SECONDS", 0.3)
    async with silent, smtp_client(silent.sockets[0].getsockname()[1], timeout=60.0) as client:
        began = time.monotonic()
        assert await client.send(mail()) == Unavailable("connecting: no answer in time")
        assert time.monotonic() - began < 20


async def test_server_of_another_protocol_is_unavailable() -> None:
    async def reply_http(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(reply_http, "127.0.0.1", 0)
    async with other, smtp_client(other.sockets[0].getsockname()[1]) as client:
        assert isinstance(await client.send(mail()), Unavailable)


async def test_starttls_is_used_if_required(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with smtp_client(server.port, tls="required", ca_file=str(pem)) as client:
            assert isinstance(await client.send(mail()), Accepted)
        assert len(server.arrivals) == 1


@pytest.mark.parametrize("tls", ["none", "required", "implicit"])
async def test_client_works_on_uvloop(pem: Path, tls: str) -> None:
    async def send_two(port: int) -> list[Outcome | Unavailable]:
        async with smtp_client(port, tls=tls, ca_file=str(pem), timeout=30.0) as client:
            return [await client.send(mail(1)), await client.send(mail(2))]

    context = None if tls == "none" else server_tls(pem)
    async with SmtpServer(tls=context, implicit_tls=tls == "implicit") as server:
        outcomes = await asyncio.to_thread(lambda: uvloop.run(send_two(server.port)))
        assert outcomes == [Accepted("250 taken")] * 2
        assert (len(server.arrivals), server.connections) == (2, 1)


async def test_nothing_is_sent_unencrypted_if_starttls_is_missing(server: SmtpServer, pem: Path) -> None:
    async with smtp_client(server.port, tls="required", ca_file=str(pem)) as client:
        outcome = await client.send(mail())
    assert isinstance(outcome, Unavailable)
    assert "STARTTLS" in outcome.reason
    assert server.commands == []


async def test_untrusted_certificate_is_rejected(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with smtp_client(server.port, tls="required") as client:
            outcome = await client.send(mail())
        assert isinstance(outcome, Unavailable)
        assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason
        assert server.commands == []


async def test_certificate_for_another_host_is_rejected(pem: Path) -> None:
    async with SmtpServer(tls=server_tls(pem)) as server:
        async with smtp_client(server.port, host="127.0.0.1", tls="required", ca_file=str(pem)) as client:
            assert isinstance(await client.send(mail()), Unavailable)
        assert server.commands == []


async def test_implicit_tls_starts_with_the_first_byte(pem: Path) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), implicit_tls=True) as server,
        smtp_client(server.port, tls="implicit", ca_file=str(pem)) as client,
    ):
        assert isinstance(await client.send(mail()), Accepted)


@pytest.mark.parametrize(("password", "outcome"), [("right", Accepted), ("wrong", Unavailable)])
async def test_wrong_password_fails_no_mail(pem: Path, password: str, outcome: type) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server,
        smtp_client(
            server.port, tls="required", ca_file=str(pem), username=SecretStr("nest"), password=SecretStr(password)
        ) as client,
    ):
        assert isinstance(await client.send(mail()), outcome)


async def test_missing_login_fails_no_mail(pem: Path) -> None:
    async with (
        SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server,
        smtp_client(server.port, tls="required", ca_file=str(pem)) as client,
    ):
        outcome = await client.send(mail())
    assert isinstance(outcome, Refused)
    assert outcome.all_mails
    assert "530" in outcome.reason


async def test_non_ascii_recipient_is_sent_with_smtputf8(server: SmtpServer) -> None:
    async with smtp_client(server.port) as client:
        assert isinstance(await client.send(mail(recipient="пошта@example.com")), Accepted)
    assert server.arrivals[0].recipients == ["пошта@example.com"]


async def test_non_ascii_recipient_is_rejected_without_smtputf8() -> None:
    async with SmtpServer(smtputf8=False) as server:
        async with smtp_client(server.port) as client:
            outcome = await client.send(mail(recipient="пошта@example.com"))
            assert isinstance(outcome, Rejected)
            assert "SMTPUTF8" in outcome.reason
            assert isinstance(await client.send(mail(2)), Accepted)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "dead"),
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
async def test_only_an_enhanced_status_code_proves_a_dead_address(
    server: SmtpServer, reply: str, *, dead: bool
) -> None:
    server.reply_to("RCPT", reply)
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == Rejected(f"RCPT: {reply}", dead_address=dead)
    server.answers.clear()
    server.reply_to("MAIL", reply)
    async with smtp_client(server.port) as client:
        assert await client.send(mail()) == Refused(f"MAIL: {reply}", all_mails=True)


async def test_refused_smtputf8_concerns_one_mail_only(server: SmtpServer) -> None:
    """RFC 6531 section 3.5."""
    server.reply_to("MAIL", "550 5.6.7 no addresses outside ASCII")
    async with smtp_client(server.port) as client:
        outcome = await client.send(mail(recipient="пошта@example.com"))
        assert outcome == Refused("MAIL: 550 5.6.7 no addresses outside ASCII", all_mails=False)
        server.answers.clear()
        assert isinstance(await client.send(mail(2)), Accepted)


@pytest.mark.parametrize(
    ("reply", "provider_id"),
    [
        ("250 Ok 0100018f3c2b7d5e-6a1b2c3d-0000-4000-000000", "0100018f3c2b7d5e-6a1b2c3d-0000-4000-000000"),
        ("250 2.0.0 OK: queued as <202611210605.12345678@smtp.example>", "202611210605.12345678"),
        ("250 2.0.0 Ok: queued as 4F1A2B3C4D", None),
        ("250 taken from Person12345678.of.long.name@example.com", None),
        ("250 taken, with nothing but quite_longwords", None),
    ],
)
async def test_id_in_the_reply_is_kept_but_never_the_address(
    server: SmtpServer, reply: str, provider_id: str | None
) -> None:
    server.reply_to("DATA", reply)
    async with smtp_client(server.port) as client:
        outcome = await client.send(mail(recipient="person12345678.of.long.name@example.com"))
    assert isinstance(outcome, Accepted)
    assert outcome.provider_id == provider_id


class StarttlsAttacker(asyncio.Protocol):
    """Man in the middle that offers STARTTLS and then replies to it in its own way."""

    def __init__(self, reply: bytes, received: list[bytes]) -> None:
        self._reply = reply
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 localhost\r\n")

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        if data.upper().startswith(b"EHLO"):
            self._transport.write(b"250-localhost\r\n250 STARTTLS\r\n")
        elif data.upper().startswith(b"STARTTLS"):
            self._transport.write(self._reply)


@pytest.mark.parametrize(
    "reply",
    [
        b"454 4.7.0 TLS not available\r\n",
        b"500 unknown\r\n",
        b"250 fine, go on\r\n",
        b"220 go ahead\r\n250-localhost\r\n250 AUTH PLAIN\r\n",
        b"220 go ahead\r\nthis is no handshake at all\r\n",
    ],
)
async def test_starttls_attacker_receives_only_ehlo(pem: Path, reply: bytes) -> None:
    received: list[bytes] = []
    loop = asyncio.get_running_loop()
    attacker = await loop.create_server(lambda: StarttlsAttacker(reply, received), "127.0.0.1", 0)
    port = attacker.sockets[0].getsockname()[1]
    async with (
        attacker,
        smtp_client(
            port,
            tls="required",
            ca_file=str(pem),
            timeout=3.0,
            username=SecretStr("nest"),
            password=SecretStr("secret"),
        ) as client,
    ):
        assert isinstance(await client.send(mail()), Unavailable)
    data = b"".join(received)
    assert b"nest.example" in data
    assert all(secret not in data for secret in (b"AUTH", b"MAIL", b"person@", b"Hello"))


async def test_close_quits_idle_connections(server: SmtpServer) -> None:
    async with smtp_client(server.port) as client:
        await client.send(mail())
        assert server.quits == 0
    assert server.quits == 1
