"""What is served besides methods: routes that become no message by the tables, said here by hand."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.mail_webhook import Notice
from services.gateway.webhooks import TOLERANCE_SECONDS
from services.reference.answers import JSON, headers, refusals
from services.reference.schemas import Bodies
from shared.bus.envelope import MAX_BODY_BYTES
from shared.mail import UNSUBSCRIBE_PATH

ERROR: Final = {
    "type": "object",
    "description": "A no. `code` is stable; `meta` and `reasons` say more where there is more to say.",
    "required": ["code"],
    "properties": {
        "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        "meta": {
            "type": "object",
            "description": "Facts. `request_id` is that of the header; others depend on the code.",
            "properties": {
                "request_id": {"type": "string"},
                "retry_after": {"type": "integer", "description": "Seconds."},
                "errors": {
                    "type": "array",
                    "description": "Of `validation_failed`: what is wrong, 20 at most, never with the value.",
                    "maxItems": 20,
                    "items": {
                        "type": "object",
                        "required": ["path", "message"],
                        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                        "additionalProperties": False,
                    },
                },
            },
        },
        "reasons": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}},
    },
}
"""What every refusal looks like."""
REASON: Final = {**ERROR, "description": "Why, in the same shape."}
SCHEMAS: Final[dict[str, Any]] = {
    "Error": {
        **ERROR,
        "required": ["code", "meta"],
        "properties": {
            **ERROR["properties"],  # type: ignore[dict-item]
            "meta": {**ERROR["properties"]["meta"], "required": ["request_id"]},  # type: ignore[index]
        },
    },
    "Reason": REASON,
    "NotLetIn": {
        "description": "A no of the accounts' routes to whoever is not let in.",
        "allOf": [
            {"$ref": "#/components/schemas/Error"},
            {
                "required": ["auth", "message"],
                "properties": {"auth": {"const": False}, "message": {"type": "string"}},
            },
        ],
    },
    "Received": {
        "type": "object",
        "required": ["received"],
        "properties": {"received": {"const": True}},
        "additionalProperties": False,
    },
    "MailNotice": Notice.model_json_schema(schema_generator=Bodies, mode="validation"),
}
_KIB: Final = MAX_BODY_BYTES // 1024
_ANY: Final = ("malformed_request", "request_timeout", "headers_too_large", "unknown")
_WEBHOOK: Final = (
    *_ANY,
    "missing_webhook_body",
    "invalid_webhook_payload",
    "body_too_large",
    "unknown_webhook_provider",
    "unavailable",
)
_HEALTH: Final = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["ok", "failing"]},
        "reasons": {"type": "array", "items": {"type": "string"}},
    },
}
_REQUEST_ID: Final = {"$ref": "#/components/parameters/RequestId"}
_TOKEN: Final = {
    "name": "token",
    "in": "path",
    "required": True,
    "description": "From the link beside a mail.",
    "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
}
_LANGUAGE: Final = {
    "name": "lang",
    "in": "query",
    "description": "The language of the mail.",
    "schema": {"type": "string"},
}
_PAGE: Final = {"text/html": {"schema": {"type": "string"}}}


def _answer(description: str, content: dict[str, Any], more: dict[str, str] | None = None) -> dict[str, Any]:
    return {"description": description, "headers": headers(more or {}), "content": content}


def _cached(name: str, summary: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A document that clients may keep for a while."""
    return {
        "get": {
            "operationId": name,
            "tags": ["About Nest"],
            "summary": summary,
            "parameters": [_REQUEST_ID, {"$ref": "#/components/parameters/IfNoneMatch"}],
            "responses": {
                "200": _answer("The document.", {media_type: {"schema": schema}}, {"etag": "ETag"}),
                "304": {"description": "What you have is still the same.", "headers": headers({"etag": "ETag"})},
                **refusals("gateway", _ANY),
            },
            "security": [],
        }
    }


def _webhook(provider: str, summary: str, description: str, signature: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "operationId": f"webhook_{provider}",
            "tags": ["Webhooks"],
            "summary": summary,
            "description": description,
            "parameters": [
                {
                    "name": signature,
                    "in": "header",
                    "required": True,
                    "description": f'`t=<Unix seconds>,v1=<HMAC-SHA-256 of "<t>.<body>" in hex>`, at most'
                    f" {TOLERANCE_SECONDS} seconds off.",
                    "schema": {"type": "string", "pattern": "^t=[0-9]+,v1=[0-9a-f]{64}$"},
                },
                _REQUEST_ID,
            ],
            "requestBody": {"required": True, "content": body},
            "responses": {
                "200": _answer(
                    "All in-sync replicas of Kafka have it.",
                    {JSON: {"schema": {"$ref": "#/components/schemas/Received"}}},
                ),
                **refusals("gateway", _WEBHOOK),
            },
            "security": [],
        }
    }


