"""What is the gateway made of? HTTP in, commands out; it owns no state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Self

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import accounts, accounts_page, phone, reference, unsubscribing, wellknown
from services.gateway.access import Access
from services.gateway.announced import Clients, Revocations, SigningKeys
from services.gateway.asking import Asking
from services.gateway.client_ip import ClientIp
from services.gateway.cors import Cors
from services.gateway.errors import MethodNotSupported, answer
from services.gateway.guard import Guard, request_id
from services.gateway.mail_webhook import MailWebhook
from services.gateway.methods import PATHS, missing
from services.gateway.replies import Replies
from services.gateway.rpc import Rpc
from services.gateway.server import Server
from services.gateway.settings import GatewaySettings
from services.gateway.webhooks import StripeWebhook
from shared.bus.producer import Producer
from shared.bus.topic_reader import TopicReader
from shared.errors import Refusal, Unknown
from shared.health import HealthServer
from shared.health import routes as health_routes
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.sealing import Sealer
from shared.service import retry_until_available
from shared.settings import load
from shared.telemetry import Tracing, log

LONGEST_SEND_SECONDS: Final = 4.0
"""While Kafka is down a call is told so after this, well before it would be told that no answer came."""

Around = Callable[[ASGIApp], ASGIApp]


def create(settings: GatewaySettings | None = None, *, around: Around | None = None) -> Gateway:
    """The gateway, ready to be entered.

    Args:
        settings: by default those of the environment.
        around: makes an ASGI app that answers some paths itself and leaves the others to the one it is given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    return Gateway(settings or load(GatewaySettings), around)


class Gateway:
    """The gateway, listening while it is entered.

    Args:
        settings: its environment.
        around: as ``create``.
    """

    def __init__(self, settings: GatewaySettings, around: Around | None = None) -> None:
        self.settings = settings
        prefix, bootstrap = settings.topic_prefix, settings.kafka_bootstrap
        sealer = Sealer(settings.master_keys())
        send_seconds = min(LONGEST_SEND_SECONDS, settings.reply_seconds / 2)
        self._producer = Producer(bootstrap, prefix=prefix, client_id="nest-gateway", timeout=send_seconds)
        self._replies = Replies(
            self._producer,
            sealer,
            bootstrap=bootstrap,
            prefix=prefix,
            seconds=settings.reply_seconds,
            limit=settings.calls_in_flight,
        )
        keys, clients, revocations = SigningKeys(), Clients(), Revocations()
        self._tails = (
            TopicReader(bootstrap, prefix + SigningKeyPublished.topic, keys.take),
            TopicReader(bootstrap, prefix + ClientAnnounced.topic, clients.take),
            TopicReader(bootstrap, prefix + AccessTokenRevoked.topic, revocations.take),
        )
        access = Access(keys, clients, revocations, internal_keys=settings.internal, issuer=settings.issuer)
        self._tracing = Tracing("gateway", settings.otlp_endpoint)
        asking = Asking(access, ClientIp(settings.proxies), self._replies, sealer, self._tracing)
        rpc = Rpc(asking)
        webhook = StripeWebhook(self._producer, secrets=settings.webhook_secrets, livemode=settings.stripe_livemode)
        guard = Guard(_Routes(rpc, self._other_routes(asking, sealer, webhook, keys)), Cors(settings.cors_origins))
        self._server = Server(
            guard if around is None else around(guard),
            host=settings.host,
            port=settings.port,
            connections=settings.connections,
            drain_seconds=settings.drain_seconds,
        )
        self._stack = AsyncExitStack()

    @property
    def port(self) -> int:
        """Where it listens, once it has started."""
        return self._server.port

    async def __aenter__(self) -> Self:
        """Start; returns when requests are answered.

        Raises:
            KafkaError, BusDown: Kafka did not answer in a minute.
            OSError: the address is taken.
        """
        structlog.contextvars.bind_contextvars(service="gateway")
        self.settings.warn_of_old_clients()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("started", host=self.settings.host, port=self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Answer what is under way and stop."""
        await self._stack.aclose()
        log.info("stopped")

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        wrong = [] if self._replies.listening else ["replies are not heard"]
        if not all(tail.following for tail in self._tails):
            wrong.append("signing keys, clients or revocations are not heard")
        return wrong

    async def _start(self) -> None:
        self._stack.callback(self._tracing.stop)
        await retry_until_available("Kafka", self._producer.start)
        self._stack.push_async_callback(self._producer.stop)
        for listener in (self._replies, *self._tails):
            await retry_until_available("Kafka", listener.start)
            self._stack.push_async_callback(listener.stop)
        if self.settings.health_port is not None:
            health = HealthServer(self.settings.health_host, self.settings.health_port, self.problems)
            await health.start()
            self._stack.push_async_callback(health.stop)
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)

    def _mail_webhook(self, sealer: Sealer) -> MailWebhook:
        return MailWebhook(self._producer, sealer, secrets=self.settings.mail_secrets)

    def _other_routes(self, asking: Asking, sealer: Sealer, webhook: StripeWebhook, keys: SigningKeys) -> Starlette:
        """Everything but RPC."""
        others = Starlette(
            routes=[
                Route("/1/webhook/mail", self._mail_webhook(sealer).receive, methods=["POST"]),
                Route("/1/webhook/{provider}", webhook.receive, methods=["POST"]),
                *phone.routes(asking, test_login=self.settings.test_login),
                *unsubscribing.routes(asking, sealer),
                *wellknown.routes(keys, self.settings.issuer),
                *reference.routes(self.settings.issuer),
                *accounts.routes(asking, old_clients=self.settings.old_clients),
                *accounts_page.routes(self.settings.issuer, old_clients=self.settings.old_clients),
                # The metrics are not for everybody who can reach the API; they are on the health port.
                *(route for route in health_routes(self.problems) if route.path == "/healthz"),
            ],
            exception_handlers={Refusal: _refused, HTTPException: _no_such_route, Exception: _broken},
        )
        # A redirect would say a path again, password and all, and lead wherever the Host header says.
        others.router.redirect_slashes = False
        return others


class _Routes:
    """The ASGI app behind the guard: RPC by a look into its table, the rest by Starlette's routing."""

    def __init__(self, rpc: Rpc, others: ASGIApp) -> None:
        self._rpc = rpc
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = PATHS.get(scope["path"])
        if method is not None:
            await self._rpc(method, scope, receive, send)
        else:
            await self._others(scope, receive, send)


async def _refused(request: Request, refusal: Exception) -> Response:
    if not isinstance(refusal, Refusal):
        raise refusal
    answered = answer(refusal, request_id(request.scope))
    response = Response(answered.body, answered.status, media_type="application/json")
    response.raw_headers.extend(answered.headers)
    return response


async def _broken(request: Request, _fault: Exception) -> Response:
    """Said here, in our words, before Starlette says it in its own; it goes on to the guard, which logs it."""
    return await _refused(request, Unknown())


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our words."""
    if isinstance(error, HTTPException) and error.status_code == MethodNotSupported.status:
        supported = [verb for verb in (error.headers or {}).get("Allow", "").split(", ") if verb]
        return await _refused(request, MethodNotSupported(supported=supported))
    return await _refused(request, missing(request.url.path))
