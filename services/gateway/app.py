"""The gateway's wiring: routes, middleware, Kafka and the HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Final, Self

import structlog
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import account_pages, accounts, app_links, methods, phone, portal, reference, unsubscribe
from services.gateway.auth_topics import Clients, Revocations, SigningKeys
from services.gateway.authentication import Authenticator
from services.gateway.cached_content import discovery_routes
from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.console import console
from services.gateway.endpoint import Dispatcher, OwnAnswers
from services.gateway.errors import MethodNotSupported, TooManyRequests
from services.gateway.failed_authentications import FailedAuthentications
from services.gateway.http_calls import HttpCalls, call_of
from services.gateway.middleware import HttpMiddleware
from services.gateway.responses import HttpResponse, refusal_response, send_response
from services.gateway.rpc_client import RpcClient
from services.gateway.server import Server
from services.gateway.settings import GatewaySettings, named_key, operator_of, plain
from services.gateway.shared_queries import SharedQueries
from services.gateway.system_state import SystemMonitor
from services.gateway.unknown_paths import UnknownPaths
from services.gateway.versions import version_of
from services.gateway.webhooks import MailWebhook, StripeWebhook, UnknownWebhook, Webhook
from shared.bus.instance_name import InstanceName
from shared.bus.outside_work import publish_outside_work
from shared.bus.producer import Producer
from shared.bus.sealed_message_counts import SealedMessageCounts
from shared.bus.topic_growth import GrowthFollower
from shared.bus.topic_reader import OnRecord, TopicReader
from shared.bus.topics import SERVICES
from shared.clock_check import ClockCheck, ClockGate
from shared.errors import Refusal, Unavailable
from shared.health import HealthServer
from shared.health import routes as health_routes
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.messages.gateway import GetSystemState
from shared.process_metrics import process_metrics
from shared.sealing import Sealer
from shared.settings import PRODUCTION, load
from shared.startup import retry_until_available
from shared.telemetry import log

MAX_SEND_SECONDS: Final = 4.0
"""Timeout of a send to Kafka: shorter than a call's timeout, so that during an outage of Kafka clients get 503."""

HEALTH_PATH: Final = "/healthz"
CLOCK_RETRY_SECONDS: Final = 30
"""``retry_after`` while the clock is wrong; by then a load balancer sends requests to other gateways."""

