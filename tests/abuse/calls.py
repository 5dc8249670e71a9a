"""Every way in: RPC methods and other routes, from the gateway's own tables, each with a body of the right shape."""

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
_IN_PATH = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Way:
    """A way in.

    Attributes:
        verb: HTTP's.
        path: with the fields in braces that stand in it.
        message: what a call becomes.
        who: who may use it; ANYONE for routes that look at no ``authorization`` header.
    """

    verb: str
    path: str
    message: type[Command | Query]
    who: Access = Access.ANYONE

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"

    @property
    def in_path(self) -> list[str]:
        """The fields that stand in the path."""
        return _IN_PATH.findall(self.path)

    def sample(self) -> dict[str, Any]:
        """Every field with a value of its type, as once published."""
        whole: dict[str, Any] = json.loads((SAMPLES / f"{self.message.wire}.json").read_text())
        return {name: value for name, value in whole.items() if name in self.message.model_fields}

    def request(self, fields: dict[str, Any]) -> tuple[str, bytes | None]:
        """Path and body of a call; fields in the path are encoded, whatever they hold."""
        path = self.path
        for name in self.in_path:
            path = path.replace(f"{{{name}}}", quote(str(fields[name]), safe=""))
        rest = {name: value for name, value in fields.items() if name not in self.in_path}
        # Where all fields stand in the path nothing else is read.
        return path, None if self.verb == "GET" else json.dumps(rest).encode()


def ways() -> list[Way]:
    """All of them."""
    rpc = [Way("POST", path, method.message, method.access) for path, method in PATHS.items() if method.message]
    routes = (*accounts.ROUTES, *accounts.OLD_CLIENT_ROUTES, *phone.ROUTES, phone.TEST_LOGIN)
    assert len(rpc) + sum(m.message is None for v in METHODS.values() for m in v.values()) == len(PATHS)
    return rpc + [Way(route.verb, route.path, route.message) for route in routes]


def texts(kind: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of all fields that hold a text, those of parts included: ``("device", "beak_id")``."""
    for name, field in kind.model_fields.items():
        if field.exclude:
            continue
        for held in _held(field.annotation):
            if isinstance(held, type) and issubclass(held, BaseModel):
                yield from texts(held, (*at, name))
            elif held in (str, Sealed):
                yield (*at, name)


def _held(annotation: Any) -> Iterator[Any]:
    """What a type is made of, without options and lists."""
    if get_origin(annotation) is Annotated:
        yield from _held(get_args(annotation)[0])
    elif get_origin(annotation) is Literal:
        yield type(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, tuple, list):
        for part in get_args(annotation):
            yield from _held(part)
    else:
        yield annotation


def replaced(fields: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The same with another value in one place; parts that are missing or null are made."""
    first, *rest = place
    if not rest:
        return {**fields, first: value}
    inner = fields.get(first)
    if isinstance(inner, list):
        return {**fields, first: [replaced(each, tuple(rest), value) for each in inner] or [{rest[-1]: value}]}
    return {**fields, first: replaced(inner or {}, tuple(rest), value)}
