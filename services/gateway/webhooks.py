"""Is this really Stripe's? Then it goes onto Kafka as it came, and only then Stripe is told that it was received.

The signature covers the raw bytes (https://docs.stripe.com/webhooks#verify-manually). Nothing else is done here: what
an event means, ``billing`` asks Stripe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import BaseModel, Field, StrictBool, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from stripe import SignatureVerificationError, WebhookSignature

from services.gateway.body import read_body
from shared.envelope import MAX_BODY_BYTES, Envelope, unix_milliseconds
from shared.errors import Kind, Refusal, Unavailable
from shared.faultpoints import fault_point
from shared.ids import derived_message_id
from shared.messages import SERVICE
from shared.messages.stripe import StripeEvent
from shared.producer import BusDown, Producer
from shared.telemetry import log, new_traceparent

TOLERANCE_SECONDS: Final = 300
"""How far a signature's time may be off, into the past or the future."""
RECEIVED: Final = b'{"received": true}'


class UnknownWebhookProvider(Refusal):
    """Nobody of that name sends us anything."""

    kind = Kind.NOT_FOUND


class MissingWebhookBody(Refusal):
    """The request has no body."""


class InvalidWebhookPayload(Refusal):
    """Not signed by the provider with a secret of ours, not now, not an event, or of the other mode."""


class EventData(BaseModel):
    """The ``data`` of an event."""

    object: dict[str, Any]


class SignedEvent(BaseModel):
    """What is read of an event here: enough to name it, to order it and to tell the mode.

    A thin event (``v2.core.event``) has no ``data`` and is refused: the endpoint is to be made for snapshots.
    """

    id: str = Field(min_length=1)
    type: str
    livemode: StrictBool
    account: str | None = None
    data: EventData


class StripeWebhook:
    """Takes Stripe's events.

    Args:
        producer: puts them on Kafka.
        secrets: the endpoint's signing secrets; several while one is being rolled.
        livemode: whether events are about real money; those of the other mode are refused.
        clock: Unix seconds.
    """

    def __init__(
        self, producer: Producer, *, secrets: Sequence[str], livemode: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._producer = producer
        self._secrets = tuple(secrets)
        self._livemode = livemode
        self._clock = clock

    async def receive(self, request: Request) -> Response:
        """200 ``{"received": true}`` once all in-sync replicas have the event.

        Raises:
            UnknownWebhookProvider, MissingWebhookBody, InvalidWebhookPayload: it is not kept.
            BodyTooLarge, RequestIncomplete: as ``read_body``.
            Unavailable: Kafka did not take it; Stripe repeats.
        """
        if request.path_params["provider"] != "stripe":
            raise UnknownWebhookProvider
        body = await read_body(request.receive, MAX_BODY_BYTES)
        if not body:
            raise MissingWebhookBody
        self._check_signature(body, request.headers.get("stripe-signature", ""))
        envelope = _envelope(self._event(body), body)
        try:
            await self._producer.send(envelope)
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down
        fault_point("W1")
        return Response(RECEIVED, media_type="application/json")

    def _check_signature(self, body: bytes, signature: str) -> None:
        # Both would leave the library as errors of other kinds, and as a 500 for whoever likes to cause one.
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise InvalidWebhookPayload from None
        if not signature.isascii() or not any(self._signed(text, signature, secret) for secret in self._secrets):
            raise InvalidWebhookPayload
        # The library looks at the past only.
        if abs(self._clock() - _signed_at(signature)) > TOLERANCE_SECONDS:
            raise InvalidWebhookPayload

    def _signed(self, text: str, signature: str, secret: str) -> bool:
        try:
            # Without its tolerance: the time is checked against one clock, in both directions.
            WebhookSignature.verify_header(text, signature, secret)
        except SignatureVerificationError:
            return False
        return True

    def _event(self, body: bytes) -> SignedEvent:
        try:
            event = SignedEvent.model_validate_json(body)
        except ValidationError:
            raise InvalidWebhookPayload from None
        if event.livemode is not self._livemode:
            log.warning("webhook of the other mode", id=event.id, livemode=event.livemode)
            raise InvalidWebhookPayload
        return event


def _signed_at(signature: str) -> float:
    """The first ``t=`` of a signature header whose form has been checked: what the signature covers."""
    for part in signature.split(","):
        name, _, value = part.partition("=")
        if name == "t":
            try:
                return float(int(value))
            except (ValueError, OverflowError):
                break
    raise InvalidWebhookPayload


def _envelope(event: SignedEvent, body: bytes) -> Envelope:
    mode = "live" if event.livemode else "test"
    return Envelope(
        id=derived_message_id("stripe", event.account or "", mode, event.id),
        wire=StripeEvent.wire,
        topic=StripeEvent.topic,
        key=_subject(event.data.object),
        body=body,
        time=unix_milliseconds(),
        caller=SERVICE,
        trace=new_traceparent(),
    )


def _subject(about: dict[str, Any]) -> str:
    """The customer an event is about, so that all events of one customer stay in order; else the object itself."""
    customer = about.get("id") if about.get("object") == "customer" else about.get("customer")
    if isinstance(customer, dict):
        customer = customer.get("id")
    found = customer or about.get("id")
    return found if isinstance(found, str) else ""
