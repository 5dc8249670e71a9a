"""Query injection: values from requests never become part of a MongoDB query."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.abuse.calls import Operation, operations, replaced, string_fields
from tests.abuse.conftest import SERVICES, Target

MARKER = "m4rk3d"
OBJECTS: tuple[Any, ...] = (
    {"$gt": MARKER},
    {"$ne": MARKER},
    {"$where": f"'{MARKER}'"},
    {"$regex": f"{MARKER}|.*"},
    {"$expr": {"$function": {"body": MARKER, "args": [], "lang": "js"}}},
    {"a.b": MARKER},
    {"__proto__": {"admin": MARKER}},
    [{"$gt": MARKER}],
)
"""Query conditions in place of a string."""
STRINGS = (
    f'{{"$gt": "{MARKER}"}}',
    f"$where{MARKER}",
    "$ne",
    f"{MARKER}.a.b",
    "__proto__",
    f"'; return '{MARKER}' == '{MARKER}",
    f"{MARKER}\u0000$gt",
)
"""Strings that would be harmful in a query built from text."""
OPERATORS = {"$gt", "$ne", "$where", "$regex", "$expr", "$function", "a.b", "__proto__"}
OPERATORS_OF_NEST = {"$gt"}
"""Used by Nest itself, in the filters of its indexes."""


@pytest.fixture(scope="module")
async def profiled(target: Target) -> AsyncIterator[Target]:
    """The target, with MongoDB's profiler recording every command."""
    databases = [target.database(service) for service in SERVICES if service != "gateway"]
    for database in databases:
        database.create_collection("system.profile", capped=True, size=128 << 20)
        database.command("profile", 2)
    yield target
    for database in databases:
        database.command("profile", 0)
        database.drop_collection("system.profile")


def profiled_commands(target: Target) -> list[dict[str, Any]]:
    """Every command that MongoDB has executed since the profiler started."""
    commands: list[dict[str, Any]] = []
    for service in SERVICES:
        if service != "gateway":
            rows = target.database(service)["system.profile"].find({"command": {"$exists": True}})
            commands += [row["command"] for row in rows]
    return commands


def field_names(value: Any) -> Iterator[str]:
    """Names of all fields, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from field_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from field_names(inner)


async def send(target: Target, calls: list[tuple[Operation, dict[str, Any]]]) -> list[tuple[Operation, httpx.Response]]:
    """Send all calls with the internal key, so that access control does not stop them.

    Calls of one operation are sequential: many hash a password and would only compete.
    """

    async def send_all_of(operation: Operation) -> list[tuple[Operation, httpx.Response]]:
        responses = []
        for fields in (fields for each, fields in calls if each == operation):
            path, body = operation.request(fields)
            headers = target.nest.internal if path.startswith("/1/") else {}
            response = await target.nest.http.request(operation.verb, path, content=body, headers=headers)
            responses.append((operation, response))
        return responses

    groups = await asyncio.gather(*(send_all_of(operation) for operation in {operation for operation, _ in calls}))
    return [each for group in groups for each in group]


async def test_query_operator_in_place_of_a_string_is_refused_by_the_gateway(profiled: Target) -> None:
    calls = [
        (operation, replaced(operation.sample(), path, value))
        for operation in operations()
        for path in string_fields(operation.message)
        # The payload of a news item of an unknown kind is any JSON: only its app reads it.
        if path[0] not in operation.path_fields and "payload" not in path
        for value in OBJECTS
    ]
    assert len(calls) > 1000

    for operation, response in await send(profiled, calls):
        assert 400 <= response.status_code < 500, (str(operation), response.status_code, response.text)
        assert MARKER not in response.text

    assert not [record.value for record in await profiled.records() if MARKER.encode() in (record.value or b"")]
    assert MARKER not in json.dumps(profiled_commands(profiled), default=str)


@pytest.mark.parametrize(
    "strings", [STRINGS[:2], pytest.param(STRINGS[2:], marks=pytest.mark.slow)], ids=["two", "others"]
)
async def test_query_operator_in_a_string_stays_a_string(profiled: Target, strings: tuple[str, ...]) -> None:
    calls = [
        (operation, replaced(operation.sample(), path, text))
        for operation in operations()
        for path in string_fields(operation.message)
        for text in strings
    ]

    responses = await send(profiled, calls)

    failed = [(str(operation), each.status_code, each.text) for operation, each in responses if each.status_code >= 500]
    assert not failed
    commands = profiled_commands(profiled)
    assert any(MARKER in json.dumps(command, default=str) for command in commands), "no string reached MongoDB"
    for command in commands:
        names = set(field_names(command))
        assert not names & (OPERATORS - OPERATORS_OF_NEST), command
        assert not [name for name in names if MARKER in name], command


async def test_unknown_field_names_are_refused(target: Target) -> None:
    for operation in operations():
        if operation.verb == "GET":
            continue
        for name in ("$where", "a.b", "__proto__", "_id", "key", "id.$gt"):
            sample = operation.sample()
            path, _ = operation.request(sample)
            body = {field: value for field, value in sample.items() if field not in operation.path_fields}
            response = await target.nest.http.request(
                operation.verb, path, content=json.dumps({**body, name: MARKER}), headers=target.nest.internal
            )
            assert response.status_code in (400, 422), (str(operation), name, response.status_code, response.text)
