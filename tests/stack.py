"""All of Nest on real Kafka and MongoDB, for end-to-end tests: in this process, or each service in one of its own.

Around it are the Stripe double and an inbox that takes mail over SMTP, both in this process, and topics and databases
of this test's own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from services.embedded import demo, ports
from services.embedded.children import bound_to_parent
from services.embedded.errors import CannotStart
from services.embedded.in_process import ServiceTask
from services.embedded.inbox import Arrival, Inbox
from services.embedded.server import run_all
from services.stripe_double import RetryPolicy, StripeDouble
from shared.bus import topics

API = "/1/2021-10-06"
REDIRECT_URI = "https://magic.getbeak.app/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""Verifier and challenge of RFC 7636, appendix B."""
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
WAIT_SECONDS = 60.0
LIFTED = {
    f"NEST_LIMIT_{name}": "1000/1s"
    for name in (
        "MAGIC_LINKS_PER_ADDRESS",
        "TRIALS_PER_ADDRESS",
        "GUESSES_PER_IDENTIFIER",
        "TEXTS_PER_NUMBER",
        "PASSWORDS_PER_USER",
    )
}
"""Settings of a Nest whose limits would hide what is behind them."""
MOST_PARTITIONS = 4
"""Of each topic: there are few records here, and each partition costs its broker something."""
OPERATORS = "operators@example.com"
MAIL_SECRET = "what-tells-of-mails-signs-with"
_CODE = re.compile(r"[?&]code=([^&]+)")


async def eventually(condition: Callable[[], Any], *, within: float = WAIT_SECONDS, what: str = "") -> Any:
    """Wait until a condition (plain or async) gives something true, and return that."""
    end = time.monotonic() + within
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what or condition}")
        await asyncio.sleep(0.02)


