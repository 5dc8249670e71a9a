"""Webhook endpoints of Stripe and mail servers: a signed body is published to Kafka before the sender gets its 200."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from abc import abstractmethod
from typing import Annotated, Final

from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import Route
from stripe import SignatureVerificationError, WebhookSignature

from services.gateway.endpoint import Endpoint
from services.gateway.errors import InvalidWebhookPayload, MissingWebhookBody, UnknownWebhookProvider
from services.gateway.http_calls import call_of
from services.gateway.mail_reports import IgnoredReport, MailNoticeCommand, notice_of, parse_report
from services.gateway.requests import HttpRequest, read_body
from services.gateway.responses import HttpResponse
from shared.bus.envelope import MAX_BODY_BYTES, Envelope, encode, unix_milliseconds
from shared.bus.producer import BusDown, Producer
from shared.errors import Refusal, Unavailable
from shared.fault_points import fault_point
from shared.ids import derived_message_id
from shared.messages import SERVICE
from shared.messages.billing.stripe_events import EVENT_TYPES, THIN_PREFIX, StripeThinEvent, parse_stripe_event
from shared.messages.mailer.suppressions import NoticeKind, Status
from shared.metrics import labelled
from shared.sealing import Sealer
from shared.telemetry import log

GROUP: Final = "webhook"
"""Label of these routes in metrics."""
TOLERANCE_SECONDS: Final = 300
"""How far a signature's time may be off, into the past or the future."""
OTHER: Final = "other"
"""Type, in metrics, of webhooks that Nest does not handle."""
RECEIVED: Final = b'{"received": true}'
STRIPE_SIGNATURES: Final = Counter(
    "nest_webhook_signatures",
    "Requests to Stripe's webhook by the index of the matching secret in NEST_STRIPE_WEBHOOK_SECRETS, or none.",
    ["secret"],
)
WEBHOOKS: Final = Counter(
    "nest_webhooks",
    "Webhooks by provider (stripe, mail), type and outcome: accepted, ignored, or the code of the refusal. The type is "
    "other if Nest does not handle it, and unknown for a request that was refused before it was read.",
    ["provider", "type", "outcome"],
)
REPORTS_IGNORED: Final = Counter(
    "nest_mail_reports_ignored",
    "Signed mail reports without effect: no report, nothing final, or no mail of Nest; by reason.",
    ["reason"],
)
_STRIPE_DIGEST: Final = re.compile(r"(?:^|,)v1=[0-9a-f]{64}(?:,|$)")
_MAIL_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
"""``t=<Unix seconds>,v1=<HMAC-SHA-256 of "t.body" with the secret, in hex>``, in the format of Stripe's."""


class Webhook(Endpoint):
    """Webhook endpoint of one provider.

    Args:
        provider: last segment of its path.
        producer: publishes to Kafka.
        secrets: signing secrets; several during a rotation.
    """

    def __init__(self, provider: str, producer: Producer, secrets: tuple[str, ...]) -> None:
        super().__init__((GROUP, provider))
        self._producer = producer
        self._secrets = secrets

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """200 ``{"received": true}`` once all in-sync replicas have the message, or if the body needs no message.

        Raises:
            MissingWebhookBody: the body is empty.
            InvalidWebhookPayload: as ``event``. Without a signature the body is not read.
            BodyTooLarge, RequestIncomplete: as ``read_body``.
            Unavailable: Kafka did not acknowledge the message; the sender should repeat the request.
        """
        kind = "unknown"
        try:
            if not request.has_body:
                raise MissingWebhookBody
            # Before the body is read: anybody can send one.
            self.check_header(request)
            body = await read_body(request.receive, MAX_BODY_BYTES)
            if not body:
                raise MissingWebhookBody
            kind, envelope = self.event(request, body)
            if envelope is not None:
                call_of(request.scope).message_id = envelope.id
                await self._publish(envelope)
        except Refusal as refusal:
            WEBHOOKS.labels(self.operation[1], kind, refusal.code).inc()
            raise
        labelled(WEBHOOKS, self.operation[1], kind, "ignored" if envelope is None else "accepted").inc()
        return HttpResponse(200, RECEIVED)

    async def _publish(self, envelope: Envelope) -> None:
        try:
            await self._producer.send(envelope)
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down
        fault_point("W1")

    @abstractmethod
    def check_header(self, request: HttpRequest) -> None:
        """Check the form and the time of the signature.

        Raises:
            InvalidWebhookPayload: there is no signature, it is malformed, or its time is off.
        """

    @abstractmethod
    def event(self, request: HttpRequest, body: bytes) -> tuple[str, Envelope | None]:
        """Verify the signature; return the type for metrics and the message to publish, None if the body needs none.

        Raises:
            InvalidWebhookPayload: the signature or the body is not valid.
        """

    def route(self) -> Route:
        """``POST`` to the provider's path."""
        return Route(f"/1/webhook/{self.operation[1]}", self, methods=["POST"])


def _check_time(signed_at: float) -> None:
    if abs(time.time() - signed_at) > TOLERANCE_SECONDS:
        raise InvalidWebhookPayload


