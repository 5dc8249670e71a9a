"""A whole Nest on a real Kafka and MongoDB, for tests of several services.

Services run in this process or each in its own. The Stripe double and an inbox with an SMTP server run in this process.
Every Nest has its own topics and databases.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from services.embedded import demo, ports
from services.embedded.child_server import run_all
from services.embedded.errors import CannotStart
from services.embedded.in_process import ServiceTask
from services.embedded.mail_inbox import Arrival, Inbox
from services.stripe_double import RetryPolicy, StripeDouble
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from tests import forked
from tests.forked import Completed, ForkedCommand

API = "/1/2021-10-06"
REDIRECT_URI = "https://magic.getbeak.app/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""Verifier and challenge of RFC 7636, appendix B."""
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
WAIT_SECONDS = 60.0
HIGH_LIMITS = {
    "NEST_FAILED_AUTHENTICATIONS_PER_MINUTE": "100000",
} | {
    f"NEST_LIMIT_{name}": "1000/1s"
    for name in (
        "MAGIC_LINKS_PER_ADDRESS",
        "TRIALS_PER_ADDRESS",
        "TRIALS_PER_DEPLOYMENT",
        "GUESSES_PER_IDENTIFIER",
        "TYPED_CODES_PER_ADDRESS",
        "TEXTS_PER_NUMBER",
        "PASSWORDS_PER_USER",
    )
}
"""Settings that keep rate limits from hiding other responses."""
CHEAP_PASSWORDS = {"NEST_PASSWORD_MEMORY": "1", "NEST_PASSWORD_PASSES": "1", "NEST_PASSWORD_WAIT_SECONDS": "60"}
"""Settings that make a password hash take a millisecond."""
MAX_PARTITIONS = 4
"""Partitions of a topic: the tests write few records, and each partition costs the broker time."""
OPERATORS_ADDRESS = "operators@example.com"
MAIL_WEBHOOK_SECRET = "secret-of-the-mail-webhook"
ALL_SERVICES = ("gateway", "auth", "billing", "mailer", "news")
MAX_MAILS = 100_000
"""Mails that the inbox keeps: tests of load count them."""
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.01, 0.2
_CODE = re.compile(r"[?&]code=([^&]+)")


async def eventually(condition: Callable[[], Any], *, within: float = WAIT_SECONDS, what: str = "") -> Any:
    """Wait until a condition, plain or async, returns something true, and return that.

    Args:
        condition: polled at growing intervals, since a poll often costs a request.
        within: bound in seconds; AssertionError afterwards. Time in which this process got no processor does not count:
            others, such as the services, got none either.
        what: subject of the error message.
    """
    end = time.monotonic() + within
    pause = FIRST_POLL_SECONDS
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what or condition}")
        asleep = time.monotonic()
        await asyncio.sleep(pause)
        end += time.monotonic() - asleep - pause
        pause = min(pause * 1.3, LONGEST_POLL_SECONDS)


@dataclass
class Login:
    """A requested magic link, with what an app stores until it is redeemed."""

    email: str
    state: str = field(default_factory=lambda: secrets.token_hex(8))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    client_id: str = demo.CLIENT_ID
    redirect_uri: str = REDIRECT_URI

    @property
    def challenge(self) -> str:
        """The S256 challenge (RFC 7636, section 4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def request(self, **more: Any) -> dict[str, Any]:
        """Body of ``send_magic_link``, with further or other fields."""
        return {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge_method": "S256",
            "code_challenge": self.challenge,
            "identifier_type": "email",
            "identifier_value": self.email,
            **more,
        }

    def redemption(self, code: str, **more: Any) -> dict[str, Any]:
        """Body of ``authenticate_user`` that redeems a code."""
        return {
            "client_id": self.client_id,
            "grant_type": "authorization_code",
            "redirect_uri": self.redirect_uri,
            "code": code,
            "code_verifier": self.verifier,
            **more,
        }


class Process:
    """A service in its own process, which a test may kill and start again."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.environment = dict(environment)
        self._log = log
        self._command: ForkedCommand | None = None

    async def start(self, **more: str) -> None:
        """Start it with additional variables; return before it is ready."""
        self._log.touch()
        environment = {**os.environ, **self.environment, **more}
        self._command = ForkedCommand(("run", self.name), environment, self._log, self._log)
        await self._command.start()

    @property
    def pid(self) -> int:
        """Process ID."""
        assert self._command is not None
        return self._command.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._command is not None
        return self._command.exit_code

    @property
    def log(self) -> str:
        """Standard output and standard error so far."""
        return self._log.read_text(errors="replace")

    async def ended(self, within: float = WAIT_SECONDS) -> int:
        """Wait for its end and return the exit code."""
        assert self._command is not None
        return await asyncio.wait_for(self._command.wait(), within)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Send SIGTERM and wait until it has drained and ended."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self._command is not None and self._command.exit_code is None:
            self._command.send_signal(number)
            await self.ended(within=30.0)


