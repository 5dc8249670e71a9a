"""Connection to Kafka: brokers, TLS and SASL, the same for every consumer, producer and admin client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from pydantic import SecretStr

PROTOCOL: Final = "NEST_KAFKA_SECURITY_PROTOCOL"
CHECK_SECONDS: Final = 10.0
"""Timeout of one connection of the check."""
MAX_TOKEN_BYTES: Final = 64 * 1024


class KafkaAccessDenied(Exception):
    """Kafka refused the connection because of a setting, which the text names. Repeating it does not help."""


class _Authenticator(conn.OAuthAuthenticator):  # type: ignore[misc]
    """The login of OAUTHBEARER that recognizes a refusal.

    A server refuses a token with a challenge that explains the error (RFC 7628, section 3.2.2). aiokafka takes any
    response for a success, and the broker answers its next requests with empty responses.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Return the token, then None.

        Raises:
            SaslAuthenticationFailed: the broker refused the token.
        """
        if self._token_sent and payload:
            raise SaslAuthenticationFailed("the token was refused")
        sent: tuple[bytes, bool] | None = await super().step(payload)
        return sent


conn.OAuthAuthenticator = _Authenticator


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """Token provider of OAUTHBEARER (RFC 7628): a file that something else keeps up to date.

    It is read for every connection, so that a replaced token is used from the next connection on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """Return the token.

        Raises:
            KafkaConnectionError: the file can't be read, is empty or has more than ``MAX_TOKEN_BYTES``.
        """
        try:
            return await asyncio.to_thread(self.read)
        except (OSError, ValueError) as failure:
            raise KafkaConnectionError(f"NEST_KAFKA_TOKEN_FILE: {describe(failure)}") from failure

    def read(self) -> str:
        """Return the token; blocks.

        Raises:
            OSError, ValueError: as ``token``.
        """
        with self._path.open("rb") as file:
            content = file.read(MAX_TOKEN_BYTES + 1)
        if len(content) > MAX_TOKEN_BYTES:
            raise ValueError(f"has more than {MAX_TOKEN_BYTES} bytes")
        # The characters of a bearer token are ASCII (RFC 6750, section 2.1).
        token = content.decode("ascii").strip()
        if not token or not token.isprintable() or " " in token:
            raise ValueError("contains no token")
        return token


