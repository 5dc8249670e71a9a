"""The OpenAPI 3.1 document of the HTTP API (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from typing import Any, Final

from pydantic import BaseModel

from services.gateway.endpoint import MAX_JSON_BODY_BYTES, Access
from services.gateway.versions import explains_errors
from services.gateway.webhooks import MailNotice
from services.reference import routes
from services.reference.operations import NEWEST, TAGS, Operation, operations
from services.reference.responses import HEADERS, JSON, REQUEST_ID_PATTERN, Errors, response
from services.reference.schemas import Schemas, markdown, split_summary
from services.reference.webhooks import webhooks
from shared.messages.mailer.webhook_events import DATA


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


SECURITY: Final[dict[Access, list[dict[str, list[str]]]]] = {
    Access.ANYONE: [{}, {"bearer": []}, {"internal": []}],
    Access.SELF_OR_INTERNAL: [{"bearer": []}, {"internal": []}],
    Access.INTERNAL: [{"internal": []}],
}
ABOUT: Final = f"""\
Passwordless login, subscriptions, mail and news behind one small HTTP API.

Call a method with `POST /1/{{version}}/{{method}}`. The body is one JSON object in UTF-8 of at most
{MAX_JSON_BODY_BYTES // 1024} KiB, without unknown fields and without duplicate keys; its content type is ignored. \
Integers are written
without a decimal point. Times are ISO 8601: with an offset in requests, in UTC with milliseconds in responses. IDs are
opaque strings. The response is JSON, or 204 if there is no result. Request line and headers have at most 16 KiB.

An error is `{{"code", "message", "docs", "meta", "reasons"}}`. Programs should look at `code`, which is stable.
`message` says what to do, and `docs` is the path of the code's documentation; the versions before {NEWEST}, which are
frozen, have neither. After 500, 503 and 504 it is unknown whether a command took effect: repeat it with the same
`idempotency-key`, after as many seconds as `retry-after` says. Responses may get additional fields, and methods
additional codes; ignore those you don't know.
"""
SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Access token of a user, from `authenticate_user` or a login by phone.",
    },
    "owner": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Token of an owner of applications, from `POST /appowner/login`.",
    },
    "internal": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "`internal <key>`, with one of `NEST_INTERNAL_KEYS`: for operators and your own back ends.",
    },
}
PARAMETERS: Final = {
    "RequestId": _header(
        "x-request-id",
        "ID of the request in logs. One that does not match the pattern is replaced.",
        pattern=REQUEST_ID_PATTERN,
    ),
    "IdempotencyKey": _header(
        "idempotency-key",
        "Makes repeats of a call return its stored response. A key belongs to the caller, the method and the version;"
        " use 128 random bits.",
        pattern="^[!-~]([ -~]{0,253}[!-~])?$",
    ),
    "IfNoneMatch": _header(
        "if-none-match", "`etag` of an earlier response. The response is 304 if nothing has changed.", maxLength=1000
    ),
    "AcceptLanguage": _header("accept-language", "Languages of the person, by preference.", maxLength=1000),
}


def document() -> dict[str, Any]:
    """Generate the document. It depends only on the code."""
    all_operations = list(operations())
    requests = [each.message for each in all_operations if each.message is not None]
    replies = [each.reply for each in all_operations if each.reply is not None]
    schemas = Schemas([*requests, MailNotice], [*replies, *DATA.values()])
    errors = Errors()
    writer = _OperationWriter(schemas, errors)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in all_operations:
        paths[operation.path][operation.verb] = writer.operation_object(operation)
    for path, verbs in routes.paths(errors).items():
        paths[path].update(verbs)
    error_schemas, error_responses = errors.components()
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Nest",
            "version": NEWEST,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The server of this document."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": dict(paths),
        "webhooks": webhooks(schemas),
        "components": {
            "schemas": {**error_schemas, **routes.SCHEMAS, **schemas.components},
            "responses": error_responses,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


class _OperationWriter:
    """Writer of operation objects (https://spec.openapis.org/oas/v3.1.1#operation-object)."""

    def __init__(self, schemas: Schemas, errors: Errors) -> None:
        self._schemas = schemas
        self._errors = errors
        self._examples = json.loads((files("services.reference") / "examples.json").read_text("utf-8"))

    def operation_object(self, operation: Operation) -> dict[str, Any]:
        found: dict[str, Any] = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": _description(operation),
            "parameters": self._parameters(operation),
            "responses": self._responses(operation),
            "security": _security(operation),
        }
        if operation.message is None:
            found["deprecated"] = True
        elif operation.verb != "get":
            found["requestBody"] = self._request_body(operation, operation.message)
        return {name: value for name, value in found.items() if value or name == "security"}

    def _parameters(self, operation: Operation) -> list[dict[str, Any]]:
        if operation.message is None:
            return [_parameter("RequestId")]
        fields = self._schemas.resolve(self._schemas.request(operation.message))["properties"]
        parameters = [_path_parameter(name, fields[name]) for name in operation.path_fields]
        parameters.append(_parameter("RequestId"))
        if operation.is_command:
            parameters.append(_parameter("IdempotencyKey"))
        if operation.entity_tag:
            parameters.append(_parameter("IfNoneMatch"))
        if "locales" in operation.message.model_fields and operation.family != "rpc":
            parameters.append(_parameter("AcceptLanguage"))
        return parameters

    def _request_body(self, operation: Operation, message: type[BaseModel]) -> dict[str, Any]:
        schema = self._schemas.request(message)
        if operation.path_fields:
            whole = self._schemas.resolve(schema)
            in_body = {name: each for name, each in whole["properties"].items() if name not in operation.path_fields}
            required = [name for name in whole.get("required", []) if name in in_body]
            schema = {**whole, "properties": in_body, "required": required}
        if operation.body_optional:
            whole = self._schemas.resolve(schema)
            schema = {**whole, "required": [name for name in whole["required"] if name != "user_id"]}
        media = {"schema": schema, **self._example(operation, "request")}
        return {"required": not operation.body_optional, "content": {JSON: media}}

    def _responses(self, operation: Operation) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if operation.message is not None:
            found[str(operation.status if operation.reply else 204)] = self._success(operation)
        if operation.entity_tag:
            found["304"] = response("Nothing has changed.", headers={"etag": "ETag"})
        errors = self._errors.responses(
            operation.schema_name,
            operation.refusals,
            stored=operation.stored_codes,
            rejection=operation.family == "accounts",
            explained=explains_errors(operation.version),
        )
        return dict(sorted({**found, **errors}.items()))

    def _success(self, operation: Operation) -> dict[str, Any]:
        headers = {"idempotent-replayed": "Replayed"} if operation.is_command else {}
        if operation.entity_tag:
            headers["etag"] = "ETag"
        if operation.reply is None:
            return response("Success, without a body.", headers=headers)
        schema = self._schemas.response(operation.reply)
        description = f"{split_summary(markdown(operation.reply.__doc__))[0]}."
        media_type = JSON
        if operation.text_field is not None:
            schema = self._schemas.resolve(schema)["properties"][operation.text_field]
            description = schema["description"]
            media_type = "text/plain"
        return response(description, {media_type: {"schema": schema, **self._example(operation, "response")}}, headers)

    def _example(self, operation: Operation, kind: str) -> dict[str, Any]:
        example = self._examples.get(operation.name, {})
        return {"example": example[kind]} if kind in example else {}


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.family != "rpc":
        takes_token = operation.message is not None and "owner_token" in operation.message.model_fields
        return [{}, {"owner": []}] if takes_token else []
    schemes = SECURITY[operation.access]
    return [each for each in schemes if "bearer" not in each] if operation.credential_in_body else schemes


def _description(operation: Operation) -> str:
    paragraphs = [operation.description]
    if operation.setting:
        paragraphs.append(f"Exists only with `{operation.setting}`.")
    if operation.access is Access.SELF_OR_INTERNAL:
        paragraphs.append("Needs an access token of the user in `user_id`, or an internal key.")
    if operation.body_optional:
        paragraphs.append("With an access token `user_id`, or the whole body, may be omitted: the user is the token's.")
    return "\n\n".join(each for each in paragraphs if each)


def _parameter(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/parameters/{name}"}


def _path_parameter(name: str, field: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in field.items() if key != "description"}
    if schema.get("type") == "string":
        schema = {"minLength": 1, **schema}
    return {"name": name, "in": "path", "required": True, "description": field["description"], "schema": schema}
