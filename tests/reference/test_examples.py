from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

import pytest

from services.gateway.requests import validated
from services.reference.docstrings import view
from services.reference.operations import Operation, operations
from tests.stack import Stack

EXAMPLES: Final[dict[str, Any]] = json.loads((files("services.reference") / "examples.json").read_text("utf-8"))
USER: Final = "user_000000C2kg4d9HyP1Bg09HBF4Bm40"
WORK_AS_THEY_STAND: Final = (
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
"""The others need a code, a key or a subscription that a page can't know, or a caller of their own."""
NEWEST: Final = {operation.name: operation for operation in reversed(list(operations()))}


def exemplified() -> list[Operation]:
    return [operation for operation in operations() if operation.name in EXAMPLES]


def test_every_example_is_of_something_that_there_is() -> None:
    assert set(EXAMPLES) <= set(NEWEST)
    assert set(WORK_AS_THEY_STAND) <= set(EXAMPLES)


@pytest.mark.parametrize("operation", exemplified(), ids=lambda operation: operation.id)
def test_an_example_fits(operation: Operation) -> None:
    example = EXAMPLES[operation.name]
    assert operation.message is not None
    validated(operation.message, {**example["request"], **dict.fromkeys(operation.in_path, "a text")})
    if "answer" in example:
        answer = {operation.plain: example["answer"]} if operation.plain else example["answer"]
        assert operation.promise.reply is not None
        view(operation.promise.reply).model_validate_json(json.dumps(answer), extra="forbid")


async def test_examples_work_as_they_stand(nest: Stack) -> None:
    user_id = (await nest.log_in("ada@example.com"))["user_id"]
    for name in WORK_AS_THEY_STAND:
        operation = NEWEST[name]
        body = json.dumps(EXAMPLES[name]["request"]).replace(USER, user_id)
        answer = await nest.http.request(operation.verb, operation.path, content=body, headers=nest.internal)
        assert answer.status_code == (operation.status if operation.promise.reply else 204), (name, answer.text)
