"""What is the whole reference? An OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

import json
from collections import defaultdict
from copy import deepcopy
from importlib.resources import files
from typing import Any, Final

from services.gateway.endpoint import MAX_JSON_BODY_BYTES, Access
from services.reference.answers import HEADERS, JSON, headers, refusals, shared_responses
from services.reference.docstrings import view
from services.reference.operations import NEWEST, TAGS, Operation, operations
from services.reference.others import PATHS, SCHEMAS
from services.reference.schemas import Schemas

SECURITY: Final[dict[Access, list[dict[str, list[str]]]]] = {
    Access.ANYONE: [{}, {"bearer": []}, {"internal": []}],
    Access.SELF_OR_INTERNAL: [{"bearer": []}, {"internal": []}],
    Access.INTERNAL: [{"internal": []}],
}
ABOUT: Final = f"""\
Passwordless login, subscriptions, mail and news behind one small HTTP API.

A method is called with `POST /1/{{version}}/{{method}}`. The body is one JSON object,
{MAX_JSON_BODY_BYTES // 1024} KiB at most, in UTF-8, with no key twice in one object and no field
that the method does not name; its content type is not looked at. Whole numbers are written without a point. Times are
ISO 8601: those sent need an offset, those answered are in UTC with milliseconds. Ids are opaque texts.
The answer is JSON, or 204 where there is nothing to tell. Request line and headers have 16 KiB at most.

An error is `{{"code", "meta", "reasons"}}`. `code` is stable, and what a program should look at. After 500, 503 and 504
it is not known whether an order took effect: repeat it with the same `idempotency-key`, and wait as long as
`retry-after` says. Answers may get more fields, and methods more codes; ignore those that you don't know.
"""
SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of a user, from `authenticate_user` or a login by phone.",
    },
    "internal": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "`internal <key>`, one of `NEST_INTERNAL_KEYS`: your own back ends and operators.",
    },
}
PARAMETERS: Final = {
    "RequestId": {
        "name": "x-request-id",
        "in": "header",
        "description": "Names the request in our logs. One that is not of this form is replaced.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "IdempotencyKey": {
        "name": "idempotency-key",
        "in": "header",
        "description": "Makes repeats one call. A key belongs to caller, method and version; take 128 random bits.",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    },
    "IfNoneMatch": {
        "name": "if-none-match",
        "in": "header",
        "description": "The `etag` of an answer that you have; 304 if it is still the same.",
        "schema": {"type": "string", "maxLength": 1000},
    },
    "AcceptLanguage": {
        "name": "accept-language",
        "in": "header",
        "description": "The languages that the person reads, the dearest first.",
        "schema": {"type": "string", "maxLength": 1000},
    },
}


def document() -> dict[str, Any]:
    """The document, the same for the same code."""
    all_operations = list(operations())
    taken = [each.message for each in all_operations if each.message is not None]
    given = [view(each.promise.reply) for each in all_operations if each.promise.reply is not None]
    schemas = Schemas(taken, given)
    examples = json.loads((files("services.reference") / "examples.json").read_text("utf-8"))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in all_operations:
        paths[operation.path][operation.verb] = _Described(operation, schemas, examples).whole()
    for path, verbs in deepcopy(PATHS).items():
        paths[path].update(verbs)
    responses = shared_responses(paths)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Nest",
            "version": NEWEST,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document was read."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": dict(paths),
        "components": {
            "schemas": {**SCHEMAS, **schemas.all},
            "responses": responses,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


class _Described:
    """One operation, as the document says it."""

    def __init__(self, operation: Operation, schemas: Schemas, examples: dict[str, Any]) -> None:
        self._operation = operation
        self._schemas = schemas
        self._example = examples.get(operation.name, {})

    def whole(self) -> dict[str, Any]:
        operation = self._operation
        found: dict[str, Any] = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.promise.summary,
            "description": self._description(),
            "parameters": self._parameters(),
            "responses": self._responses(),
            "security": SECURITY[operation.who] if operation.family == "rpc" else [],
        }
        if operation.message is None:
            found["deprecated"] = True
        elif operation.verb != "get":
            found["requestBody"] = self._request_body()
        return {name: value for name, value in found.items() if value or name == "security"}

    def _description(self) -> str:
        operation = self._operation
        text = operation.promise.rest
        if operation.only_with:
            text = f"{text}\n\nThere only with `{operation.only_with}`."
        if operation.who is Access.SELF_OR_INTERNAL:
            text = f"{text}\n\nFor the user that `user_id` names, or with an internal key."
        if operation.bodiless:
            text = f"{text}\n\nA bearer may leave the body out: the user is the token's."
        return text.strip()

    def _parameters(self) -> list[dict[str, Any]]:
        operation = self._operation
        found: list[dict[str, Any]] = []
        for name in operation.in_path:
            field = {**self._fields()[name]}
            about = {"description": field.pop("description")} if "description" in field else {}
            found.append({"name": name, "in": "path", "required": True, **about, "schema": _said(field)})
        shared = ["RequestId"]
        if operation.changes:
            shared.append("IdempotencyKey")
        if operation.tagged:
            shared.append("IfNoneMatch")
        if operation.message is not None and "locales" in operation.message.model_fields and operation.family != "rpc":
            shared.append("AcceptLanguage")
        return found + [{"$ref": f"#/components/parameters/{name}"} for name in shared]

    def _fields(self) -> dict[str, Any]:
        assert self._operation.message is not None  # noqa: S101 -- only what has a message has fields in its path
        return self._schemas.fields(self._schemas.taken(self._operation.message))

    def _request_body(self) -> dict[str, Any]:
        assert self._operation.message is not None  # noqa: S101 -- as above
        schema = self._schemas.taken(self._operation.message)
        if self._operation.in_path:
            # What stands in the path may not stand in the body as well.
            whole = self._schemas.all[schema["$ref"].rpartition("/")[2]]
            schema = {
                **whole,
                "properties": {
                    name: field for name, field in whole["properties"].items() if name not in self._operation.in_path
                },
                "required": [name for name in whole.get("required", []) if name not in self._operation.in_path],
            }
        content: dict[str, Any] = {"schema": schema}
        if "request" in self._example:
            content["example"] = self._example["request"]
        return {"required": not self._operation.bodiless, "content": {JSON: content}}

    def _responses(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        operation = self._operation
        if operation.message is not None:
            found[str(operation.status if operation.promise.reply else 204)] = self._answer()
        if operation.tagged:
            found["304"] = {
                "description": "What you have is still the same.",
                "headers": headers({"etag": "ETag"}),
            }
        found.update(
            refusals(
                operation.service,
                operation.refused_by_gateway,
                own=operation.promise.refused,
                repeatable=operation.changes,
                not_let_in=operation.family == "accounts",
            )
        )
        return dict(sorted(found.items()))

    def _answer(self) -> dict[str, Any]:
        operation = self._operation
        said = operation.promise
        more = {"idempotent-replayed": "Replayed"} if operation.changes else {}
        if operation.tagged:
            more = {**more, "etag": "ETag"}
        note = f"{said.note[:1].upper()}{said.note[1:]}." if said.note else "Done."
        answer: dict[str, Any] = {"description": note, "headers": headers(more)}
        if said.reply is None:
            return answer
        schema = self._schemas.given(view(said.reply))
        if operation.plain is not None:
            field = self._schemas.fields(schema)[operation.plain]
            answer["content"] = {"text/plain": {"schema": field}}
            answer["description"] = field.get("description", note)
        else:
            answer["content"] = {JSON: {"schema": schema}}
        if "answer" in self._example:
            (content,) = answer["content"].values()
            content["example"] = self._example["answer"]
        return answer


def _said(schema: dict[str, Any]) -> dict[str, Any]:
    """A text that stands in a path has one character at least, and no null."""
    return {"minLength": 1, **schema} if schema.get("type") == "string" else schema