GROWTH_RETRY_SECONDS: Final = 5
"""``retry_after`` while topics get more partitions, which takes some seconds."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Middleware = Callable[[ASGIApp], ASGIApp]
"""Wraps an ASGI app in another one."""


def create(settings: GatewaySettings | None = None, *, middleware: Middleware | None = None) -> Gateway:
    """Create a gateway, which starts when it is entered.

    Args:
        settings: read from the environment by default.
        middleware: wraps the whole gateway, to add routes of its own.

    Raises:
        SettingsError: a setting is missing or invalid.
    """
    return Gateway(settings or load(GatewaySettings), middleware)


class Gateway:
    """The gateway; as a context manager it serves requests. The arguments are those of ``create``."""

    def __init__(self, settings: GatewaySettings, middleware: Middleware | None = None) -> None:
        self.settings = settings
        prefix, kafka = settings.topic_prefix, settings.kafka
        sealer = Sealer(settings.master_keys())
        macs = self._macs = settings.record_macs(sealer)
        send_seconds = min(MAX_SEND_SECONDS, settings.reply_seconds / 2)
        self._tracing = settings.tracing("gateway")
        self._producer = Producer(
            kafka, macs=macs, prefix=prefix, client_id="nest-gateway", timeout=send_seconds, tracing=self._tracing
        )
        self._rpc_client = RpcClient(
            self._producer,
            sealer,
            macs,
            kafka=kafka,
            prefix=prefix,
            seconds=settings.reply_seconds,
            limit=settings.calls_in_flight,
        )
        keys, clients, revocations = SigningKeys(), Clients(), Revocations()
        self._reader = TopicReader(kafka, macs=macs, client_id="nest-gateway")
        self._auth_topics: dict[str, OnRecord] = {
            prefix + SigningKeyPublished.topic: keys.apply,
            prefix + ClientAnnounced.topic: clients.apply,
            prefix + AccessTokenRevoked.topic: revocations.apply,
        }
        internal_keys = [named_key(entry) for entry in settings.internal_keys]
        self._failed_authentications = FailedAuthentications(
            partial(publish_outside_work, self._producer, sealer), settings.failed_authentications_per_minute
        )
        authenticator = Authenticator(
            keys,
            clients,
            revocations,
            self._failed_authentications,
            internal_keys=internal_keys,
            issuer=settings.issuer,
        )
        self._own_answers: OwnAnswers = {}
        dispatcher = Dispatcher(
            authenticator,
            settings.trusted_proxies,
            self._rpc_client,
            SharedQueries(self._rpc_client),
            sealer,
            own_answers=self._own_answers,
        )
        portal_links = portal.PortalLinks(sealer, settings.issuer)
        self._console = _console(settings, dispatcher, portal_links, sealer)
        routes = self._routes(dispatcher, sealer, keys, portal_links)
        app: ASGIApp = HttpMiddleware(
            _Router(methods.endpoints(dispatcher, portal_links), routes, self._pause),
            settings.cors_origins,
            HttpCalls(self._tracing, issuer=settings.issuer, trusted_proxies=settings.trusted_proxies),
        )
        self._server = Server(
            app if middleware is None else middleware(app),
            host=settings.host,
            port=settings.port,
            connections=ConnectionLimits(settings.connections, settings.connections_per_peer, settings.trusted_proxies),
            bodies=BodyBudget(settings.body_megabytes * 1_000_000),
            drain_seconds=settings.drain_seconds,
            overload=self._overload,
        )
        self._sealed_counts = SealedMessageCounts(sealer, partial(publish_outside_work, self._producer, sealer))
        self._stack = AsyncExitStack()
        self._clock_check: ClockCheck | None = None
        self._growth: GrowthFollower | None = None

    @property
    def port(self) -> int:
        """TCP port, once it has started."""
        return self._server.port

    async def __aenter__(self) -> Self:
        """Start, and return once requests are accepted.

        Raises:
            KafkaError, BusDown: Kafka was not available for a minute.
            KafkaAccessDenied: Kafka refuses the credentials, or expects another protocol.
            OSError: the port is in use.
        """
        structlog.contextvars.bind_contextvars(service="gateway")
        self.settings.warn_of_old_clients()
        self.settings.warn_of_unauthenticated_records()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("started", host=self.settings.host, port=self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the requests in progress and stop."""
        await self._stack.aclose()
        log.info("stopped")

    def problems(self) -> list[str]:
        """Current problems, for the health check; empty if there are none."""
        current = [] if self._clock_check is None else self._clock_check.problems()
        if not self._rpc_client.receiving:
            current.append("replies are not received")
        if not self._reader.following:
            current.append("signing keys, clients or revocations are not received")
        return current

    def _overload(self, target: bytes) -> TooManyRequests | None:
        """The refusal of a request to an RPC method under overload; routes are refused by their endpoints."""
        topic = methods.TOPICS.get(target)
        return None if topic is None else self._rpc_client.overload(topic, arriving=True)

    async def _start(self) -> None:
        self._stack.callback(self._tracing.stop)
        await self._stack.enter_async_context(process_metrics("gateway"))
        await retry_until_available("Kafka", self.settings.kafka.check)
        await retry_until_available("Kafka", self._producer.start)
        self._stack.push_async_callback(self._producer.stop)
        settings = self.settings
        group = f"{settings.kafka_bootstrap} {settings.topic_prefix}gateway"
        instance = InstanceName(group, settings.instance)
        self._stack.callback(instance.release)
        self._stack.push_async_callback(self._reader.stop)
        # Before anything is sent: topics may get more partitions just now.
        self._growth = GrowthFollower(
            self._producer,
            reader=self._reader,
            prefix=settings.topic_prefix,
            service="gateway",
            instance=instance.text,
        )
        await retry_until_available("Kafka", self._growth.start)
        self._stack.push_async_callback(self._growth.stop)
        self._clock_check = ClockCheck(service="gateway", instance=instance.text, producer=self._producer)
        self._sealed_counts.start()
        self._stack.push_async_callback(self._sealed_counts.stop)
        gate = ClockGate(self._clock_check, nullcontext)
        await gate.start()
        self._stack.push_async_callback(gate.stop)
        self._failed_authentications.start()
        self._stack.push_async_callback(self._failed_authentications.stop)
        await retry_until_available("Kafka", self._rpc_client.start)
        self._stack.push_async_callback(self._rpc_client.stop)
        await retry_until_available("Kafka", partial(self._reader.follow, self._auth_topics))
        if self.settings.health_port is not None:
            health = HealthServer(self.settings.health_host, self.settings.health_port, self.problems)
            await health.start()
            self._stack.push_async_callback(health.stop)
        # Here, because the services that read too little may be away.
        monitor = SystemMonitor(
            settings.kafka,
            prefix=settings.topic_prefix,
            services=SERVICES,
            instance=instance.text,
            problems=self.problems,
            calls_waiting=lambda: self._rpc_client.waiting,
        )
        self._own_answers[GetSystemState] = monitor.answer
        monitor.start()
        self._stack.push_async_callback(monitor.stop)
        if self._console is not None:
            self._stack.push_async_callback(self._console.stop)
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)

    def _pause(self, scope: Scope) -> Refusal | None:
        """The refusal of a request while this process must not handle any: its clock is wrong, or topics grow."""
        if self._clock_check is not None and self._clock_check.wrong:
            return Unavailable(retry_after=CLOCK_RETRY_SECONDS)
        # Pages and keys are served from memory; what needs the bus gets 503 when it sends.
        if self._growth is not None and self._growth.pausing and scope["method"] not in SAFE_METHODS:
            return Unavailable(retry_after=GROWTH_RETRY_SECONDS)
        return None

    def _routes(
        self, dispatcher: Dispatcher, sealer: Sealer, keys: SigningKeys, portal_links: portal.PortalLinks
    ) -> Router:
        """All routes except RPC methods."""
        settings = self.settings
        webhooks: list[Webhook] = [
            StripeWebhook(self._producer, plain(settings.stripe_webhook_secrets), livemode=settings.stripe_livemode)
        ]
        if settings.mail_webhook_secrets:
            webhooks.append(MailWebhook(self._producer, plain(settings.mail_webhook_secrets), sealer))
        return Router(
            [
                *(webhook.route() for webhook in webhooks),
                UnknownWebhook().route(),
                *(phone.routes(dispatcher, test_login=settings.test_login) if settings.phone_api else ()),
                *unsubscribe.routes(dispatcher, sealer),
                *app_links.routes(sealer),
                *portal.routes(dispatcher, portal_links),
                *discovery_routes(keys, settings.issuer),
                *reference.routes(settings.issuer),
                *(() if self._console is None else self._console.routes()),
                *(
                    (
                        *accounts.routes(dispatcher, settings.issuer, old_clients=settings.old_clients),
                        *account_pages.routes(dispatcher, old_clients=settings.old_clients),
                    )
                    if settings.accounts_api
                    else ()
                ),
                # Metrics are only on the health port: clients of the API must not read them.
                *(route for route in health_routes(self.problems) if route.path == HEALTH_PATH),
            ],
            # A redirect would repeat the path, with the passwords in it, to whatever host the Host header names.
            redirect_slashes=False,
        )


