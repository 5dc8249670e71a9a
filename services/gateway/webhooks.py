"""Webhook endpoints: a signed body is published to Kafka before the sender gets its 200."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from starlette.routing import Route

from services.gateway.endpoint import Endpoint
from services.gateway.errors import MissingWebhookBody, UnknownWebhookProvider
from services.gateway.requests import HttpRequest, read_body
from services.gateway.responses import HttpResponse
from shared.bus.envelope import MAX_BODY_BYTES, Envelope
from shared.bus.producer import BusDown, Producer
from shared.errors import Unavailable
from shared.fault_points import fault_point
from shared.telemetry import log

GROUP: Final = "webhook"
"""Label of these routes in metrics."""
TOLERANCE_SECONDS: Final = 300
"""How far a signature's time may be off, into the past or the future."""
RECEIVED: Final = b'{"received": true}'


class Webhook(Endpoint):
    """Webhook endpoint of one provider.

    Args:
        provider: last segment of its path.
        producer: publishes to Kafka.
        secrets: signing secrets; several during a rotation.
        clock: Unix seconds.
    """

    def __init__(
        self, provider: str, producer: Producer, *, secrets: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(GROUP, provider)
        self._producer = producer
        self._secrets = tuple(secrets)
        self._clock = clock

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """200 ``{"received": true}`` once all in-sync replicas have the message, or if the body needs no message.

        Raises:
            MissingWebhookBody: the body is empty.
            InvalidWebhookPayload: as ``envelope``.
            BodyTooLarge, RequestIncomplete: as ``read_body``.
            Unavailable: Kafka did not acknowledge the message; the sender should repeat the request.
        """
        body = await read_body(request.receive, MAX_BODY_BYTES)
        if not body:
            raise MissingWebhookBody
        envelope = self.envelope(request, body)
        if envelope is not None:
            await self._publish(envelope)
        return HttpResponse(200, RECEIVED)

    @abstractmethod
    def envelope(self, request: HttpRequest, body: bytes) -> Envelope | None:
        """Verify the signature and return the message to publish; None if the body needs none.

        Raises:
            InvalidWebhookPayload: the signature or the body is not valid.
        """

    async def _publish(self, envelope: Envelope) -> None:
        try:
            await self._producer.send(envelope)
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down
        fault_point("W1")

    def route(self) -> Route:
        """``POST`` to the provider's path."""
        return Route(f"/1/webhook/{self.operation[1]}", self, methods=["POST"])


class UnknownWebhook(Endpoint):
    """Refusal of requests to providers without a webhook endpoint."""

    def __init__(self) -> None:
        super().__init__(GROUP, "unknown")

    async def respond(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002 -- as in the base class
        """Refuse the request.

        Raises:
            UnknownWebhookProvider: always.
        """
        raise UnknownWebhookProvider

    def route(self) -> Route:
        """``POST`` to the path of any provider; must come after the others."""
        return Route("/1/webhook/{provider}", self, methods=["POST"])
