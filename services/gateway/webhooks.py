"""Is this really Stripe's? Then it goes onto Kafka as it came, and only then Stripe is told that it was received.

The signature covers the raw bytes (https://docs.stripe.com/webhooks#verify-manually). Nothing else is done here: what
an event means, ``billing`` asks Stripe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from prometheus_client import Counter
from pydantic import BaseModel, Field, StrictBool, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from stripe import SignatureVerificationError, WebhookSignature

from services.gateway.body import read_body
from shared.bus.envelope import MAX_BODY_BYTES, Envelope, unix_milliseconds
from shared.bus.producer import BusDown, Producer
from shared.errors import Kind, Refusal, Unavailable
from shared.fault_points import fault_point
from shared.ids import derived_message_id
from shared.messages import SERVICE
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
from shared.telemetry import log, new_traceparent

TOLERANCE_SECONDS: Final = 300
"""How far a signature's time may be off, into the past or the future."""
RECEIVED: Final = b'{"received": true}'
SIGNED: Final = Counter(
    "nest_webhook_signatures",
    "Webhooks of Stripe's by the secret that matched, counted from 0 as in NEST_STRIPE_WEBHOOK_SECRETS; or none.",
    ["secret"],
)


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


class Snapshot(BaseModel):
    """What is read of a snapshot event here: enough to name it, to order it and to tell the mode."""

    # The oldest endpoints leave it out.
    object: Literal["event"] = "event"
    id: str = Field(min_length=1)
    type: str
    livemode: StrictBool
    account: str | None = None
    context: str | None = None
    data: EventData

    @property
    def subject(self) -> str:
        """The customer it is about, so that all events of one customer stay in order; else the object itself."""
        about = self.data.object
        customer = about.get("id") if about.get("object") == "customer" else about.get("customer")
        if isinstance(customer, dict):
            customer = customer.get("id")
        found = customer or about.get("id")
        return found if isinstance(found, str) else ""


class RelatedObject(BaseModel):
    """What a thin event is about; of some kinds an account has just one, which has no id."""

    id: str = ""
    type: str


class ThinEvent(BaseModel):
    """The same of a thin event, which does not show its object (https://docs.stripe.com/event-destinations).

    Read here and not by the library's ``parse_event_notification``, which takes no look at types, believes a missing
    ``livemode`` to be the test mode, and fails in five ways on a signed body that is no event.
    """

    object: Literal["v2.core.event"]
    id: str = Field(min_length=1)
    type: str
    livemode: StrictBool
    context: str | None = None
    related_object: RelatedObject | None = None

    @property
    def account(self) -> str | None:
        """As in a snapshot."""
        return None

    @property
    def subject(self) -> str:
        """The object it is about: which customer that has is not said."""
        return "" if self.related_object is None else self.related_object.id


Signed = Snapshot | ThinEvent
_SIGNED: Final[TypeAdapter[Signed]] = TypeAdapter(Signed)


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
        signers = (index for index, secret in enumerate(self._secrets) if self._signed(text, signature, secret))
        signer = next(signers, None) if signature.isascii() else None
        SIGNED.labels("none" if signer is None else str(signer)).inc()
        if signer is None:
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

    def _event(self, body: bytes) -> Signed:
        try:
            event = _SIGNED.validate_json(body)
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


def _envelope(event: Signed, body: bytes) -> Envelope:
    mode = "live" if event.livemode else "test"
    kind = StripeThinEvent if isinstance(event, ThinEvent) else StripeEvent
    return Envelope(
        # Of several accounts that share an endpoint each names its events by itself.
        id=derived_message_id("stripe", event.account or event.context or "", mode, event.id),
        wire=kind.wire,
        topic=kind.topic,
        key=event.subject,
        body=body,
        time=unix_milliseconds(),
        caller=SERVICE,
        trace=new_traceparent(),
    )