def _console(
    settings: GatewaySettings, dispatcher: Dispatcher, links: portal.PortalLinks, sealer: Sealer
) -> console.ConsoleApp | None:
    """The console: behind a login if there are operators, open if the settings say so; None otherwise."""
    if settings.operators:
        test_domains = settings.environment != PRODUCTION
        operators = dict(operator_of(entry, test_domains=test_domains) for entry in settings.operators)
        return console.operators_console(
            dispatcher, links, sealer, operators=operators, issuer=settings.issuer, test_domains=test_domains
        )
    return console.open_console(dispatcher, links, sealer) if settings.console_open else None


class _Router:
    """RPC paths are looked up in a table, because they are the hot path; Starlette routes all others.

    One slash at the end of a path is ignored. While the clock of this process is wrong, every path but that of the
    health check is refused: the clock decides about tokens, signatures and deadlines. While topics get more partitions,
    nothing may be sent.
    """

    def __init__(
        self, endpoints: Mapping[str, ASGIApp], routes: Router, pause: Callable[[Scope], Refusal | None]
    ) -> None:
        self._endpoints = endpoints
        self._routes = routes
        self._unknown = UnknownPaths(routes.routes)
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != HEALTH_PATH and (pause := self._pause(scope)) is not None:
            await send_response(send, _refused(pause, scope))
            return
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is not None:
            call_of(scope).route = scope["path"]
            await endpoint(scope, receive, send)
            return
        # Because of the app in the scope, Starlette raises 404 and 405 instead of sending its own responses.
        scope["app"] = self
        try:
            await self._routes(scope, receive, send)
        except HTTPException as error:
            if error.status_code == HTTPStatus.NOT_FOUND and drop_trailing_slash(scope):
                await self(scope, receive, send)
                return
            refusal: Refusal
            if error.status_code == MethodNotSupported.status:
                refusal = MethodNotSupported(supported=self._supported(scope["path"]))
            else:
                refusal = self._unknown.refusal(scope["path"])
            await send_response(send, _refused(refusal, scope))
        finally:
            if (route := scope.get("route")) is not None:
                call_of(scope).route = route.path

    def _supported(self, path: str) -> list[str]:
        """HTTP methods of all routes with a path; Starlette names those of the first one."""
        routes = [route for route in self._routes.routes if isinstance(route, Route)]
        return sorted({verb for route in routes if route.path_regex.match(path) for verb in route.methods or ()})


def _refused(refusal: Refusal, scope: Scope) -> HttpResponse:
    call_of(scope).outcome = refusal.code
    return refusal_response(refusal, scope["state"]["request_id"], version_of(scope["path"]))


def drop_trailing_slash(scope: Scope) -> bool:
    """Drop the slash at the end of a path; return whether there was exactly one."""
    # Only the raw path tells it from an encoded slash, which may be the end of a password.
    raw_path: bytes = scope["raw_path"]
    if not raw_path.endswith(b"/") or raw_path.endswith(b"//") or raw_path == b"/":
        return False
    scope["raw_path"], scope["path"] = raw_path[:-1], scope["path"][:-1]
    return True
