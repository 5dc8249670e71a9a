"""Texts without end, and responses that repeat them: both are refused, whatever the field."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.abuse.calls import Operation, operations, replaced, string_fields
from tests.abuse.conftest import Target

MARKER = "b0und5ecret"
PREFERENCES = {"locale", "app_version"}
"""Fields that never refuse a call: what cannot be read counts as not given."""


def calls(text: str) -> list[tuple[Operation, str, dict[str, Any]]]:
    """A call of every operation for each of its texts, with this text there."""
    return [
        (operation, ".".join(path), replaced(operation.sample(), path, text))
        for operation in operations()
        for path in string_fields(operation.message)
        if not PREFERENCES & {*path}
    ]


async def send(
    target: Target, sent: list[tuple[Operation, str, dict[str, Any]]], *, internal: bool = True
) -> list[tuple[str, httpx.Response]]:
    """Send calls, and return the responses with the names of operation and field."""
    ready = asyncio.Semaphore(16)

    async def one(operation: Operation, field: str, fields: dict[str, Any]) -> tuple[str, httpx.Response]:
        path, body = operation.request(fields)
        headers = target.nest.internal if internal and path.startswith("/1/") else {}
        async with ready:
            response = await target.nest.http.request(operation.verb, path, content=body, headers=headers)
        return f"{operation} {field}", response

    return await asyncio.gather(*(one(*each) for each in sent))


async def calls_on_kafka(target: Target) -> int:
    """Number of records whose sender waits for a reply; services send others by themselves."""
    return sum(any(name == "reply-to" for name, _ in record.headers) for record in await target.records())


async def test_text_over_the_maximum_of_its_field_reaches_no_service(target: Target) -> None:
    long = [
        # A path has 16 KiB at most.
        (
            operation,
            field,
            replaced(fields, tuple(field.split(".")), "m" * (6_000 if operation.path_fields else 60_000)),
        )
        for operation, field, fields in calls("")
        if "payload" not in field
    ]
    assert len(long) > 100
    before = await calls_on_kafka(target)
    for name, response in await send(target, long):
        assert response.status_code in (400, 422), (name, response.status_code, response.text)
        assert "m" * 40 not in response.text, name
    assert await calls_on_kafka(target) == before


async def test_refusals_repeat_no_text_of_the_client(target: Target) -> None:
    shapes: list[Any] = [[MARKER], {MARKER + "$": MARKER}, {"code": MARKER, "type": MARKER, "kind": MARKER}]
    wrong = [
        (operation, name, {**operation.sample(), name: shapes[number % len(shapes)]})
        for operation in operations()
        for number, name in enumerate((*operation.message.model_fields, f"{MARKER} {MARKER}"))
        if name not in operation.path_fields
    ]
    # Without the internal key first: with it a client gets the marker as its ID, which later entries may name.
    strangers = await send(target, calls(MARKER), internal=False)
    check_rows(target)
    refusals = [
        (name, response)
        for name, response in [*strangers, *await send(target, [*calls(MARKER), *wrong])]
        if response.status_code >= 400
    ]
    assert len(refusals) > 300
    for name, response in refusals:
        assert response.status_code < 500, (name, response.text)
        assert MARKER not in response.text, (name, response.text)
        assert MARKER not in str(response.headers), name


def check_rows(target: Target) -> None:
    """Assert that no refusal has left the marker in a row."""
    for name, documents in target.documents().items():
        if name.endswith(".audit"):
            assert [each for each in documents if MARKER in json.dumps(each, default=str)] == []
        if name.endswith(".inbox"):
            rows = [{**each, "messages": len(each["messages"])} for each in documents if each["kind"] != "done"]
            assert [each for each in rows if MARKER in json.dumps(each, default=str)] == []