@dataclass
class Stack:
    """A running Nest.

    Attributes:
        environment: variables of its services.
        urls: base URLs of the gateways.
        stripe: the Stripe double.
        inbox: the mails and texts that were sent.
        http: a client of the first gateway; it raises for no status.
        internal_key: the key of ``authorization: internal <key>``.
        processes: services that run in their own process, by name.
        health: base URLs of the health and metrics of these processes.
    """

    environment: dict[str, str]
    urls: list[str]
    stripe: StripeDouble
    inbox: Inbox
    http: httpx.AsyncClient
    internal_key: str
    processes: dict[str, Process] = field(default_factory=dict)
    health: dict[str, str] = field(default_factory=dict)

    @property
    def internal(self) -> dict[str, str]:
        """Headers with the internal key, as keyword arguments of `call`."""
        return {"authorization": f"internal {self.internal_key}"}

    async def call(
        self, method: str, body: Any = None, *, version: str = "2021-10-06", **headers: str
    ) -> httpx.Response:
        """Call a method; in header names, ``_`` stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/1/{version}/{method}", json=body, headers=named)

    async def command(self, *words: str, **environment: str) -> Completed:
        """Run `nest` with these words; the environment has the URL and the internal key of this Nest."""
        usual = {"PATH": "/usr/bin:/bin", "NEST_URL": self.urls[0], "NEST_INTERNAL_KEY": self.internal_key}
        return await forked.run(*words, environment={**usual, **environment})

    async def mail(self, to: str, *, subject: str = "", count: int = 1) -> Arrival:
        """Wait until an address has ``count`` mails with these words in the subject, and return the newest."""

        def found() -> list[Arrival]:
            arrivals = [each for each in self.inbox.arrivals(to) if subject.lower() in each.subject.lower()]
            return arrivals if len(arrivals) >= count else []

        arrivals: list[Arrival] = await eventually(found, what=f"mail to {to}")
        return arrivals[0]

    async def code(self, login: Login) -> str:
        """Request a magic link and return the code in the mail."""
        already = len(self.inbox.arrivals(login.email))
        response = await self.call("send_magic_link", login.request())
        assert response.status_code == 204, response.text
        mail = await self.mail(login.email, count=already + 1)
        return code_of(mail, login)

    async def log_in(self, email: str, **fields: Any) -> dict[str, Any]:
        """Log in by magic link, with these fields of `Login`, and return the tokens with ``user_id``."""
        login = Login(email, **fields)
        response = await self.call("authenticate_user", login.redemption(await self.code(login)))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    async def create_client(self, name: str = "An app", redirect_uri: str = REDIRECT_URI) -> dict[str, Any]:
        """Create a client, so that a test may change it, and return it."""
        response = await self.call("create_client", {"name": name, "redirect_uris": [redirect_uri]}, **self.internal)
        assert response.status_code == 200, response.text
        client: dict[str, Any] = response.json()
        return client


RunNest = Callable[..., AbstractAsyncContextManager[Stack]]
"""The fixture `run_nest`."""


def code_of(mail: Arrival, login: Login) -> str:
    """Return the code of the magic link in a mail; assert its redirect URI and state."""
    link = next(link for link in mail.links if _CODE.search(link))
    assert link.startswith(login.redirect_uri)
    query = parse_qs(urlsplit(link).query)
    assert query["state"] == [login.state]
    return query["code"][0]


@asynccontextmanager
async def running_stack(
    folder: Path,
    *,
    kafka_bootstrap: str,
    mongo_url: str,
    topic_prefix: str,
    database_prefix: str,
    max_partitions: int | None = MAX_PARTITIONS,
    gateways: int = 1,
    instances: Mapping[str, int] | None = None,
    separate: Sequence[str] = (),
    process: type[Process] = Process,
    settings: Mapping[str, str] | None = None,
    operator: KafkaConnection | None = None,
) -> AsyncIterator[Stack]:
    """Run a Nest while the context is entered.

    Args:
        folder: of logs and the inbox.
        kafka_bootstrap: ``host:port`` of Kafka.
        mongo_url: connection string of MongoDB.
        topic_prefix: of the topics, which are created here.
        database_prefix: of the databases.
        max_partitions: of a topic; None for as many as in production.
        gateways: number of gateways.
        instances: number of instances of other services, by name; one by default.
        separate: services that run in their own processes; the others run in this one.
        process: class of these processes.
        settings: additional variables of all services.
        operator: connection that creates the topics; without TLS and login by default.
    """
    await topics.apply(operator or KafkaConnection(kafka_bootstrap), prefix=topic_prefix, max_partitions=max_partitions)
    stripe_key, webhook_secret = f"sk_test_{secrets.token_hex(8)}", f"whsec_{secrets.token_hex(16)}"
    internal_key = secrets.token_hex(16)
    gateway_ports = [ports.any_free() for _ in range(gateways)]
    urls = [f"http://127.0.0.1:{port}" for port in gateway_ports]
    double = StripeDouble(
        api_key=stripe_key,
        webhook_url=f"{urls[0]}/1/webhook/stripe",
        webhook_secrets=[webhook_secret],
        # Its first events are sent before a gateway listens, and `drain` waits for them too.
        retries=RetryPolicy(first=1.0, factor=1.0),
    )
    async with (
        Inbox(folder, kept=MAX_MAILS) as inbox,
        double as stripe,
        httpx.AsyncClient(base_url=urls[0], timeout=30.0) as http,
    ):
        environment = {
            "NEST_ENVIRONMENT": "test",
            "NEST_KAFKA_BOOTSTRAP": kafka_bootstrap,
            "NEST_MONGO_URL": mongo_url,
            "NEST_TOPIC_PREFIX": topic_prefix,
            "NEST_DATABASE_PREFIX": database_prefix,
            "NEST_ISSUER": urls[0],
            "NEST_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "NEST_INTERNAL_KEYS": f"ops:{internal_key}",
            "NEST_STRIPE_LIVEMODE": "false",
            "NEST_STRIPE_API_KEY": stripe_key,
            "NEST_STRIPE_API_BASE": stripe.url,
            "NEST_STRIPE_CALLS_PER_SECOND": "1000",
            "NEST_STRIPE_WEBHOOK_SECRETS": webhook_secret,
            "NEST_STRIPE_TRIAL_PRICE": await demo.trial_price(stripe_key, stripe.url),
            "NEST_STRIPE_PORTAL_RETURN_URL": "https://example.com/account",
            "NEST_OPERATORS_ADDRESS": OPERATORS_ADDRESS,
            "NEST_SMTP_HOST": "127.0.0.1",
            "NEST_WEBHOOK_PRIVATE_ADDRESSES": "true",
            "NEST_SMTP_PORT": str(inbox.smtp_port),
            "NEST_SMTP_TLS": "none",
            "NEST_MAIL_WEBHOOK_SECRETS": MAIL_WEBHOOK_SECRET,
            "NEST_MAIL_FROM": "Beak <mail@example.com>",
            "NEST_MAIL_PRODUCT_NAME": "Beak",
            "NEST_MAIL_SUPPORT_ADDRESS": "help@example.com",
            "NEST_TEXT_PROVIDER": "inbox",
            "NEST_TEXT_COUNTRIES": "all",
            "NEST_TEXT_DOMAIN": "nest.example",
            "NEST_TEST_LOGIN": "true",
            "NEST_DRAIN_SECONDS": "5",
            # A loaded machine may stall for seconds; a 504 would fail tests of something else.
            "NEST_REPLY_SECONDS": "25",
            # Tests request many links for one address from this machine; tests of limits have their own settings.
            "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "1000/1s",
            "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "100000/1s",
            "NEST_LIMIT_TRIALS_PER_ADDRESS": "1000/1s",
            "NEST_LIMIT_TRIALS_PER_DEPLOYMENT": "100000/1s",
            "NEST_LIMIT_LIFT_LOOPBACK": "true",
            **(settings or {}),
        }
        stack = Stack(environment, urls, stripe, inbox, http, internal_key)
        async with _services(stack, gateway_ports, instances or {}, folder, separate, process=process):
            await eventually(lambda: _seeded(stack), within=60, what="the gateway")
            yield stack


@asynccontextmanager
async def _services(
    stack: Stack,
    gateway_ports: Sequence[int],
    instances: Mapping[str, int],
    folder: Path,
    separate: Sequence[str],
    *,
    process: type[Process],
) -> AsyncIterator[None]:
    named = [(f"gateway-{port}", "gateway", {"NEST_PORT": str(port)}) for port in gateway_ports]
    for name in ("auth", "billing", "mailer", "news"):
        named.append((name, name, {}))
        named += [(f"{name}-{number}", name, {}) for number in range(2, instances.get(name, 1) + 1)]
    here: list[ServiceTask] = []
    try:
        for label, name, more in named:
            environment = {**stack.environment, **more}
            if name in separate:
                stack.health[label] = f"http://127.0.0.1:{ports.any_free()}"
                environment["NEST_HEALTH_PORT"] = stack.health[label].rpartition(":")[2]
                stack.processes[label] = process(name, environment, folder / f"{label}.log")
            else:
                here.append(ServiceTask(_creator(name, environment)))
        await run_all(*(service.start() for service in here), *(each.start() for each in stack.processes.values()))
        yield
    finally:
        await run_all(*(each.stop() for each in stack.processes.values()))
        await run_all(*(service.stop() for service in here))


def _creator(name: str, environment: Mapping[str, str]) -> Callable[[], Any]:
    """Return a function that creates a service from an environment.

    It replaces the environment of this process for a moment, without awaiting, so no other task sees that.
    """

    def create() -> Any:
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            return import_module(f"services.{name}.app").create()
        finally:
            os.environ.clear()
            os.environ.update(before)

    return create


async def _seeded(stack: Stack) -> bool:
    try:
        await demo.seed(stack.urls[0], stack.internal_key)
    except (httpx.TransportError, CannotStart):
        return False
    return True