class UnknownWebhook(Endpoint):
    """Refusal of requests to providers without a webhook endpoint."""

    def __init__(self) -> None:
        super().__init__((GROUP, "unknown"))

    async def respond(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002 -- as in the base class
        """Refuse the request."""
        raise UnknownWebhookProvider

    def route(self) -> Route:
        """``POST`` to the path of any provider; must come after the others."""
        return Route("/1/webhook/{provider}", self, methods=["POST"])


class StripeWebhook(Webhook):
    """Stripe's webhook endpoint: publishes events byte for byte.

    The signature covers the raw body (https://docs.stripe.com/webhooks#verify-manually). The gateway reads only what it
    needs for the message's ID and ordering key; billing handles the event by reading the object from Stripe.

    Args:
        producer: publishes to Kafka.
        secrets: signing secrets of the endpoint; several during a rotation.
        livemode: True for real money; events of the other mode are refused.
    """

    def __init__(self, producer: Producer, secrets: tuple[str, ...], *, livemode: bool) -> None:
        super().__init__("stripe", producer, secrets)
        self._livemode = livemode

    def check_header(self, request: HttpRequest) -> None:
        """Check the form and the time of the signature."""
        signature = request.header(b"stripe-signature")
        if not signature.isascii() or not _STRIPE_DIGEST.search(signature):
            STRIPE_SIGNATURES.labels("none").inc()
            raise InvalidWebhookPayload
        # The library checks only that the time is not too old.
        _check_time(_signed_at(signature))

    def event(self, request: HttpRequest, body: bytes) -> tuple[str, Envelope]:
        """Verify signature and event, and return its type and message."""
        self._check_signature(body, request.header(b"stripe-signature"))
        try:
            event = parse_stripe_event(body)
        except ValidationError:
            raise InvalidWebhookPayload from None
        # A live endpoint also gets the test events of connected accounts (https://docs.stripe.com/connect/webhooks),
        # which billing leaves alone.
        if event.livemode is not self._livemode and not event.of_account:
            log.warning("webhook of the other mode", id=event.id, livemode=event.livemode)
            raise InvalidWebhookPayload
        kind = event.type.removeprefix(THIN_PREFIX) if isinstance(event, StripeThinEvent) else event.type
        return kind if kind in EVENT_TYPES else OTHER, Envelope(
            # Event IDs are unique per account, and several accounts may use the same endpoint.
            id=derived_message_id("stripe", event.of_account, "live" if event.livemode else "test", event.id),
            wire=event.wire,
            topic=event.topic,
            key=event.ordering_key,
            body=body,
            time=unix_milliseconds(),
            caller=SERVICE,
            trace=call_of(request.scope).trace,
            request=request.id,
        )

    def _check_signature(self, body: bytes, signature: str) -> None:
        # The library raises other errors for non-UTF-8 bodies and non-ASCII signatures, which would become a 500.
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise InvalidWebhookPayload from None
        matching = (index for index, secret in enumerate(self._secrets) if _matches(text, signature, secret))
        index = next(matching, None)
        STRIPE_SIGNATURES.labels("none" if index is None else str(index)).inc()
        if index is None:
            raise InvalidWebhookPayload


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


class MailNotice(BaseModel):
    """Outcome of a mail."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    event: NoticeKind
    """``delivered``, ``bounced`` (returned by the recipient's server), or ``complained`` (reported as spam)."""
    message_id: Annotated[str, Field(max_length=998)]
    """``Message-ID`` of the mail, or the ID that your provider gave to it."""
    status: Status | None = None
    """Enhanced status code of a bounce (RFC 3463), for example ``5.1.1``."""
    reason: str = ""
    """Text of the mail server or provider. Addresses in it are removed."""


class MailWebhook(Webhook):
    """The mail webhook endpoint, for a script on the mail server or a provider's API.

    The body is a bounce, complaint or delivery: a notice as JSON, or a report as it came by mail. It becomes a command
    to the mailer.

    Args:
        producer: publishes to Kafka.
        secrets: signing secrets; several during a rotation.
        sealer: needed to encode messages.
    """

    def __init__(self, producer: Producer, secrets: tuple[str, ...], sealer: Sealer) -> None:
        super().__init__("mail", producer, secrets)
        self._sealer = sealer

    def check_header(self, request: HttpRequest) -> None:
        """Check the form and the time of the signature."""
        self._parsed_signature(request)

    def event(self, request: HttpRequest, body: bytes) -> tuple[str, Envelope | None]:
        """Verify the signature; return the kind and the command to the mailer, None for a report without effect."""
        self._check_signature(body, *self._parsed_signature(request))
        media_type = request.header(b"content-type").partition(";")[0].strip().lower()
        try:
            command = parse_report(body) if media_type == "message/rfc822" else _parse_notice(body)
        except IgnoredReport as ignored:
            REPORTS_IGNORED.labels(ignored.reason).inc()
            log.warning("mail report ignored", reason=ignored.reason)
            return OTHER, None
        return command.notice, Envelope(
            # Providers repeat a notice, sometimes with another reason; that is the same fact.
            id=derived_message_id("mail notice", command.key, command.notice, command.status or ""),
            wire=command.wire,
            topic=command.topic,
            key=command.key,
            body=encode(command, self._sealer),
            time=unix_milliseconds(),
            caller=SERVICE,
            trace=call_of(request.scope).trace,
            request=request.id,
        )

    def _parsed_signature(self, request: HttpRequest) -> tuple[str, str]:
        """Time and digest of the signature."""
        match = _MAIL_SIGNATURE.fullmatch(request.header(b"nest-signature"))
        if match is None:
            raise InvalidWebhookPayload
        _check_time(int(match[1]))
        return match[1], match[2]

    def _check_signature(self, body: bytes, signed_at: str, digest: str) -> None:
        signed = f"{signed_at}.".encode() + body
        expected = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in self._secrets)
        # Always compare with every secret, so that the time does not reveal which one matched.
        if not sum(hmac.compare_digest(digest, each) for each in expected):
            raise InvalidWebhookPayload


def _parse_notice(body: bytes) -> MailNoticeCommand:
    try:
        notice = MailNotice.model_validate_json(body)
    except ValidationError:
        raise InvalidWebhookPayload from None
    return notice_of(notice.message_id, notice.event, notice.status, notice.reason)
