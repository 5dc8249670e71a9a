"""The section ``webhooks`` of the OpenAPI document: the events that Nest posts to the endpoints of apps."""

from __future__ import annotations

from typing import Any, Final

from services.reference.responses import JSON
from services.reference.schemas import Schemas, markdown, object_schema, split_summary
from shared.messages.mailer.webhook_events import DATA

HEADERS: Final = {
    "webhook-id": "ID of the event, the same in every attempt and replay. Handle each ID once.",
    "webhook-timestamp": "Time of this attempt in Unix seconds.",
    "webhook-signature": "Signatures, one for each secret, separated by spaces: `v1,<base64>` (Standard Webhooks 1.0).",
}


def webhooks(schemas: Schemas) -> dict[str, Any]:
    """Generate the path items of all event types (https://spec.openapis.org/oas/v3.1.1#fixed-fields)."""
    return {event_type: {"post": _operation(event_type, schemas)} for event_type in DATA}


def _operation(event_type: str, schemas: Schemas) -> dict[str, Any]:
    model = DATA[event_type]
    _, description = split_summary(markdown(model.__doc__))
    body = object_schema(
        f"An event of the type `{event_type}`.",
        {
            "type": {"const": event_type, "description": "Type of the event."},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {**schemas.response(model), "description": "What happened."},
        },
    )
    return {
        "operationId": f"webhook_{event_type.replace('.', '_')}",
        "summary": f"Event {event_type.replace('.', ' ').replace('_', ' ')}",
        **({"description": description} if description else {}),
        "tags": ["Webhooks"],
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": {
            "2XX": {"description": "The event is accepted. After every other response it is sent again."},
            "410": {"description": "The endpoint is gone: Nest disables it at once."},
        },
    }
