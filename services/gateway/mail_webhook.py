"""Mail webhook endpoint: bounces, complaints and deliveries, from a script on the mail server or a provider's API.

``POST /1/webhook/mail`` accepts a notice as JSON, or a report as it came by mail. Each becomes a command to the mailer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.errors import InvalidWebhookPayload
from services.gateway.mail_reports import order_id_of, parse_report
from services.gateway.requests import HttpRequest
from services.gateway.webhooks import TOLERANCE_SECONDS, Webhook
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.producer import Producer
from shared.ids import derived_message_id
from shared.mail import redact_addresses
from shared.messages import SERVICE
from shared.messages.mailer.suppressions import NoticeKind, RecordMailNotice, Status
from shared.sealing import Sealer
from shared.telemetry import new_traceparent

SIGNATURE: Final = b"nest-signature"
"""Header ``t=<Unix seconds>,v1=<HMAC-SHA-256 of "t.body" with the secret, in hex>``, in the format of Stripe's."""
REPORT: Final = "message/rfc822"
_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


class MailNotice(BaseModel):
    """Outcome of a mail."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    event: NoticeKind
    """``delivered``, ``bounced`` (returned by the recipient's server), or ``complained`` (reported as spam)."""
    message_id: Annotated[str, Field(max_length=998)]
    """``Message-ID`` of the mail."""
    status: Status | None = None
    """Enhanced status code of a bounce (RFC 3463), for example ``5.1.1``."""
    reason: str = ""
    """Text of the mail server or provider. Addresses in it are removed."""


class MailWebhook(Webhook):
    """The mail webhook endpoint.

    Args:
        producer: publishes to Kafka.
        sealer: needed to encode messages.
        secrets: signing secrets; several during a rotation.
        clock: Unix seconds.
    """

    def __init__(
        self, producer: Producer, sealer: Sealer, *, secrets: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__("mail", producer, secrets=secrets, clock=clock)
        self._sealer = sealer

    def envelope(self, request: HttpRequest, body: bytes) -> Envelope | None:
        """Verify the signature and return the command to the mailer; None if the body is about another system's mail.

        Raises:
            InvalidWebhookPayload: the signature does not match, or the JSON is not a notice.
        """
        self._check_signature(body, request.header(SIGNATURE))
        media_type = request.header(b"content-type").partition(";")[0].strip().lower()
        command = parse_report(body) if media_type == REPORT else _parse_notice(body)
        if command is None:
            return None
        return Envelope(
            # Providers repeat a notice, sometimes with another reason; that is the same fact.
            id=derived_message_id("mail notice", command.order_id, command.notice, command.status or ""),
            wire=command.wire,
            topic=command.topic,
            key=command.key,
            body=encode(command, self._sealer),
            time=unix_milliseconds(),
            caller=SERVICE,
            trace=new_traceparent(),
        )

    def _check_signature(self, body: bytes, header: str) -> None:
        match = _SIGNATURE.fullmatch(header)
        if match is None:
            raise InvalidWebhookPayload
        signed_at, signature = match.groups()
        signed = f"{signed_at}.".encode() + body
        expected = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in self._secrets)
        # Always compare with every secret, so that the time does not reveal which one matched.
        if not sum(hmac.compare_digest(signature, each) for each in expected):
            raise InvalidWebhookPayload
        if abs(self._clock() - int(signed_at)) > TOLERANCE_SECONDS:
            raise InvalidWebhookPayload


def _parse_notice(body: bytes) -> RecordMailNotice | None:
    try:
        notice = MailNotice.model_validate_json(body)
    except ValidationError:
        raise InvalidWebhookPayload from None
    order_id = order_id_of(notice.message_id)
    if order_id is None:
        return None
    return RecordMailNotice(
        key=order_id,
        order_id=order_id,
        notice=notice.event,
        status=notice.status,
        reason=redact_addresses(notice.reason),
    )
