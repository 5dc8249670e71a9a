"""Every text and every list in a message has a maximum length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from services.gateway.accounts import OLD_CLIENT_ROUTES
from services.gateway.accounts import ROUTES as ACCOUNT_ROUTES
from services.gateway.methods import PATHS
from services.gateway.phone import ROUTES as PHONE_ROUTES
from services.gateway.phone import TEST_LOGIN
from shared.messages import MESSAGES, Message
from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES
from shared.messages.types import MAX_CIPHERTEXT, MAX_TEXT, MaxPlain

FROM_CLIENTS = {
    *(method.message for method in PATHS.values() if method.message is not None),
    *(route.message for route in (*ACCOUNT_ROUTES, *OLD_CLIENT_ROUTES, *PHONE_ROUTES, TEST_LOGIN)),
}
NESTED = ("schema", "items_schema", "keys_schema", "values_schema", "json_schema", "python_schema", "choices", "steps")
UNTYPED = (".payload", ".services", ".event.data")
"""Fields with any JSON: the payload of a news item, which the limit of a request's body bounds, exported rows, and the
data of an outgoing webhook, which a service makes of its own views."""


def unbounded(model: type[BaseModel], *, default: int | None) -> set[str]:
    """Paths of texts and lists without a maximum length; ``default`` is the model's own maximum for texts."""
    model.model_rebuild()
    schemas = [(model.__name__, model.__pydantic_core_schema__)]
    known: dict[str, Any] = {}
    found = set()
    for path, schema in schemas:
        # A definition is resolved once; JSON values refer to themselves.
        if schema["type"] == "definition-ref":
            schema = known.pop(schema["schema_ref"], {"type": "seen"})  # noqa: PLW2901
        known |= {each["ref"]: each for each in schema.get("definitions", ())}
        if problem := _problem(schema, default, untyped=path.endswith(UNTYPED)):
            found.add(f"{path}: {problem}")
        if not _is_limited_secret(schema):
            schemas += _inner(path, schema)
    return found


def _problem(schema: Any, default: int | None, *, untyped: bool) -> str | None:
    match schema["type"]:
        case "any":
            return None if untyped else "anything"
        case "str":
            maximum = schema.get("max_length", default)
            # A secret from a client needs a limit of its plain text.
            loose = maximum is None or (default is None and maximum == MAX_CIPHERTEXT)
            return "text" if loose and not untyped else None
        case "list" | "tuple" | "dict" | "set" | "frozenset" | "bytes" as kind:
            fixed = kind == "tuple" and "variadic_item_index" not in schema
            return None if (untyped and "ref" not in schema) or fixed or "max_length" in schema else kind
    return None


def _is_limited_secret(schema: Any) -> bool:
    function = schema.get("function")
    return isinstance(function, dict) and isinstance(getattr(function["function"], "__self__", None), MaxPlain)


def _inner(path: str, schema: Any) -> Iterator[tuple[str, Any]]:
    if schema["type"] == "model-fields":
        yield from ((f"{path}.{name}", field["schema"]) for name, field in schema["fields"].items())
    for name in NESTED:
        nested = schema.get(name, ())
        for each in nested.values() if name == "choices" and isinstance(nested, dict) else _as_list(nested):
            yield path, each[0] if isinstance(each, tuple) else each


def _as_list(nested: Any) -> Any:
    return [nested] if isinstance(nested, dict) else nested


@pytest.mark.parametrize("message", sorted(FROM_CLIENTS, key=lambda each: each.wire), ids=lambda each: each.wire)
def test_every_text_and_list_from_clients_has_a_maximum_of_its_own(message: type[Message]) -> None:
    assert unbounded(message, default=None) == set()


@pytest.mark.parametrize("message", sorted(MESSAGES.values(), key=lambda each: each.wire), ids=lambda each: each.wire)
def test_every_text_and_list_of_a_message_and_its_reply_has_a_maximum(message: type[Message]) -> None:
    for model in (message, message.reply):
        if model is not None:
            # A root model contains only a list of parts.
            assert unbounded(model, default=model.model_config.get("str_max_length", MAX_TEXT)) == set()
            assert model.model_config.get("str_max_length") == MAX_TEXT or "root" in model.model_fields


# A dictionary keeps the order, which has to be the same in every test process.
@pytest.mark.parametrize(
    "model", dict.fromkeys((*VARIABLES.values(), *TEXT_VARIABLES.values())), ids=lambda each: each.__name__
)
def test_every_variable_of_a_template_has_a_maximum(model: type[BaseModel]) -> None:
    assert unbounded(model, default=model.model_config["str_max_length"]) == set()


def test_a_text_a_secret_and_a_list_without_a_maximum_are_found() -> None:
    class Loose(BaseModel):
        text: str | None
        texts: dict[str, list[tuple[str, ...]]]
        anything: Any

    assert unbounded(Loose, default=None) == {
        "Loose.text: text",
        "Loose.texts: dict",
        "Loose.texts: list",
        "Loose.texts: text",
        "Loose.texts: tuple",
        "Loose.anything: anything",
    }
