"""Stripe's webhook endpoint: verifies and publishes events, byte for byte.

The signature covers the raw body (https://docs.stripe.com/webhooks#verify-manually). The gateway reads only what it
needs for the message's ID and ordering key; billing handles the event by reading the object from Stripe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from prometheus_client import Counter
from pydantic import BaseModel, Field, StrictBool, TypeAdapter, ValidationError
from stripe import SignatureVerificationError, WebhookSignature

from services.gateway.errors import InvalidWebhookPayload
from services.gateway.requests import HttpRequest
from services.gateway.webhooks import TOLERANCE_SECONDS, Webhook
from shared.bus.envelope import Envelope, unix_milliseconds
from shared.bus.producer import Producer
from shared.ids import derived_message_id
from shared.messages import SERVICE
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
from shared.telemetry import log, new_traceparent

SIGNATURES: Final = Counter(
    "nest_webhook_signatures",
    "Requests to Stripe's webhook by the index of the matching secret in NEST_STRIPE_WEBHOOK_SECRETS, or none.",
    ["secret"],
)


class EventData(BaseModel):
    """``data`` of a snapshot event."""

    object: dict[str, Any]


class SnapshotEvent(BaseModel):
    """The fields of a snapshot event that the gateway reads."""

    # The oldest endpoints omit it.
    object: Literal["event"] = "event"
    id: str = Field(min_length=1)
    type: str
    livemode: StrictBool
    account: str | None = None
    context: str | None = None
    data: EventData

    @property
    def ordering_key(self) -> str:
        """ID of the object's customer, so that all events of one customer stay in order; else the object's own ID."""
        stripe_object = self.data.object
        is_customer = stripe_object.get("object") == "customer"
        customer = stripe_object.get("id") if is_customer else stripe_object.get("customer")
        if isinstance(customer, dict):
            customer = customer.get("id")
        key = customer or stripe_object.get("id")
        return key if isinstance(key, str) else ""


class RelatedObject(BaseModel):
    """The object of a thin event. Objects that exist once per account have no ID."""

    id: str = ""
    type: str


class ThinEvent(BaseModel):
    """The fields of a thin event that the gateway reads (https://docs.stripe.com/event-destinations).

    The library's ``parse_event_notification`` is not used: it does not check types, takes a missing ``livemode`` for
    test mode, and fails with five different errors on a signed body that is not an event.
    """

    object: Literal["v2.core.event"]
    id: str = Field(min_length=1)
    type: str
    livemode: StrictBool
    context: str | None = None
    related_object: RelatedObject | None = None

    @property
    def account(self) -> str | None:
        """None: thin events name their account in ``context``."""
        return None

    @property
    def ordering_key(self) -> str:
        """ID of the object. A thin event does not name its customer."""
        return "" if self.related_object is None else self.related_object.id


Event = SnapshotEvent | ThinEvent
_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)


class StripeWebhook(Webhook):
    """Stripe's webhook endpoint.

    Args:
        producer: publishes to Kafka.
        secrets: signing secrets of the endpoint; several during a rotation.
        livemode: True for real money; events of the other mode are refused.
        clock: Unix seconds.
    """

    def __init__(
        self, producer: Producer, *, secrets: Sequence[str], livemode: bool, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__("stripe", producer, secrets=secrets, clock=clock)
        self._livemode = livemode

    def envelope(self, request: HttpRequest, body: bytes) -> Envelope:
        """Verify the signature and return the event as a message.

        Raises:
            InvalidWebhookPayload: the signature does not match, the body is not an event, or its mode is the other one.
        """
        self._check_signature(body, request.header(b"stripe-signature"))
        event = self._parsed(body)
        mode = "live" if event.livemode else "test"
        message = StripeThinEvent if isinstance(event, ThinEvent) else StripeEvent
        return Envelope(
            # Event IDs are unique per account, and several accounts may use the same endpoint.
            id=derived_message_id("stripe", event.account or event.context or "", mode, event.id),
            wire=message.wire,
            topic=message.topic,
            key=event.ordering_key,
            body=body,
            time=unix_milliseconds(),
            caller=SERVICE,
            trace=new_traceparent(),
        )

    def _check_signature(self, body: bytes, signature: str) -> None:
        # The library raises other errors for non-UTF-8 bodies and non-ASCII signatures, which would become a 500.
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise InvalidWebhookPayload from None
        matching = (index for index, secret in enumerate(self._secrets) if _matches(text, signature, secret))
        index = next(matching, None) if signature.isascii() else None
        SIGNATURES.labels("none" if index is None else str(index)).inc()
        if index is None:
            raise InvalidWebhookPayload
        # The library checks only that the time is not too old.
        if abs(self._clock() - _signed_at(signature)) > TOLERANCE_SECONDS:
            raise InvalidWebhookPayload

    def _parsed(self, body: bytes) -> Event:
        try:
            event = _EVENT.validate_json(body)
        except ValidationError:
            raise InvalidWebhookPayload from None
        if event.livemode is not self._livemode:
            log.warning("webhook of the other mode", id=event.id, livemode=event.livemode)
            raise InvalidWebhookPayload
        return event


def _matches(text: str, signature: str, secret: str) -> bool:
    try:
        # Without the library's tolerance: the caller checks the time, in both directions.
        WebhookSignature.verify_header(text, signature, secret)
    except SignatureVerificationError:
        return False
    return True


def _signed_at(signature: str) -> float:
    """The first ``t=`` of a well-formed signature header: the time that the signature covers."""
    for part in signature.split(","):
        name, _, value = part.partition("=")
        if name == "t":
            try:
                return float(int(value))
            except (ValueError, OverflowError):
                break
    raise InvalidWebhookPayload
