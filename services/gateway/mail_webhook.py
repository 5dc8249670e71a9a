"""Who tells what became of a mail? Whoever knows our secret: a script at the mail server, or before a provider's API.

``POST /1/webhook/mail`` takes our own JSON, or a report as it came by mail. Either becomes a message for the mailer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.body import read_body
from services.gateway.mail_reports import notice_in, order_of
from services.gateway.webhooks import (
    RECEIVED,
    TOLERANCE_SECONDS,
    InvalidWebhookPayload,
    MissingWebhookBody,
    UnknownWebhookProvider,
)
from shared.bus.envelope import MAX_BODY_BYTES, Envelope, encode, unix_milliseconds
from shared.bus.producer import BusDown, Producer
from shared.errors import Unavailable
from shared.ids import derived_message_id
from shared.mail import redact_addresses
from shared.messages import SERVICE
from shared.messages.mailer.mail_reports import NoticeKind, RecordMailNotice, Status
from shared.sealing import Sealer
from shared.telemetry import log, new_traceparent

SIGNATURE: Final = "nest-signature"
"""``t=<Unix seconds>,v1=<HMAC-SHA-256 of "t.body" under the secret, in hex>``: as Stripe signs."""
REPORT: Final = "message/rfc822"
_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


class Notice(BaseModel):
    """What is told of one mail, in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    event: NoticeKind
    message_id: Annotated[str, Field(max_length=998)]
    status: Status | None = None
    reason: str = ""


class MailWebhook:
    """Takes what is told of mails.

    Args:
        producer: puts it on Kafka.
        sealer: belongs to every message's encoding.
        secrets: what whoever tells it signs with; several while one is being replaced; none: nobody is believed.
        clock: Unix seconds.
    """

    def __init__(
        self, producer: Producer, sealer: Sealer, *, secrets: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._producer = producer
        self._sealer = sealer
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._clock = clock

    async def receive(self, request: Request) -> Response:
        """200 ``{"received": true}`` once all in-sync replicas have it, or when it tells nothing of a mail of ours.

        Raises:
            UnknownWebhookProvider: no secret is set.
            MissingWebhookBody, InvalidWebhookPayload: it is not kept.
            BodyTooLarge, RequestIncomplete: as ``read_body``.
            Unavailable: Kafka did not take it; to be repeated.
        """
        if not self._secrets:
            raise UnknownWebhookProvider
        body = await read_body(request.receive, MAX_BODY_BYTES)
        if not body:
            raise MissingWebhookBody
        self._check_signature(body, request.headers.get(SIGNATURE, ""))
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        notice = notice_in(body) if media_type == REPORT else _notice(body)
        if notice is not None:
            await self._send(notice)
        return Response(RECEIVED, media_type="application/json")

    def _check_signature(self, body: bytes, signature: str) -> None:
        found = _SIGNATURE.fullmatch(signature)
        if found is None:
            raise InvalidWebhookPayload
        at, given = found.groups()
        known = (hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest() for secret in self._secrets)
        # All of them are compared, whichever fits: the time tells nothing.
        if not sum(hmac.compare_digest(given, each) for each in known):
            raise InvalidWebhookPayload
        if abs(self._clock() - int(at)) > TOLERANCE_SECONDS:
            raise InvalidWebhookPayload

    async def _send(self, notice: RecordMailNotice) -> None:
        envelope = Envelope(
            # Providers repeat themselves; what they then say in other words is the same fact.
            id=derived_message_id("mail notice", notice.order_id, notice.notice, notice.status or ""),
            wire=notice.wire,
            topic=notice.topic,
            key=notice.key,
            body=encode(notice, self._sealer),
            time=unix_milliseconds(),
            caller=SERVICE,
            trace=new_traceparent(),
        )
        try:
            await self._producer.send(envelope)
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down


def _notice(body: bytes) -> RecordMailNotice | None:
    try:
        told = Notice.model_validate_json(body)
    except ValidationError:
        raise InvalidWebhookPayload from None
    order_id = order_of(told.message_id)
    if order_id is None:
        return None
    return RecordMailNotice(
        key=order_id, order_id=order_id, notice=told.event, status=told.status, reason=redact_addresses(told.reason)
    )
