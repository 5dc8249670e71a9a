"""Nest's OpenAPI document, as the generators of the clients read it: operations, events, schemas and error codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).parents[1] / "services/gateway/openapi.json"
STATUS_NAMES: Final = {
    400: "BadRequestError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    410: "GoneError",
    413: "ContentTooLargeError",
    422: "UnprocessableContentError",
    429: "TooManyRequestsError",
    431: "HeaderFieldsTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
"""Class of the errors of each status."""
ROUTE_TAGS: Final = ("Phone login", "Accounts")
"""Tags of the routes without a version that clients get methods for."""


class Document:
    """The methods of the newest version, the routes without a version, webhook events, and the schemas they reach.

    Args:
        content: The OpenAPI document, parsed. Default: the one in the repository.

    Attributes:
        events: Schema of the body of each webhook event, by the event's type.
    """

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        self.content = content or json.loads(PATH.read_text("utf-8"))
        self.version: str = self.content["info"]["version"]
        self.schemas: dict[str, dict[str, Any]] = self.content["components"]["schemas"]
        every = [
            (verb.upper(), path, about)
            for path, verbs in self.content["paths"].items()
            for verb, about in verbs.items()
        ]
        self.methods = [Operation(self, *each) for each in every if each[1].startswith(f"/1/{self.version}/")]
        self.routes = [Operation(self, *each) for each in every if each[2]["tags"][0] in ROUTE_TAGS]
        self.operations = [*self.methods, *self.routes]
        self.events: dict[str, dict[str, Any]] = {
            event_type: about["post"]["requestBody"]["content"]["application/json"]["schema"]
            for event_type, about in self.content["webhooks"].items()
        }
        self.sent = self._reached(each.request for each in self.operations)
        self.received = self._reached([*(each.response for each in self.operations), *self.events.values()])

    def follow(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return the part that a reference points to, or the part itself."""
        while "$ref" in part:
            found: Any = self.content
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            part = found
        return part

    def objects(self) -> dict[str, dict[str, Any]]:
        """Return the schemas with properties that requests, responses and events reach, in the document's order."""
        reached = self.sent | self.received
        return {name: each for name, each in self.schemas.items() if name in reached and "properties" in each}

    def codes(self) -> dict[str, tuple[int, str]]:
        """Return the status and the meaning of each error code, sorted by code."""
        codes: dict[str, tuple[int, str]] = {}
        for operation in self.operations:
            for status, answer in operation.about["responses"].items():
                if int(status) in STATUS_NAMES:
                    schema = self.follow(answer)["content"]["application/json"]["schema"]
                    code = self.follow(schema)["properties"]["code"]
                    for name, text in zip(code["enum"], code["x-enum-descriptions"], strict=True):
                        codes.setdefault(name, (int(status), text))
        return dict(sorted(codes.items()))

    def _reached(self, parts: Iterable[dict[str, Any]]) -> set[str]:
        found: set[str] = set()
        for part in parts:
            self._reach(part, found)
        return found

    def _reach(self, part: Any, found: set[str]) -> None:
        if isinstance(part, list):
            for each in part:
                self._reach(each, found)
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                self._reach(self.schemas[name], found)
            for each in part.values():
                self._reach(each, found)


class Operation:
    """A method or a route.

    Attributes:
        name: Its ID, in snake case.
        request: Schema of the body, or an empty one.
        response: Schema of the result, or an empty one.
        fields: Schemas of the parameters in the path and of the fields of the body, those required first.
        required: Names of the fields that have to be given.
        text: Whether the result is a text instead of a JSON value.
        command: Whether it takes an idempotency key.
        tagged: Whether its responses have an entity tag.
        of_user: Whether it takes the access token of the user in the required field ``user_id``.
        of_owner: Whether it takes the token of an owner of applications.
    """

    def __init__(self, document: Document, verb: str, path: str, about: dict[str, Any]) -> None:
        self.document, self.verb, self.path, self.about = document, verb, path, about
        self.name: str = about["operationId"]
        body = about.get("requestBody")
        self.request: dict[str, Any] = body["content"]["application/json"]["schema"] if body else {}
        answers = about["responses"]
        content = document.follow(answers.get("200") or answers.get("202") or {}).get("content", {})
        self.response: dict[str, Any] = next((each["schema"] for each in content.values()), {})
        self.text = "text/plain" in content
        parameters = about.get("parameters", [])
        referred = {each["$ref"].rpartition("/")[2] for each in parameters if "$ref" in each}
        self.command = "IdempotencyKey" in referred
        self.tagged = "IfNoneMatch" in referred
        in_path = {each["name"]: each for each in parameters if each.get("in") == "path"}
        schema = document.follow(self.request)
        self.required = [
            *in_path,
            *(each for each in schema.get("properties", {}) if each in schema.get("required", [])),
        ]
        fields = {name: {**each["schema"], "description": each["description"]} for name, each in in_path.items()}
        fields |= schema.get("properties", {})
        self.fields: dict[str, dict[str, Any]] = {name: fields[name] for name in self.required} | fields
        schemes = {scheme for each in about.get("security", []) for scheme in each}
        self.of_user = "bearer" in schemes and "user_id" in self.required
        self.of_owner = "owner" in schemes

    @property
    def summary(self) -> str:
        """One sentence."""
        return f"{self.about['summary'].rstrip('.')}."

    @property
    def description(self) -> str:
        """Further paragraphs, or an empty string."""
        return str(self.about.get("description", ""))


def event_name(event_type: str) -> str:
    """Return the name of an event's class: ``UserCreatedEvent`` for ``user.created``."""
    return "".join(map(str.capitalize, re.split(r"[._]", event_type))) + "Event"
