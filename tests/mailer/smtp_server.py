"""SMTP server for tests, which misbehaves on request."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[str], str | Awaitable[str | None] | None]
"""Returns the reply to a verb's argument; None for the default reply."""
NAME = "localhost"


@dataclass(frozen=True)
class Arrival:
    """Mail that the server accepted."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


@dataclass
class SmtpServer:
    """Server on a free port of loopback, running while it is entered with ``async with``.

    Attributes:
        tls: TLS context; STARTTLS is required.
        implicit_tls: whether TLS starts with the first byte instead.
        pipelining: whether PIPELINING is advertised.
        login: required user name and password.
        smtputf8: whether SMTPUTF8 is advertised.
        answers: replies to MAIL, RCPT and DATA instead of the default ones.
        drop_after_data: whether it accepts the mail and closes the connection without a reply.
        arrivals: accepted mails, in order.
        connections: number of connections so far.
        commands: MAIL, RCPT and DATA commands so far.
        quits: number of QUIT commands so far.
    """

    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    login: tuple[str, str] | None = None
    smtputf8: bool = True
    pipelining: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)
    drop_after_data: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    connections: int = 0
    commands: list[str] = field(default_factory=list)
    quits: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _open: list[SMTP] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, after a stop on the same port."""
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, "127.0.0.1", self.port, ssl=self.tls if self.implicit_tls else None
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close all connections without QUIT."""
        if self._server is None:
            return
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()
        self._server = None

    def hang_up(self) -> None:
        """Close every connection."""
        for protocol in self._open:
            # aiosmtpd closes twice, after which a TLS transport of Python 3.11.2 can't be aborted.
            if protocol.transport is not None and not protocol.transport.is_closing():
                protocol.transport.abort()
        self._open.clear()

    def reply_to(self, verb: str, answer: str) -> None:
        """Reply to a verb with this from now on."""
        self.answers[verb] = lambda _argument: answer

    def _protocol(self) -> SMTP:
        self.connections += 1
        protocol = SMTP(
            self,
            hostname=NAME,
            enable_SMTPUTF8=self.smtputf8,
            tls_context=None if self.implicit_tls else self.tls,
            require_starttls=self.tls is not None and not self.implicit_tls,
            authenticator=self._authenticate if self.login else None,
            auth_required=self.login is not None,
        )
        self._open.append(protocol)
        return protocol

    def _authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _kind: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login.decode(), data.password.decode()) == self.login, handled=False)

    async def _answer(self, verb: str, argument: str) -> str | None:
        self.commands.append(f"{verb} {argument}")
        if verb not in self.answers:
            return None
        answer = self.answers[verb](argument)
        return answer if isinstance(answer, str) or answer is None else await answer

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]] if self.pipelining else responses

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer("MAIL", address)
        if answer is None or answer.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer or "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = await self._answer("RCPT", address)
        if answer is None or answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = await self._answer("DATA", "")
        if answer is not None and not answer.startswith("2"):
            return answer
        assert isinstance(envelope.content, bytes)
        self.arrivals.append(Arrival(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content))
        if self.drop_after_data:
            assert server.transport is not None
            server.transport.abort()
        return answer or "250 taken"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        self.quits += 1
        return "221 Bye"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not hold after this many seconds.
    """
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 -- the state of a server
            await asyncio.sleep(0.02)


def certificate(folder: Path) -> Path:
    """Write a PEM file with a key and a self-signed certificate for ``localhost``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file


def server_tls(file: Path) -> ssl.SSLContext:
    """TLS context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