def _unsubscribing(verb: str, summary: str, description: str, codes: tuple[str, ...]) -> dict[str, Any]:
    """Whatever goes wrong, a person sees a page; only what is refused before it is known to be for them is JSON."""
    refused = refusals("gateway", (*_ANY, *codes))
    for status in ("404", "429", "503", "504"):
        if status in refused or status == "404":
            of_status = refused.get(status, {"headers": headers({})})
            refused[status] = {**of_status, "description": "The page, which says so.", "content": _PAGE}
    return {
        "operationId": f"unsubscribe_{verb}",
        "tags": ["Mails"],
        "summary": summary,
        "description": description,
        "parameters": [
            _TOKEN,
            _LANGUAGE,
            {"$ref": "#/components/parameters/AcceptLanguage"},
            _REQUEST_ID,
        ],
        "responses": {"200": _answer("The page.", _PAGE), **dict(sorted(refused.items()))},
        "security": [],
    }


def _page(name: str, summary: str) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "tags": ["About Nest"],
            "summary": summary,
            "parameters": [_REQUEST_ID],
            "responses": {"200": _answer("The page.", _PAGE), **refusals("gateway", _ANY)},
            "security": [],
        }
    }


PATHS: Final[dict[str, Any]] = {
    f"{UNSUBSCRIBE_PATH}/{{token}}": {
        "get": _unsubscribing(
            "page", "A page with a button", "Changes nothing, since scanners and previews open every link.", ()
        ),
        "post": {
            **_unsubscribing(
                "now",
                "No more news for whom the token names",
                "What the button and mail programs (RFC 8058) post. What is posted is not looked at.",
                ("body_too_large", "too_many_requests", "unavailable", "reply_timeout"),
            ),
            "requestBody": {
                "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}},
            },
        },
    },
    "/1/webhook/stripe": _webhook(
        "stripe",
        "Takes an event of Stripe's",
        f"Snapshot events and thin ones, {_KIB} KiB at most. Stripe repeats what is not answered with 200.",
        "stripe-signature",
        {JSON: {"schema": {"type": "object"}}},
    ),
    "/1/webhook/mail": _webhook(
        "mail",
        "Takes what became of a mail",
        f"For a mail server, or what asks a provider. {_KIB} KiB at most; there only with `NEST_MAIL_WEBHOOK_SECRETS`.",
        "nest-signature",
        {
            JSON: {"schema": {"$ref": "#/components/schemas/MailNotice"}},
            "message/rfc822": {
                "schema": {"type": "string", "description": "A delivery report (RFC 3464), a complaint (RFC 5965)."}
            },
        },
    ),
    "/.well-known/jwks.json": _cached(
        "jwks",
        "The public keys that verify access tokens (RFC 7517)",
        "application/jwk-set+json",
        {
            "type": "object",
            "required": ["keys"],
            "properties": {
                "keys": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["kid", "kty", "alg", "use"],
                        "additionalProperties": {"type": "string"},
                    },
                }
            },
        },
    ),
    "/.well-known/openid-configuration": _cached(
        "openid_configuration",
        "Who issues tokens, and where the keys are (OpenID Connect Discovery 1.0)",
        JSON,
        {
            "type": "object",
            "required": ["issuer", "jwks_uri"],
            "properties": {
                "issuer": {"type": "string", "description": "The `iss` of tokens."},
                "jwks_uri": {"type": "string"},
            },
        },
    ),
    "/openapi.json": _cached("openapi", "This document", JSON, {"type": "object", "required": ["openapi", "paths"]}),
    "/reference": _page("reference", "This document as a page for people"),
    "/accounts": _page("accounts_page", "How an application uses the accounts' routes, for people"),
    "/healthz": {
        "get": {
            "operationId": "healthz",
            "tags": ["About Nest"],
            "summary": "Whether this gateway is well",
            "parameters": [_REQUEST_ID],
            "responses": {
                "200": _answer("It is.", {JSON: {"schema": _HEALTH}}),
                **refusals("gateway", _ANY),
                "503": _answer("It is not, for these reasons.", {JSON: {"schema": _HEALTH}}),
            },
            "security": [],
        }
    },
}
"""The routes by path and verb."""