@dataclass
class Login:
    """One order of a magic link, as an app remembers it."""

    email: str
    state: str = field(default_factory=lambda: secrets.token_hex(8))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    client_id: str = demo.CLIENT_ID
    redirect_uri: str = REDIRECT_URI

    @property
    def challenge(self) -> str:
        """RFC 7636 section 4.2."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def order(self, **more: Any) -> dict[str, Any]:
        """The body of ``send_magic_link``."""
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
        """The body of ``authenticate_user`` for a code."""
        return {
            "client_id": self.client_id,
            "grant_type": "authorization_code",
            "redirect_uri": self.redirect_uri,
            "code": code,
            "code_verifier": self.verifier,
            **more,
        }


class Process:
    """One service in a process of its own; killed and started again as a test wants."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.environment = dict(environment)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, **more: str) -> None:
        """Start it, with more environment if need be; does not wait until it works."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_parent([sys.executable, "-m", "services.cli", "run", self.name]),
                env={**os.environ, **self.environment, **more},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.returncode

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")

    async def ended(self, within: float = WAIT_SECONDS) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), within)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM; returns when it has drained."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self.ended(within=30.0)


@dataclass
class Stack:
    """A running Nest.

    Attributes:
        environment: what a service needs to be told.
        urls: the gateways' addresses.
        stripe: the double.
        inbox: where mails arrive.
        http: a client of the first gateway; answers come as they are, whatever their status.
        internal_key: for ``authorization: internal <key>``.
        processes: by name, when each service has its own.
        health: where each of these serves its health and its metrics.
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
        """The headers of an operator."""
        return {"authorization": f"internal {self.internal_key}"}

    async def call(
        self, method: str, body: Any = None, *, version: str = "2021-10-06", **headers: str
    ) -> httpx.Response:
        """One RPC call; header names with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/1/{version}/{method}", json=body, headers=named)

    async def mail(self, to: str, *, subject: str = "", count: int = 1) -> Arrival:
        """The newest mail to an address whose subject has these words, once there are ``count`` such."""

        def found() -> list[Arrival]:
            arrivals = [each for each in self.inbox.arrivals(to) if subject.lower() in each.subject.lower()]
            return arrivals if len(arrivals) >= count else []

        arrivals: list[Arrival] = await eventually(found, what=f"mail to {to}")
        return arrivals[0]

    async def code(self, login: Login) -> str:
        """Order a magic link and read its code from the mail."""
        already = len(self.inbox.arrivals(login.email))
        answer = await self.call("send_magic_link", login.order())
        assert answer.status_code == 204, answer.text
        mail = await self.mail(login.email, count=already + 1)
        return code_of(mail, login)

    async def log_in(self, email: str, **given: Any) -> dict[str, Any]:
        """A whole login; returns the token answer."""
        login = Login(email, **given)
        answer = await self.call("authenticate_user", login.redemption(await self.code(login)))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens


def code_of(mail: Arrival, login: Login) -> str:
    """The code of a magic link; the link must lead where the login wanted."""
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
    gateways: int = 1,
    instances: Mapping[str, int] | None = None,
    separate: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """A running Nest for as long as the block lasts.

    Args:
        folder: for logs and the inbox.
        kafka_bootstrap: a Kafka.
        mongo_url: a MongoDB.
        topic_prefix: leads the topics, which are made here.
        database_prefix: leads the databases.
        gateways: how many gateways there are.
        instances: how many there are of another service, by its name; one by default.
        separate: the services (and ``gateway``) that run in processes of their own; the others run in this one.
        settings: more environment for all of them.
    """
    await topics.apply(kafka_bootstrap, prefix=topic_prefix, max_partitions=MOST_PARTITIONS)
    stripe_key, webhook_secret = f"sk_test_{secrets.token_hex(8)}", f"whsec_{secrets.token_hex(16)}"
    internal_key = secrets.token_hex(16)
    gateway_ports = [ports.any_free() for _ in range(gateways)]
    urls = [f"http://127.0.0.1:{port}" for port in gateway_ports]
    double = StripeDouble(
        api_key=stripe_key,
        webhook_url=f"{urls[0]}/1/webhook/stripe",
        webhook_secrets=[webhook_secret],
        # Its first events come before there is a gateway, and whoever waits for all of them waits for these too.
        retries=RetryPolicy(first=1.0, factor=1.0),
    )
    async with Inbox(folder) as inbox, double as stripe, httpx.AsyncClient(base_url=urls[0], timeout=30.0) as http:
        environment = {
            "NEST_ENVIRONMENT": "test",
            "NEST_KAFKA_BOOTSTRAP": kafka_bootstrap,
            "NEST_MONGO_URL": mongo_url,
            "NEST_TOPIC_PREFIX": topic_prefix,
            "NEST_DATABASE_PREFIX": database_prefix,
            "NEST_ISSUER": urls[0],
            "NEST_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "NEST_INTERNAL_KEYS": internal_key,
            "NEST_STRIPE_LIVEMODE": "false",
            "NEST_STRIPE_API_KEY": stripe_key,
            "NEST_STRIPE_API_BASE": stripe.url,
            "NEST_STRIPE_CALLS_PER_SECOND": "1000",
            "NEST_STRIPE_WEBHOOK_SECRETS": webhook_secret,
            "NEST_STRIPE_TRIAL_PRICE": await demo.trial_price(stripe_key, stripe.url),
            "NEST_STRIPE_PORTAL_RETURN_URL": "https://example.com/account",
            "NEST_OPERATORS_ADDRESS": OPERATORS,
            "NEST_SMTP_HOST": "127.0.0.1",
            "NEST_SMTP_PORT": str(inbox.smtp_port),
            "NEST_SMTP_TLS": "none",
            "NEST_MAIL_WEBHOOK_SECRETS": MAIL_SECRET,
            "NEST_MAIL_FROM": "Beak <mail@example.com>",
            "NEST_MAIL_PRODUCT_NAME": "Beak",
            "NEST_MAIL_SUPPORT_ADDRESS": "help@example.com",
            "NEST_TEXT_PROVIDER": "inbox",
            "NEST_TEXT_COUNTRIES": "all",
            "NEST_TEXT_DOMAIN": "nest.example",
            "NEST_TEST_LOGIN": "true",
            "NEST_DRAIN_SECONDS": "5",
            # A machine that stalls for some seconds must not answer 504 where a test asks for something else.
            "NEST_REPLY_SECONDS": "25",
            # One person orders many links here, all of them from this machine; tests of limits set their own.
            "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "1000/1s",
            "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "100000/1s",
            "NEST_LIMIT_TRIALS_PER_ADDRESS": "1000/1s",
            "NEST_LIMIT_LIFT_LOOPBACK": "true",
            **(settings or {}),
        }
        stack = Stack(environment, urls, stripe, inbox, http, internal_key)
        async with _services(stack, gateway_ports, instances or {}, folder, separate):
            await eventually(lambda: _seeded(stack), within=60, what="the gateway")
            yield stack


@asynccontextmanager
async def _services(
    stack: Stack, gateway_ports: Sequence[int], instances: Mapping[str, int], folder: Path, separate: Sequence[str]
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
                stack.processes[label] = Process(name, environment, folder / f"{label}.log")
            else:
                here.append(ServiceTask(_creator(name, environment)))
        await run_all(*(service.start() for service in here), *(each.start() for each in stack.processes.values()))
        yield
    finally:
        await run_all(*(process.stop() for process in stack.processes.values()))
        await run_all(*(service.stop() for service in here))


def _creator(name: str, environment: Mapping[str, str]) -> Callable[[], Any]:
    """What makes a service from an environment; nothing else runs while the process's own is changed."""

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
