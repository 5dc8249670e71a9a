"""The OpenAPI 3.1 document of the HTTP API (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from typing import Any, Final

from services.gateway.endpoint import MAX_JSON_BODY_BYTES, Access
from services.gateway.webhooks import MailNotice
from services.reference import routes
from services.reference.operations import NEWEST, TAGS, Operation, operations
from services.reference.responses import HEADERS, JSON, Errors, response
from services.reference.schemas import Schemas, markdown, split_summary

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

An error is `{{"code", "meta", "reasons"}}`. Programs should look at `code`, which is stable. After 500, 503 and 504 it
is unknown whether a command took effect: repeat it with the same `idempotency-key`, after as many seconds as
`retry-after` says. Responses may get additional fields, and methods additional codes; ignore those you don't know.
"""
SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Access token of a user, from `authenticate_user` or a login by phone.",
    },
    "internal": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "`internal <key>`, with one of `NEST_INTERNAL_KEYS`: for operators and your own back ends.",
    },
}
PARAMETERS: Final = {
    "RequestId": {
        "name": "x-request-id",
        "in": "header",
        "description": "ID of the request in logs. One that does not match the pattern is replaced.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "IdempotencyKey": {
        "name": "idempotency-key",
        "in": "header",
        "description": "Makes repeats of a call return its stored response. A key belongs to the caller, the method and"
        " the version; use 128 random bits.",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    },
    "IfNoneMatch": {
        "name": "if-none-match",
        "in": "header",
        "description": "`etag` of an earlier response. The response is 304 if nothing has changed.",
        "schema": {"type": "string", "maxLength": 1000},
    },
    "AcceptLanguage": {
        "name": "accept-language",
        "in": "header",
        "description": "Languages of the person, by preference.",
        "schema": {"type": "string", "maxLength": 1000},
    },
}


def document() -> dict[str, Any]:
    """Generate the document. It is the same for the same code."""
    all_operations = list(operations())
    requests = [each.message for each in all_operations if each.message is not None]
    schemas = Schemas([*requests, MailNotice], [each.reply for each in all_operations if each.reply is not None])
    errors = Errors()
    examples = json.loads((files("services.reference") / "examples.json").read_text("utf-8"))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in all_operations:
        writer = _OperationWriter(operation, schemas, errors, examples.get(operation.name, {}))
        paths[operation.path][operation.verb] = writer.operation_object()
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
        "components": {
            "schemas": {**error_schemas, **routes.SCHEMAS, **schemas.components},
            "responses": error_responses,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


class _OperationWriter:
    """Writer of one operation object (https://spec.openapis.org/oas/v3.1.1#operation-object)."""

    def __init__(self, operation: Operation, schemas: Schemas, errors: Errors, example: dict[str, Any]) -> None:
        self._operation = operation
        self._schemas = schemas
        self._errors = errors
        self._example = example

    def operation_object(self) -> dict[str, Any]:
        operation = self._operation
        found: dict[str, Any] = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": self._description(),
            "parameters": self._parameters(),
            "responses": self._responses(),
            "security": SECURITY[operation.access] if operation.family == "rpc" else [],
        }
        if operation.message is None:
            found["deprecated"] = True
        elif operation.verb != "get":
            found["requestBody"] = self._request_body()
        return {name: value for name, value in found.items() if value or name == "security"}

    def _description(self) -> str:
        operation = self._operation
        paragraphs = [operation.description]
        if operation.setting:
            paragraphs.append(f"Exists only with `{operation.setting}`.")
        if operation.access is Access.SELF_OR_INTERNAL:
            paragraphs.append("Needs an access token of the user in `user_id`, or an internal key.")
        if operation.body_optional:
            paragraphs.append("With an access token the body may be omitted: the user is the token's.")
        return "\n\n".join(each for each in paragraphs if each)

    def _parameters(self) -> list[dict[str, Any]]:
        operation = self._operation
        shared = ["RequestId"]
        if operation.is_command:
            shared.append("IdempotencyKey")
        if operation.entity_tag:
            shared.append("IfNoneMatch")
        if operation.message is not None and "locales" in operation.message.model_fields and operation.family != "rpc":
            shared.append("AcceptLanguage")
        references = [{"$ref": f"#/components/parameters/{name}"} for name in shared]
        return [*map(self._path_parameter, operation.path_fields), *references]

    def _path_parameter(self, name: str) -> dict[str, Any]:
        schema = {**self._request_schema()["properties"][name]}
        description = schema.pop("description")
        if schema.get("type") == "string":
            schema = {"minLength": 1, **schema}
        return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}

    def _request_schema(self) -> dict[str, Any]:
        assert self._operation.message is not None  # noqa: S101 -- deprecated methods have neither fields nor a body
        return self._schemas.resolve(self._schemas.request(self._operation.message))

    def _request_body(self) -> dict[str, Any]:
        assert self._operation.message is not None  # noqa: S101 -- as above
        schema = self._schemas.request(self._operation.message)
        if self._operation.path_fields:
            whole = self._request_schema()
            in_body = {
                name: field for name, field in whole["properties"].items() if name not in self._operation.path_fields
            }
            required = [name for name in whole.get("required", []) if name in in_body]
            schema = {**whole, "properties": in_body, "required": required}
        media: dict[str, Any] = {"schema": schema}
        if "request" in self._example:
            media["example"] = self._example["request"]
        return {"required": not self._operation.body_optional, "content": {JSON: media}}

    def _responses(self) -> dict[str, Any]:
        operation = self._operation
        found: dict[str, Any] = {}
        if operation.message is not None:
            found[str(operation.status if operation.reply else 204)] = self._success()
        if operation.entity_tag:
            found["304"] = response("Nothing has changed.", extra={"etag": "ETag"})
        errors = self._errors.responses(
            operation.schema_name,
            operation.refusals,
            stored=operation.stored_codes,
            rejection=operation.family == "accounts",
        )
        return dict(sorted({**found, **errors}.items()))

    def _success(self) -> dict[str, Any]:
        operation = self._operation
        extra = {"idempotent-replayed": "Replayed"} if operation.is_command else {}
        if operation.entity_tag:
            extra = {**extra, "etag": "ETag"}
        if operation.reply is None:
            return response("Success, without a body.", extra=extra)
        schema = self._schemas.response(operation.reply)
        description = f"{split_summary(markdown(operation.reply.__doc__))[0]}."
        media_type = JSON
        if operation.text_field is not None:
            schema = self._schemas.resolve(schema)["properties"][operation.text_field]
            description = schema["description"]
            media_type = "text/plain"
        media: dict[str, Any] = {"schema": schema}
        if "response" in self._example:
            media["example"] = self._example["response"]
        return response(description, {media_type: media}, extra)
