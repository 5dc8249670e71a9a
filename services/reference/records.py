"""Records of the bus in the AsyncAPI document: the headers of the envelope, and messages that are no classes."""

from __future__ import annotations

from typing import Any, Final

from shared.bus.envelope import MAX_REQUEST_ID

REPLIES: Final = "gateway.replies"


def _text(description: str, **schema: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **schema}


DEAD_LETTER: Final = "dead-letter"
"""Name of the message on dead-letter topics."""
_MAC: Final = _text("HMAC-SHA-256 of the record: `<key ID>.<64 hex characters>`. The first header.")
ENVELOPE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["mac", "type", "id", "time"],
    "properties": {
        "mac": _MAC,
        "type": _text("Wire name of the message."),
        "id": _text("Message ID; the same at every delivery.", pattern="^[0-9a-f]{32}$"),
        "time": _text("When it was first published, Unix milliseconds.", pattern="^[0-9]{1,18}$"),
        "caller": {
            "type": "string",
            "description": "The caller as verified by the gateway, as JSON without fields that have their defaults;"
            " `Caller` has the fields. Missing for anonymous callers without an address.",
            "contentMediaType": "application/json",
        },
        "traceparent": _text(
            "W3C trace context; absent if nothing of the trace is recorded and its ID is that of the request."
        ),
        "request-id": _text("ID of the HTTP request that caused it.", maxLength=MAX_REQUEST_ID),
        "deadline": _text("Unix milliseconds after which the caller has timed out.", pattern="^[0-9]{1,18}$"),
        "reply-to": _text(f"Partition of `{REPLIES}` that the reply is sent to.", pattern="^[0-9]{1,18}$"),
        "reply-id": _text("Correlation ID of the reply; without it, the message ID."),
        "fingerprint": _text("Keyed hash of the client's request, which detects a reused idempotency key."),
        "replay-time": _text("When an operator ordered a message to be handled that is older than the inbox."),
        "replay-for": _text("The consumer group that a replayed dead letter is for; others skip it."),
        "replay-mac": _text("MAC of a replayed record, in front of its original one."),
    },
}
OTHER_MESSAGES: Final[dict[str, Any]] = {
    "reply": {
        "name": "reply",
        "title": "Reply",
        "summary": "The answer to a command or query: a view, or a refusal.",
        "description": "With `kind` `done` the value is the view, empty if there is none, and sealed for the gateway if"
        " the message is marked `x-reply-sealed`. Any other `kind` is that of a refusal, and the value is the error"
        " without `message` and `docs`, which the gateway adds.",
        "correlationId": {"location": "$message.header#/id", "description": "`reply-id` of the message, or its ID."},
        "headers": {
            "type": "object",
            "required": ["mac", "id", "kind"],
            "properties": {
                "mac": _MAC,
                "id": _text("Correlation ID: `reply-id` of the message, or its ID."),
                "kind": _text("`done`, or the kind of the refusal."),
                "handling-time": _text("Milliseconds from the beginning of the delivery to the reply."),
                "replayed": _text("`1` if this is the stored reply to an earlier delivery."),
            },
        },
        "payload": {"description": "A view, a refusal, or ciphertext."},
        "examples": [
            {
                "name": "refusal",
                "payload": {"code": "user_not_found"},
                "headers": {"mac": "k1.9f…", "id": "9b2e0c1f5d3a4b6c8d7e0f1a2b3c4d5e", "kind": "not_found"},
            }
        ],
    },
    DEAD_LETTER: {
        "name": DEAD_LETTER,
        "title": "Dead letter",
        "summary": "A record that could not be handled, sealed as a whole.",
        "description": "The value is the original key, value and headers, packed, compressed and encrypted for the"
        " operators' queue. `nest dead-letters` shows and replays them.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": ["mac", "dead-reason", "dead-source", "dead-group", "dead-time", "dead-sealed"],
            "properties": {
                "mac": _MAC,
                "dead-reason": _text(
                    "Why it was moved.", enum=["undecodable", "unauthenticated", "too_old", "failing"]
                ),
                "dead-detail": _text("A sentence, or the class of the last error."),
                "dead-trace": _text("Stack frames of the last error, without its message."),
                "dead-tries": _text("How often the record was attempted."),
                "dead-source": _text("Partition and offset on the source topic."),
                "dead-group": _text("The consumer group that failed."),
                "dead-time": _text("When it was written, Unix milliseconds."),
                "dead-sealed": _text("`1`: the value is sealed."),
            },
        },
        "payload": {"type": "string", "format": "binary", "description": "Ciphertext."},
    },
    "instance": {
        "name": "instance",
        "title": "Instance",
        "summary": "A running process announces itself.",
        "headers": {"type": "object", "required": ["mac"], "properties": {"mac": _MAC}},
        "payload": {
            "type": "object",
            "required": ["service", "instance", "time"],
            "properties": {
                "service": _text("Service, or `gateway`."),
                "instance": _text("Name of the instance."),
                "time": {"type": "integer", "description": "Its clock, Unix milliseconds."},
                "skew": {
                    "type": "object",
                    "description": "Seconds by which its clock is ahead of each reference.",
                    "additionalProperties": {"type": "number"},
                },
                "stopped": {"type": "boolean", "description": "Whether it handles nothing because its clock is wrong."},
            },
        },
    },
    "growth-order": {
        "name": "growth-order",
        "title": "Growth order",
        "summary": "An order of `nest topics grow`, or the confirmation of a process.",
        "headers": {"type": "object", "required": ["mac"], "properties": {"mac": _MAC}},
        "payload": {
            "type": "object",
            "required": ["id", "stage"],
            "properties": {
                "id": _text("ID of this run of the command."),
                "stage": _text("What to do.", enum=["refuse", "hold", "grown", "done"]),
                "partitions": {
                    "type": "object",
                    "description": "The least number of partitions of each topic to grow.",
                    "additionalProperties": {"type": "integer"},
                },
                "service": _text("Of a confirmation: the service of the process."),
                "instance": _text("Of a confirmation: its instance."),
            },
        },
    },
}
"""Messages that are no classes of ``shared.messages``."""
