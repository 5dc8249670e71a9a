"""Operations of the HTTP API, from the gateway's tables, with valid requests for each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import quote

from pydantic import BaseModel

from services.gateway import accounts, phone
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS, PATHS
from shared.messages import Command, Query, Sealed

SAMPLES = Path(__file__).parent.parent / "shared" / "samples"
_FIELD = re.compile(r"{(\w+)}")
FieldPath = tuple[str, ...]
"""Names from the outer object to a field: ``("device", "beak_id")``."""


@dataclass(frozen=True)
class Operation:
    """An RPC method or route.

    Attributes:
        verb: HTTP method.
        path: fields of the path are in braces.
        message: class of the command or query.
        access: who may call it; ANYONE for routes that ignore the ``authorization`` header.
    """

    verb: str
    path: str
    message: type[Command | Query]
    access: Access = Access.ANYONE

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"

    @property
    def path_fields(self) -> list[str]:
        return _FIELD.findall(self.path)

    def sample(self) -> dict[str, Any]:
        """A valid object with every field, from the samples of published messages."""
        sample: dict[str, Any] = json.loads((SAMPLES / f"{self.message.wire}.json").read_text())
        return {name: value for name, value in sample.items() if name in self.message.model_fields}

    def request(self, fields: dict[str, Any]) -> tuple[str, bytes | None]:
        """Path and body of a request with these fields. Values in the path are percent-encoded."""
        path = self.path
        for name in self.path_fields:
            path = path.replace(f"{{{name}}}", quote(str(fields[name]), safe=""))
        body = {name: value for name, value in fields.items() if name not in self.path_fields}
        return path, None if self.verb == "GET" else json.dumps(body).encode()


def operations() -> list[Operation]:
    """All operations that become messages."""
    rpc = [Operation("POST", path, method.message, method.access) for path, method in PATHS.items() if method.message]
    routes = (*accounts.ROUTES, *accounts.OLD_CLIENT_ROUTES, *phone.ROUTES, phone.TEST_LOGIN)
    assert len(rpc) + sum(m.message is None for v in METHODS.values() for m in v.values()) == len(PATHS)
    return rpc + [Operation(route.verb, route.path, route.message) for route in routes]


def string_fields(model: type[BaseModel], parent: FieldPath = ()) -> Iterator[FieldPath]:
    """Paths of all string fields of a message, nested ones included."""
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        for member in _members(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from string_fields(member, (*parent, name))
            elif member in (str, Sealed):
                yield (*parent, name)


def _members(annotation: Any) -> Iterator[Any]:
    """Classes in an annotation: members of unions, items of lists."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) is Literal:
        yield type(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, tuple, list):
        for part in get_args(annotation):
            yield from _members(part)
    else:
        yield annotation


def replaced(fields: dict[str, Any], path: FieldPath, value: Any) -> dict[str, Any]:
    """The object with another value in one field. Missing or null objects on the way are created."""
    first, *rest = path
    if not rest:
        return {**fields, first: value}
    inner = fields.get(first)
    if isinstance(inner, list):
        return {**fields, first: [replaced(each, tuple(rest), value) for each in inner] or [{rest[-1]: value}]}
    return {**fields, first: replaced(inner or {}, tuple(rest), value)}
