"""Operations that send no RPC message, described by hand: webhooks, pages, the links in mails, keys and health."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.errors import BodyTooLarge, InvalidWebhookPayload, MissingWebhookBody, UnknownWebhookProvider
from services.gateway.portal import INVOICE_PATH
from services.gateway.portal import PATH as PORTAL_PATH
from services.gateway.versions import VERSIONS
from services.gateway.webhooks import TOLERANCE_SECONDS
from services.reference.responses import ALWAYS, JSON, Errors, response
from services.reference.schemas import object_schema, reference
from shared.bus.envelope import MAX_BODY_BYTES
from shared.errors import NotFound, Refusal, Unavailable
from shared.mail import CONFIRM_PATH, LANGUAGE_PARAMETER, OPEN_PATH, PRESS_PATH, RESET_PATH, UNSUBSCRIBE_PATH

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
_LINK_PARAMETERS: Final = (
    {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "Token from the link in a mail.",
        "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    },
    {"name": LANGUAGE_PARAMETER, "in": "query", "description": "Language of the page.", "schema": {"type": "string"}},
    {"$ref": "#/components/parameters/AcceptLanguage"},
)
_HTML: Final = {"text/html": {"schema": {"type": "string"}}}
_PAGE: Final = response("The page.", _HTML)
_INVALID_LINK: Final = response("The link is invalid. The response is a page.", _HTML)
_RETRY_AFTER: Final = {"retry-after": "RetryAfter"}
_PAGE_FAILURES: Final = {
    "413": response("Content Too Large. The response is a page.", _HTML),
    "429": response("Too Many Requests. The response is a page.", _HTML, _RETRY_AFTER),
    "503": response("Service Unavailable. The response is a page.", _HTML, _RETRY_AFTER),
    "504": response("Gateway Timeout. The response is a page.", _HTML),
}


def _strings(description: str) -> dict[str, Any]:
    return {"type": "array", "description": description, "items": {"type": "string"}}


_SERVER_METADATA: Final[dict[str, Any]] = {
    "issuer": {"type": "string", "description": "`iss` of access tokens."},
    "authorization_endpoint": {
        "type": "string",
        "description": "URL of `send_magic_link`. It takes JSON, so generic OAuth clients cannot use it.",
    },
    "token_endpoint": {
        "type": "string",
        "description": "URL of `authenticate_user`. It takes JSON, so generic OAuth clients cannot use it.",
    },
    "token_endpoint_auth_methods_supported": _strings("Always `none`: clients have no secrets."),
    "jwks_uri": {"type": "string", "description": "URL of the public keys."},
    "grant_types_supported": _strings("Values of `grant_type`."),
    "response_types_supported": _strings("Always `code`."),
    "response_modes_supported": _strings("Always `query`: the code is in the query of the link."),
    "code_challenge_methods_supported": _strings("Always `S256`."),
    "service_documentation": {"type": "string", "description": "URL of this reference as a page."},
}
SCHEMAS: Final[dict[str, Any]] = {
    "Received": object_schema(
        "Confirmation of a webhook request.",
        {"received": {"type": "boolean", "const": True, "description": "Always true."}},
        additionalProperties=False,
    ),
    "Health": object_schema(
        "Health of the gateway.",
        {
            "status": {"type": "string", "enum": ["ok", "failing"], "description": "Whether the gateway is healthy."},
            "reasons": {"type": "array", "items": {"type": "string"}, "description": "Current problems."},
        },
        optional={"reasons"},
    ),
    "JsonWebKeySet": object_schema(
        "Public keys (RFC 7517).",
        {"keys": {"type": "array", "description": "The keys.", "items": reference("JsonWebKey")}},
    ),
    "JsonWebKey": object_schema(
        "A public key. Its parameters depend on `kty` (RFC 7518 section 6, RFC 8037).",
        {
            "kid": {"type": "string", "description": "ID of the key."},
            "kty": {"type": "string", "description": "Type of the key."},
            "alg": {"type": "string", "description": "Signature algorithm."},
            "use": {"type": "string", "description": "Always `sig`."},
        },
        additionalProperties={"type": "string"},
    ),
    "AuthorizationServer": object_schema("Issuer of tokens (RFC 8414).", _SERVER_METADATA),
    "OpenIdConfiguration": object_schema(
        "Issuer of tokens (OpenID Connect Discovery 1.0).",
        {
            **_SERVER_METADATA,
            "subject_types_supported": _strings("Always `public`."),
            "id_token_signing_alg_values_supported": _strings(
                "Algorithms that may sign access tokens, and RS256, which the standard requires and no key has. There"
                " are no ID tokens."
            ),
            "claims_supported": _strings("Claims of access tokens."),
            "request_uri_parameter_supported": {"type": "boolean", "description": "Always false."},
        },
    ),
}
"""Component schemas of these operations, besides ``MailNotice``."""


def paths(errors: Errors) -> dict[str, Any]:
    """Operations by path and verb; ``errors`` creates their error responses."""

    def document(
        operation_id: str, summary: str, schema: dict[str, Any], media_type: str = JSON
    ) -> dict[str, dict[str, Any]]:
        success = response("The document.", {media_type: {"schema": schema}}, {"etag": "ETag"})
        unchanged = response("The document has not changed.", headers={"etag": "ETag"})
        responses = {"200": success, "304": unchanged}
        return {"get": _operation(errors, operation_id, "Service", summary, responses, parameters=(_IF_NONE_MATCH,))}

    def page(operation_id: str, summary: str) -> dict[str, dict[str, Any]]:
        return {"get": _operation(errors, operation_id, "Service", summary, {"200": _PAGE})}

    return {
        f"{OPEN_PATH}/{{token}}": {
            "get": _operation(
                errors,
                "open_page",
                "Mails",
                "Show the page that opens an app",
                {"200": _PAGE, "404": _INVALID_LINK},
                description="The page has a button with a magic link to an app, such as `myapp://callback`: mail"
                " programs remove such links. Opening the page does not use up the link.",
                parameters=_LINK_PARAMETERS,
            )
        },
        f"{PRESS_PATH}/{{token}}": {
            "get": _operation(
                errors,
                "continue_page",
                "Mails",
                "Show the page whose button leads on to an app",
                {"200": _PAGE, "404": _INVALID_LINK},
                description="The page in front of the magic links of a client with `press_to_redeem`. Opening it does"
                " not use up the link, because mail scanners open every link.",
                parameters=_LINK_PARAMETERS,
            ),
            "post": _operation(
                errors,
                "continue_to_app",
                "Mails",
                "Lead on to an app",
                {
                    "200": _PAGE,
                    "303": response("The magic link, which has the code.", headers={"location": "Location"}),
                    "404": _INVALID_LINK,
                },
                description="The button of the page. A form of another site gets the page instead.",
                parameters=_LINK_PARAMETERS,
            ),
        },
        f"{PORTAL_PATH}/{{token}}": _stripe_link(
            errors,
            "open_portal",
            "Open the customer portal",
            "A new session of Stripe's customer portal.",
            "The link is `billing_portal_url` of `get_subscription_status`, for the browser of the user.",
        ),
        f"{INVOICE_PATH}/{{token}}": _stripe_link(
            errors,
            "open_invoice",
            "Open an invoice",
            "Stripe's page or PDF of the invoice, or the customer portal if nothing is to be paid any more.",
            "The link is `payment_url` of `get_subscription_status`, for the browser of the user.",
        ),
        f"{UNSUBSCRIBE_PATH}/{{token}}": {
            "get": _operation(
                errors,
                "unsubscribe_page",
                "Mails",
                "Show the unsubscribe page",
                {"200": _PAGE, "404": _INVALID_LINK},
                description="The page has a button. Opening it changes nothing, because mail scanners follow links.",
                parameters=_LINK_PARAMETERS,
            ),
            "post": _operation(
                errors,
                "unsubscribe_now",
                "Mails",
                "Unsubscribe from marketing mails",
                {
                    "200": _PAGE,
                    "404": _INVALID_LINK,
                    **_PAGE_FAILURES,
                },
                description="Sent by the button on the page, and by mail programs with an unsubscribe button of their"
                " own (RFC 8058). The request body is ignored.",
                parameters=_LINK_PARAMETERS,
                body={"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}},
            ),
        },
        **_account_page(
            errors,
            RESET_PATH,
            "reset",
            "new password",
            {"password": {"type": "string", "description": "New password.", "minLength": 1}},
        ),
        **_account_page(errors, CONFIRM_PATH, "confirm", "confirmation of an address", {}),
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
            "Receive a delivery, bounce or complaint notice",
            f"Accepts notices of at most {_KIB} KiB about mails of Nest, from a mail server or from a script that polls"
            " a provider. Exists only with `NEST_MAIL_WEBHOOK_SECRETS`.",
            signature="nest-signature",
            content={
                JSON: {"schema": reference("MailNotice")},
                "message/rfc822": {
                    "schema": {
                        "type": "string",
                        "description": "A mail: delivery report (RFC 3464) or complaint (RFC 5965).",
                    }
                },
            },
        ),
        "/.well-known/jwks.json": document(
            "jwks",
            "Get the public keys that verify access tokens",
            reference("JsonWebKeySet"),
            "application/jwk-set+json",
        ),
        "/.well-known/oauth-authorization-server": document(
            "authorization_server",
            "Get issuer and key URL of access tokens as in RFC 8414",
            reference("AuthorizationServer"),
        ),
        "/.well-known/openid-configuration": document(
            "openid_configuration",
            "Get issuer and key URL of access tokens as in OpenID Connect Discovery",
            reference("OpenIdConfiguration"),
        ),
        "/openapi.json": document("openapi", "Get this document", {"type": "object", "required": ["openapi", "paths"]}),
        "/asyncapi.json": document(
            "asyncapi",
            "Get the AsyncAPI document of the topics and messages on Kafka",
            {"type": "object", "required": ["asyncapi", "channels"]},
        ),
        "/reference": page("reference", "Show this document as a page"),
        "/reference/{version}": {
            "get": _operation(
                errors,
                "reference_of_version",
                "Service",
                "Show an older version of this document as a page",
                {"200": _PAGE},
                parameters=(
                    {
                        "name": "version",
                        "in": "path",
                        "required": True,
                        "description": "Date of the version.",
                        "schema": {"type": "string", "enum": [each.date for each in VERSIONS[:-1]]},
                    },
                ),
                refusals=(*ALWAYS, NotFound),
            )
        },
        "/reference/events": page("events_page", "Show the AsyncAPI document as a page"),
        "/accounts": page("accounts_page", "Show the guide to the account routes"),
        "/healthz": {
            "get": _operation(
                errors,
                "healthz",
                "Service",
                "Get the health of the gateway",
                {
                    "200": response("The gateway is healthy.", {JSON: {"schema": reference("Health")}}),
                    "503": response("The gateway is not healthy.", {JSON: {"schema": reference("Health")}}),
                },
            )
        },
    }


def _account_page(
    errors: Errors, path: str, name: str, purpose: str, fields: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The page behind a link that an account with a password gets by mail, and its button."""
    form = {"type": "object", "properties": fields, "required": list(fields)}
    refused = {"422": response("The password is not allowed. The response is a page.", _HTML)} if fields else {}
    return {
        f"{path}/{{token}}": {
            "get": _operation(
                errors,
                f"{name}_page",
                "Mails",
                f"Show the page for a {purpose}",
                {"200": _PAGE, "404": _INVALID_LINK},
                description="The page has a button. Opening it does not use up the link. Exists only with"
                " `NEST_ACCOUNTS_API`.",
                parameters=_LINK_PARAMETERS,
            ),
            "post": _operation(
                errors,
                f"{name}_now",
                "Mails",
                f"Redeem the link for a {purpose}",
                {"200": _PAGE, "404": _INVALID_LINK, **refused, **_PAGE_FAILURES},
                description="Sent by the button on the page.",
                parameters=_LINK_PARAMETERS,
                body={"content": {"application/x-www-form-urlencoded": {"schema": form}}},
            ),
        }
    }