@dataclass(frozen=True)
class KafkaConnection:
    """The addresses of Kafka's brokers and how to connect to them.

    The certificates are read once; after a change the process must be restarted.

    Attributes:
        bootstrap: Kafka brokers, ``host:port`` separated by commas.
        protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        mechanism: SASL mechanism: ``SCRAM-SHA-512``, ``SCRAM-SHA-256``, ``PLAIN`` or ``OAUTHBEARER``.
        user: user name of SCRAM and PLAIN.
        password: password of SCRAM and PLAIN.
        token_file: file with the token of OAUTHBEARER.
        ca_file: PEM file of the certificate authorities that the brokers' certificates may be issued by; those of the
            system by default.
        certificate_file: PEM file of the client certificate and its chain.
        key_file: PEM file of the client certificate's key; in the certificate's file by default.
        key_password: password of an encrypted key.
    """

    bootstrap: str
    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    user: str | None = None
    password: SecretStr | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: SecretStr | None = None

    @property
    def encrypted(self) -> bool:
        """True if connections use TLS."""
        return self.protocol.endswith("SSL")

    @cached_property
    def options(self) -> dict[str, Any]:
        """The connection arguments of every client of aiokafka.

        Raises:
            OSError: a certificate file can't be read, or is not what it should be.
        """
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol}
        if self.encrypted:
            options["ssl_context"] = self._tls()
        if self.mechanism is not None:
            options["sasl_mechanism"] = self.mechanism
        if self.token_file is not None:
            options["sasl_oauth_token_provider"] = TokenFile(self.token_file)
        if self.user is not None:
            options |= {"sasl_plain_username": self.user, "sasl_plain_password": _Hidden(_revealed(self.password))}
        return options

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            # With a function, because without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate_file, self.key_file, lambda: _revealed(self.key_password))
        return context

    async def check(self) -> None:
        """Connect to one broker and log in.

        aiokafka's clients report refused credentials and a wrong protocol as unreachable brokers.

        Raises:
            KafkaAccessDenied: a broker refused the connection because of a setting.
            KafkaConnectionError: no broker could be reached.
        """
        reason = failure = None
        for host, port, _ in collect_hosts(self.bootstrap):
            try:
                await _connect(host, port, self.options)
            except (KafkaError, OSError, TimeoutError, ValueError) as error:
                failure = describe(error)
                reason = self._refusal(error) or await self._wrong_protocol(host, port, error)
            else:
                return
            # Outside of the except block: a traceback must not contain frames of the driver, which has the password.
            if reason is not None:
                raise KafkaAccessDenied(f"{reason} (Kafka at {host}:{port})")
        raise KafkaConnectionError(f"no broker of {self.bootstrap} responds: {failure}")

    def _refusal(self, error: BaseException) -> str | None:
        """Return the setting and what is wrong with it, or None if the error does not show that."""
        if isinstance(error, SaslAuthenticationFailed):
            if self.mechanism == "OAUTHBEARER":
                return "NEST_KAFKA_TOKEN_FILE: Kafka refused the token"
            return f"NEST_KAFKA_USER, NEST_KAFKA_PASSWORD: Kafka refused the password of the user {self.user}"
        if isinstance(error, UnsupportedSaslMechanismError):
            return f"NEST_KAFKA_SASL_MECHANISM: Kafka does not accept {self.mechanism} here"
        if isinstance(error, IllegalSaslStateError):
            return f"{PROTOCOL}: is {self.protocol}, and the broker accepts no login here: SSL or PLAINTEXT"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f"NEST_KAFKA_CA_FILE: the broker's certificate is not accepted: {cause.verify_message}"
            if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
                return f"NEST_KAFKA_CERTIFICATE_FILE: the broker does not accept the client certificate: {cause.reason}"
            cause = cause.__cause__
        # aiokafka raises it if a broker does not prove that it knows the password (RFC 5802, section 3).
        if isinstance(error, ValueError):
            return "NEST_KAFKA_PASSWORD: the broker did not prove that it knows the password"
        return None

    async def _wrong_protocol(self, host: str, port: int, error: BaseException) -> str | None:
        """Return the text for a broker that responds to another protocol than the configured one; None otherwise."""
        if isinstance(error, ConnectionRefusedError | TimeoutError):
            return None
        if self.encrypted and await _responds(host, port, {}):
            return f"{PROTOCOL}: is {self.protocol}, and the broker has no TLS here"
        if not self.encrypted and await _speaks_tls(host, port):
            return f"{PROTOCOL}: is {self.protocol}, and the broker requires TLS: SASL_SSL or SSL"
        # A broker that requires a login closes the connection only at the first request after the versions.
        if self.mechanism is None and await _responds(host, port, self.options):
            return f"{PROTOCOL}: is {self.protocol}, and the broker requires a login: SASL_SSL or SASL_PLAINTEXT"
        return None


class _Hidden(str):
    """A secret that drivers take as text, without its value in representations, such as those of a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def _revealed(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def describe(error: BaseException | None) -> str:
    """Return an error's text without the file name that Python adds to it."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


async def _connect(host: str, port: int, options: Mapping[str, Any], *, request: bool = True) -> None:
    """Connect to a broker, which includes the login and a request for the versions, and send another request."""
    arguments = {key: value for key, value in options.items() if key != "bootstrap_servers"}
    connection = await create_conn(
        host, port, client_id="nest-check", request_timeout_ms=int(CHECK_SECONDS * 1000), **arguments
    )
    try:
        if request:
            await connection.send(MetadataRequest([]))
    finally:
        if (closed := connection.close()) is not None:
            await closed


async def _responds(host: str, port: int, options: Mapping[str, Any]) -> bool:
    """Return True if a broker lists its versions over such a connection."""
    try:
        await _connect(host, port, options, request=False)
    except (KafkaError, OSError, TimeoutError):
        return False
    return True


async def _speaks_tls(host: str, port: int) -> bool:
    """Return True if a TLS handshake succeeds. Nothing is sent, so the certificate does not matter."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
