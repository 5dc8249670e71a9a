"""Every environment variable of Nest, from the settings classes and the options of `nest`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import EmailStr, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.auth.rate_limits.models import Limit
from services.auth.settings import AuthSettings
from services.billing.settings import BillingSettings
from services.embedded.settings import EmbeddedSettings
from services.gateway.settings import GatewaySettings
from services.mailer.settings import MailerSettings
from services.news.settings import NewsSettings
from services.operator.settings import AccessSettings, DatabaseSettings, OperatorSettings
from shared.settings import BusSettings
from shared.variables import Unit, VariableSettings, is_secret

SERVICES: Final[Mapping[str, type[BusSettings]]] = {
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "billing": BillingSettings,
    "mailer": MailerSettings,
    "news": NewsSettings,
}
COMMANDS: Final[Sequence[type[VariableSettings]]] = (AccessSettings, OperatorSettings, DatabaseSettings)
"""Settings of the commands of `nest` for operators."""
EMBEDDED: Final = EmbeddedSettings
UNITS: Final = {
    **dict.fromkeys(("seconds", "minutes", "hours", "days", "months", "megabytes", "port", "timeout")),
    "timeout": "seconds",
}
"""Last words of names that are units."""
TYPES: Final = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    timedelta: "duration",
    tuple: "list",
    dict: "list of pairs",
    Limit: "rate limits",
    SecretStr: "secret",
    EmailStr: "mail address",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as the page and the example show it.

    Attributes:
        name: ``NEST_PORT``.
        type: type of its value.
        limits: unit and bounds.
        default: as an operator would write it; None if it must be set.
        meaning: docstring of the setting as Markdown, in one line.
        section: heading below that of its group.
        secret: whether it is a secret, so that a file may hold it.
        readers: services that read it, or all processes.
        required_by: readers that do not start without it.
        examples: values that show its form.
    """

    name: str
    type: str
    limits: str
    default: str | None
    meaning: str
    section: str
    secret: bool
    readers: tuple[str, ...]
    required_by: tuple[str, ...]
    examples: tuple[str, ...]


def service_variables() -> list[Variable]:
    """Return every variable of the services once, in the order of their classes."""
    readers: dict[str, list[str]] = {}
    for service, kind in SERVICES.items():
        for field in kind.model_fields:
            readers.setdefault(field, []).append(service)
    found = []
    for field, names in readers.items():
        kind = SERVICES[names[0]]
        required = [name for name in names if SERVICES[name].model_fields[field].is_required()]
        found.append(variable(kind, field, readers=names, required_by=required))
    return found


def variable(
    kind: type[VariableSettings], field: str, *, readers: Sequence[str] = (), required_by: Sequence[str] = ()
) -> Variable:
    """Return the variable of a setting of one class."""
    info = kind.model_fields[field]
    return Variable(
        name=kind.variable(field),
        type=type_of(info.annotation),
        limits=", ".join(limits_of(field, info)),
        default=None if info.is_required() else written(info.get_default(call_default_factory=True)),
        meaning=as_markdown(docstrings(kind)[field]),
        section=sections(kind).get(field, ""),
        secret=kind.secret(field),
        readers=tuple(readers),
        required_by=tuple(required_by),
        examples=tuple(map(str, info.examples or ())),
    )


def sections(kind: type[VariableSettings]) -> dict[str, str]:
    """Return the heading of each setting of a class that has one."""
    first: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        first.update(each.__dict__.get("SECTIONS", {}))
    found, heading = {}, ""
    for field in kind.model_fields:
        heading = first.get(field, heading)
        found[field] = heading
    return found


def docstrings(kind: type[VariableSettings]) -> dict[str, str]:
    """Return the docstrings below the settings of a class and its bases, each as one line."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, VariableSettings):
            found |= _own_docstrings(each)
    return found


@cache
def _own_docstrings(kind: type) -> dict[str, str]:
    body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown of a page in ``docs``: links to documents, and names of settings as variables."""
    linked = re.sub(r"\(docs/([\w-]+\.md#[\w-]+)\)", r"([more](\1))", docstring)
    names = {field: kind.variable(field) for kind in SERVICES.values() for field in kind.model_fields}
    return re.sub(r"``([^`]+)``", lambda code: f"`{names.get(code[1], code[1])}`", linked)


def type_of(annotation: Any) -> str:
    """Return the type of a setting in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if is_secret(annotation) and origin is tuple:
        return "secrets"
    if origin is not None and not isinstance(origin, type):  # Annotated and unions of typing
        return type_of(arguments[0])
    if origin is None and not isinstance(annotation, type):
        arguments = tuple(each for each in arguments if each is not type(None))
        return type_of(arguments[0]) if arguments else str(annotation)
    kind: Any = origin or annotation
    if arguments and kind not in (tuple, dict):
        return type_of(next(each for each in arguments if each is not type(None)))
    if issubclass(kind, Path):
        return "path"
    return next(name for known, name in TYPES.items() if kind is known or issubclass(kind, known))


def limits_of(field: str, info: FieldInfo) -> Iterator[str]:
    """Return the unit of a number, and the bounds of any value, in words."""
    metadata = list(_metadata(info.annotation)) + info.metadata
    unit = next((each.name for each in metadata if isinstance(each, Unit)), None) or unit_of(field)
    if unit and _is_number(info.annotation):
        yield unit
    yield from _range(metadata, (Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt"), of="")
    what = "entry/entries" if get_origin(info.annotation) in (tuple, dict) else "character/characters"
    yield from _range(metadata, (MinLen, "min_length"), None, (MaxLen, "max_length"), None, of=what)
    for each in metadata:
        if pattern := getattr(each, "pattern", None):
            yield f"matches `{pattern}`"


def _range(metadata: Sequence[Any], *bounds: tuple[type, str] | None, of: str) -> Iterator[str]:
    """Return the range of a value, or of its length: at least, more than, at most, less than."""
    least, more, most, less = (
        next((written(getattr(each, bound[1])) for each in metadata if isinstance(each, bound[0])), None)
        if bound
        else None
        for bound in bounds
    )
    if least is not None and most is not None:
        yield _counted(f"{least} to {most}", of)
        return
    words = {"at least": least, "more than": more, "at most": most, "less than": less}
    yield from (f"{word} {_counted(value, of)}" for word, value in words.items() if value is not None)


def _counted(number: str, of: str) -> str:
    """Return a number with its noun, ``singular/plural``, or alone."""
    singular, _, plural = of.partition("/")
    return f"{number} {singular if number == '1' else plural}".rstrip()


def unit_of(field: str) -> str | None:
    """Return the unit that a setting's name ends with."""
    word = field.rpartition("_")[2]
    return UNITS[word] or word if word in UNITS else None


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_is_number, get_args(annotation)))


def _metadata(annotation: Any) -> Iterator[Any]:
    for each in getattr(annotation, "__metadata__", ()):
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)
    for each in get_args(annotation):
        yield from _metadata(each)


def written(value: Any) -> str:
    """Return a value as an operator would write it."""
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"P{value.days}D" if value == timedelta(days=value.days) else f"PT{value.total_seconds():g}S"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | dict):
        return ",".join(map(str, value))
    return str(value)
