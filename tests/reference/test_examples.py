"""The examples of the reference: they are valid, and those without secrets work against a running Nest."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

import pytest

from services.gateway.requests import validated
from services.reference.operations import Operation, operations
from tests.stack import Stack

EXAMPLES: Final[dict[str, Any]] = json.loads((files("services.reference") / "examples.json").read_text("utf-8"))
USER: Final = "user_000000C2kg4d9HyP1Bg09HBF4Bm40"
RUNNABLE: Final = (
    "send_magic_link",
    "create_trial_and_magic_link",
    "get_user",
    "set_marketing_consent",
    "get_marketing_consent",
    "list_sessions",
    "list_news_items",
    "dismiss_news_item",
    "find_user",
    "create_client",
    "create_news_item",
    "init",
    "appowner/create",
)
"""Operations whose examples work, in an order that works. Others need a code, a key or a subscription."""
OWN: Final = {"ada@": "ada.example@", "grace@": "grace.example@", "beak-7f3a": "beak-example", "3b1c": "example"}
"""Replacements of addresses and device IDs: the conformance tests, on the same Nest, use those of the examples."""
NEWEST: Final = {operation.name: operation for operation in reversed(list(operations()))}
WITH_EXAMPLE: Final = [operation for operation in operations() if operation.name in EXAMPLES]


def test_every_example_belongs_to_an_operation() -> None:
    assert set(EXAMPLES) <= set(NEWEST)
    assert set(RUNNABLE) <= set(EXAMPLES)


@pytest.mark.parametrize("operation", WITH_EXAMPLE, ids=lambda operation: operation.id)
def test_example_is_valid(operation: Operation) -> None:
    example = EXAMPLES[operation.name]
    assert operation.message is not None
    validated(operation.message, {**example["request"], **dict.fromkeys(operation.path_fields, "a text")})
    if "response" in example:
        text_field = operation.text_field
        response = {text_field: example["response"]} if text_field else example["response"]
        assert operation.reply is not None
        operation.reply.model_validate_json(json.dumps(response), extra="forbid")


async def test_runnable_examples_work(nest: Stack) -> None:
    user_id = (await nest.log_in("ada.example@example.com"))["user_id"]
    for name in RUNNABLE:
        operation = NEWEST[name]
        body = json.dumps(EXAMPLES[name]["request"])
        for example, own in {USER: user_id, **OWN}.items():
            body = body.replace(example, own)
        response = await nest.http.request(operation.verb, operation.path, content=body, headers=nest.internal)
        assert response.status_code == (operation.status if operation.reply else 204), (name, response.text)