def _stripe_link(
    errors: Errors, operation_id: str, summary: str, target: str, description: str
) -> dict[str, dict[str, Any]]:
    """The operation of a link that redirects to a page of Stripe."""
    return {
        "get": _operation(
            errors,
            operation_id,
            "Subscriptions",
            summary,
            {
                "303": response(target, headers={"location": "Location"}),
                "404": response("The link is invalid or older than an hour. The response is a page.", _HTML),
                "429": response("Too Many Requests. The response is a page.", _HTML, _RETRY_AFTER),
                "503": response("Service Unavailable. The response is a page.", _HTML, _RETRY_AFTER),
                "504": response("Gateway Timeout. The response is a page.", _HTML),
            },
            description=description,
            parameters=({**_LINK_PARAMETERS[0], "description": "Token from the link."}, *_LINK_PARAMETERS[1:]),
        )
    }


def _operation(
    errors: Errors,
    operation_id: str,
    tag: str,
    summary: str,
    responses: dict[str, Any],
    *,
    description: str = "",
    parameters: tuple[dict[str, Any], ...] = (),
    body: dict[str, Any] | None = None,
    refusals: tuple[type[Refusal], ...] = ALWAYS,
) -> dict[str, Any]:
    """Operation object without authentication. ``responses`` are by status; ``refusals`` become JSON errors."""
    name = "".join(part.capitalize() for part in operation_id.split("_"))
    found = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": [*parameters, _REQUEST_ID],
        "requestBody": body,
        "responses": dict(sorted({**errors.responses(name, refusals), **responses}.items())),
        "security": [],
    }
    return {key: value for key, value in found.items() if value or key == "security"}


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
    received = response(
        "The event is stored: all in-sync replicas of Kafka have it.", {JSON: {"schema": reference("Received")}}
    )
    return {
        "post": _operation(
            errors,
            f"webhook_{provider}",
            "Webhooks",
            summary,
            {"200": received},
            description=description,
            parameters=(signature_parameter,),
            body={"required": True, "content": content},
            refusals=_WEBHOOK_REFUSALS,
        )
    }
