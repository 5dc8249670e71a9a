"""What does a docstring promise? A message's: what it does, what answers, and what refuses it. A field's: what it is.

They are read from the source, since Python keeps no docstring of a field.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel

from shared import messages
from shared.messages import Message

EVERYWHERE: Final = frozenset({"NonEmpty", "Moment"})
"""Types whose docstrings say nothing of the one field that has them."""
_KEY: Final = re.compile(r"``key`` is [^.]*\.(?:\s+|$)")
"""Of the bus; no client sees it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a message's docstring says.

    Attributes:
        text: what it does, in Markdown; the first sentence is a summary.
        reply: the name of the view that answers; None where there is no body.
        note: what is said of the answer, beside its name.
        refused: the codes of what may be said instead.
    """

    text: str
    reply: str | None
    note: str
    refused: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first sentence, without its point."""
        return re.split(r"\.(?:\s|$)", self.text, maxsplit=1)[0]

    @property
    def rest(self) -> str:
        """What follows the summary."""
        return self.text[len(self.summary) + 1 :].strip()


@cache
def promise(message: type[Message]) -> Promise:
    """What the docstring of a message says.

    Raises:
        ValueError: it says nothing of what the message does.
    """
    text = _KEY.sub("", inspect.cleandoc(message.__doc__ or ""))
    if not text.strip():
        raise ValueError(f"{message.__name__} does not say what it does")
    reply = message.reply.__name__ if message.reply else None
    return Promise(markdown(text), reply, "", tuple(refusal.code for refusal in message.refuses))


def view(name: str) -> type[BaseModel]:
    """The view of that name.

    Raises:
        KeyError: there is none.
    """
    return _models()[name]


@cache
def of_fields(model: type[BaseModel]) -> dict[str, str]:
    """What the source says under each field of a model, those that it inherits included; in Markdown."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.startswith(("shared.messages.", "services.")):
            found.update(_under_fields(kind))
    return found


def markdown(text: str) -> str:
    """A docstring's text, as Markdown has it: paragraphs on a line each."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return re.sub(r"\bNone\b", "null", joined.replace("``", "`"))


@cache
def _models() -> dict[str, type[BaseModel]]:
    """The models of all contracts, by name."""
    return {
        name: value
        for module in _modules()
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel)
    }


@cache
def _modules() -> tuple[Any, ...]:
    found = pkgutil.walk_packages(messages.__path__, f"{messages.__name__}.")
    return tuple(importlib.import_module(module.name) for module in found)


def _under_fields(kind: type[Any]) -> dict[str, str]:
    (body,) = [
        node.body
        for node in ast.walk(_parsed(kind.__module__))
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    docs = _documented(body)
    typed = {
        node.target.id: name
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        for name in [_named(node.annotation)]
        if name is not None
    }
    of_types = {field: _aliases()[name] for field, name in typed.items() if name in _aliases()}
    return {**of_types, **docs}


@cache
def _aliases() -> dict[str, str]:
    """What is said of types that have names."""
    found: dict[str, str] = {}
    for module in _modules():
        found.update(_documented(_parsed(module.__name__).body))
    return {name: text for name, text in found.items() if name not in EVERYWHERE}


@cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def _documented(body: list[ast.stmt]) -> dict[str, str]:
    """The texts that follow an assignment, by what it assigns to."""
    found: dict[str, str] = {}
    for before, after in pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            target = before.target if isinstance(before, ast.AnnAssign) else None
            if isinstance(before, ast.Assign):
                target = before.targets[0]  # type: ignore[assignment]
            if isinstance(target, ast.Name):
                found[target.id] = markdown(after.value.value)
    return found


def _named(annotation: ast.expr) -> str | None:
    """``Locale`` of ``Locale`` and of ``Locale | None``."""
    if isinstance(annotation, ast.BinOp):
        annotation = annotation.left
    return annotation.id if isinstance(annotation, ast.Name) else None
