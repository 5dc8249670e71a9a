"""Operations that become no message, described by hand: webhooks, pages, the unsubscribe link, keys and health."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.errors import BodyTooLarge, InvalidWebhookPayload, MissingWebhookBody, UnknownWebhookProvider
from services.gateway.webhooks import TOLERANCE_SECONDS
from services.reference.responses import ALWAYS, JSON, Errors, response
from services.reference.schemas import REF_TEMPLATE
from shared.bus.envelope import MAX_BODY_BYTES
from shared.errors import Refusal, Unavailable
from shared.mail import LANGUAGE_PARAMETER, UNSUBSCRIBE_PATH

_KIB: Final = MAX_BODY_BYTES // 1024
_WEBHOOK_REFUSALS: Final = (
    *ALWAYS,
    MissingWebhookBody,
    InvalidWebhookPayload,
    BodyTooLarge,
    UnknownWebhookProvider,
    Unavailable,
)
_REQUEST_ID: Final = {"$ref": "#/components/parameters/RequestId"}
_IF_NONE_MATCH: Final = {"$ref": "#/components/parameters/IfNoneMatch"}
_HTML: Final = {"text/html": {"schema": {"type": "string"}}}
SCHEMAS: Final[dict[str, Any]] = {
    "Received": {
        "type": "object",
        "description": "Confirmation of a webhook request.",
        "required": ["received"],
        "properties": {"received": {"type": "boolean", "const": True, "description": "Always true."}},
        "additionalProperties": False,
    },
    "Health": {
        "type": "object",
        "description": "Health of the gateway.",
        "required": ["status"],
        "properties": {
            "status": {"type": "string", "enum": ["ok", "failing"], "description": "Whether the gateway is healthy."},
            "reasons": {"type": "array", "items": {"type": "string"}, "description": "Why it is not healthy."},
        },
    },
    "JsonWebKeySet": {
        "type": "object",
        "description": "Public keys (RFC 7517).",
        "required": ["keys"],
        "properties": {
            "keys": {
                "type": "array",
                "description": "The keys.",
                "items": {"$ref": REF_TEMPLATE.format(model="JsonWebKey")},
            }
        },
    },
    "JsonWebKey": {
        "type": "object",
        "description": "A public key. Its parameters depend on `kty` (RFC 7518 section 6, RFC 8037).",
        "required": ["kid", "kty", "alg", "use"],
        "properties": {
            "kid": {"type": "string", "description": "ID of the key."},
            "kty": {"type": "string", "description": "Type of the key."},
            "alg": {"type": "string", "description": "Signature algorithm."},
            "use": {"type": "string", "description": "Always `sig`."},
        },
        "additionalProperties": {"type": "string"},
    },
    "OpenIdConfiguration": {
        "type": "object",
        "description": "Issuer of tokens (OpenID Connect Discovery 1.0).",
        "required": ["issuer", "jwks_uri"],
        "properties": {
            "issuer": {"type": "string", "description": "`iss` of access tokens."},
            "jwks_uri": {"type": "string", "description": "URL of the public keys."},
        },
    },
}
"""Component schemas of these operations, besides ``MailNotice``."""


def paths(errors: Errors) -> dict[str, Any]:
    """The operations by path and verb.

    Args:
        errors: creates their error responses.
    """
    return {
        f"{UNSUBSCRIBE_PATH}/{{token}}": {
            "get": _unsubscribe(
                errors,
                "page",
                "Show the unsubscribe page",
                "It has a button and changes nothing by itself, because mail scanners follow links.",
                ALWAYS,
            ),
            "post": {
                **_unsubscribe(
                    errors,
                    "now",
                    "Unsubscribe from marketing mails",
                    "Called by the page's button and by mail programs (RFC 8058). The body is ignored.",
                    (*ALWAYS, BodyTooLarge),
                    _429=response("Too Many Requests. The page says so.", _HTML, {"retry-after": "RetryAfter"}),
                    _503=response("Service Unavailable. The page says so.", _HTML, {"retry-after": "RetryAfter"}),
                    _504=response("Gateway Timeout. The page says so.", _HTML),
                ),
                "requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}},
            },
        },
        "/1/webhook/stripe": _webhook(
            errors,
            "stripe",
            "Receive a Stripe event",
            f"Accepts snapshot events and thin events of at most {_KIB} KiB. Stripe repeats an event until the response"
            " is 200.",
            signature="stripe-signature",
            content={JSON: {"schema": {"type": "object"}}},
        ),
        "/1/webhook/mail": _webhook(
            errors,
            "mail",
            "Receive the outcome of a mail",
            f"Accepts notices of at most {_KIB} KiB from a mail server, or from a script that polls a provider. Exists"
            " only with `NEST_MAIL_WEBHOOK_SECRETS`.",
            signature="nest-signature",
            content={
                JSON: {"schema": {"$ref": REF_TEMPLATE.format(model="MailNotice")}},
                "message/rfc822": {
                    "schema": {
                        "type": "string",
                        "description": "A mail: delivery report (RFC 3464) or complaint (RFC 5965).",
                    }
                },
            },
        ),
        "/.well-known/jwks.json": _cached_document(
            errors,
            "jwks",
            "Get the public keys that verify access tokens",
            "application/jwk-set+json",
            {"$ref": REF_TEMPLATE.format(model="JsonWebKeySet")},
        ),
        "/.well-known/openid-configuration": _cached_document(
            errors,
            "openid_configuration",
            "Get the issuer of tokens and the URL of the keys",
            JSON,
            {"$ref": REF_TEMPLATE.format(model="OpenIdConfiguration")},
        ),
        "/openapi.json": _cached_document(
            errors, "openapi", "Get this document", JSON, {"type": "object", "required": ["openapi", "paths"]}
        ),
        "/reference": _page(errors, "reference", "Show this document as a page"),
        "/accounts": _page(errors, "accounts_page", "Show a guide to the account routes"),
        "/healthz": {
            "get": {
                "operationId": "healthz",
                "tags": ["Service"],
                "summary": "Check the health of this gateway",
                "parameters": [_REQUEST_ID],
                "responses": {
                    "200": response("The gateway is healthy.", _health()),
                    **errors.responses("Healthz", ALWAYS),
                    "503": response("The gateway is not healthy.", _health()),
                },
                "security": [],
            }
        },
    }


def _health() -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": REF_TEMPLATE.format(model="Health")}}}


def _cached_document(
    errors: Errors, operation_id: str, summary: str, media_type: str, schema: dict[str, Any]
) -> dict[str, Any]:
    """A document with an entity tag."""
    name = "".join(part.capitalize() for part in operation_id.split("_"))
    return {
        "get": {
            "operationId": operation_id,
            "tags": ["Service"],
            "summary": summary,
            "parameters": [_REQUEST_ID, _IF_NONE_MATCH],
            "responses": {
                "200": response("The document.", {media_type: {"schema": schema}}, {"etag": "ETag"}),
                "304": response("The document has not changed.", extra={"etag": "ETag"}),
                **errors.responses(name, ALWAYS),
            },
            "security": [],
        }
    }


def _webhook(
    errors: Errors, provider: str, summary: str, description: str, *, signature: str, content: dict[str, Any]
) -> dict[str, Any]:
    signature_parameter = {
        "name": signature,
        "in": "header",
        "required": True,
        "description": "`t=<Unix time>,v1=<hex>`: the HMAC-SHA-256 of `<t>.<body>`. The time may be at most"
        f" {TOLERANCE_SECONDS} seconds off.",
        "schema": {"type": "string", "pattern": "^t=[0-9]+,v1=[0-9a-f]{64}$"},
    }
    return {
        "post": {
            "operationId": f"webhook_{provider}",
            "tags": ["Webhooks"],
            "summary": summary,
            "description": description,
            "parameters": [signature_parameter, _REQUEST_ID],
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": response(
                    "All in-sync replicas of Kafka have the event.",
                    {JSON: {"schema": {"$ref": REF_TEMPLATE.format(model="Received")}}},
                ),
                **errors.responses(f"Webhook{provider.capitalize()}", _WEBHOOK_REFUSALS),
            },
            "security": [],
        }
    }


def _unsubscribe(
    errors: Errors, name: str, summary: str, description: str, refusals: tuple[type[Refusal], ...], **pages: Any
) -> dict[str, Any]:
    """Operation of the unsubscribe link.

    Args:
        errors: creates the error responses.
        name: suffix of the operation's ID.
        summary: of the operation.
        description: of the operation.
        refusals: those with a JSON body.
        pages: responses by status, with an underscore in front, that are pages although they are errors.
    """
    responses = {
        "200": response("The page.", _HTML),
        "404": response("The link is invalid. The page says so.", _HTML),
        **errors.responses(f"Unsubscribe{name.capitalize()}", refusals),
        **{status.removeprefix("_"): page for status, page in pages.items()},
    }
    return {
        "operationId": f"unsubscribe_{name}",
        "tags": ["Mails"],
        "summary": summary,
        "description": description,
        "parameters": [
            {
                "name": "token",
                "in": "path",
                "required": True,
                "description": "Token from the link in a mail.",
                "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
            },
            {
                "name": LANGUAGE_PARAMETER,
                "in": "query",
                "description": "Language of the mail.",
                "schema": {"type": "string"},
            },
            {"$ref": "#/components/parameters/AcceptLanguage"},
            _REQUEST_ID,
        ],
        "responses": dict(sorted(responses.items())),
        "security": [],
    }


def _page(errors: Errors, operation_id: str, summary: str) -> dict[str, Any]:
    name = "".join(part.capitalize() for part in operation_id.split("_"))
    return {
        "get": {
            "operationId": operation_id,
            "tags": ["Service"],
            "summary": summary,
            "parameters": [_REQUEST_ID],
            "responses": {"200": response("The page.", _HTML), **errors.responses(name, ALWAYS)},
            "security": [],
        }
    }
