"""What a client writes is a value, never part of a question to MongoDB."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.abuse.calls import Way, replaced, texts, ways
from tests.abuse.conftest import SERVICES, Target

MARK = "m4rk3d"
OBJECTS: tuple[Any, ...] = (
    {"$gt": MARK},
    {"$ne": MARK},
    {"$where": f"'{MARK}'"},
    {"$regex": f"{MARK}|.*"},
    {"$expr": {"$function": {"body": MARK, "args": [], "lang": "js"}}},
    {"a.b": MARK},
    {"__proto__": {"admin": MARK}},
    [{"$gt": MARK}],
)
"""What a reader that takes any JSON would hand on as a condition."""
TEXTS = (
    f'{{"$gt": "{MARK}"}}',
    f"$where{MARK}",
    "$ne",
    f"{MARK}.a.b",
    "__proto__",
    f"'; return '{MARK}' == '{MARK}",
    f"{MARK}\u0000$gt",
)
"""Texts that mean something only to who builds a question from text."""
OPERATORS = {"$gt", "$ne", "$where", "$regex", "$expr", "$function", "a.b", "__proto__"}
OURS = {"$gt"}
"""Asked by Nest itself, in the filters of its indexes."""


@pytest.fixture(scope="module")
async def profiled(target: Target) -> AsyncIterator[Target]:
    """The target, every question to MongoDB written down."""
    databases = [target.database(service) for service in SERVICES if service != "gateway"]
    for database in databases:
        database.create_collection("system.profile", capped=True, size=128 << 20)
        database.command("profile", 2)
    yield target
    for database in databases:
        database.command("profile", 0)
        database.drop_collection("system.profile")


def asked(target: Target) -> list[dict[str, Any]]:
    """Every command that MongoDB was given since."""
    found: list[dict[str, Any]] = []
    for service in SERVICES:
        if service != "gateway":
            found += target.database(service)["system.profile"].find({"command": {"$exists": True}})
    return found


def keys(value: Any) -> Iterator[str]:
    """The names of all fields, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


async def send(target: Target, calls: list[tuple[Way, dict[str, Any]]]) -> list[tuple[Way, httpx.Response]]:
    """All of these calls, as an operator, so that nothing stops them before they are read.

    Those of one way come one after the other: many hash a password, and would only wait for each other.
    """

    async def one_after_the_other(way: Way) -> list[tuple[Way, httpx.Response]]:
        answers = []
        for fields in (fields for called, fields in calls if called == way):
            path, body = way.request(fields)
            headers = target.nest.internal if path.startswith("/1/") else {}
            answers.append((way, await target.nest.http.request(way.verb, path, content=body, headers=headers)))
        return answers

    each = await asyncio.gather(*(one_after_the_other(way) for way in {way for way, _ in calls}))
    return [answer for answers in each for answer in answers]


async def test_an_operator_in_place_of_a_text_is_refused_and_goes_nowhere(profiled: Target) -> None:
    calls = [
        (way, replaced(way.sample(), place, value))
        for way in ways()
        for place in texts(way.message)
        # What a news item of another kind holds is for its app alone to read: any JSON, kept as it is.
        if place[0] not in way.in_path and "payload" not in place
        for value in OBJECTS
    ]
    assert len(calls) > 1000

    for way, answer in await send(profiled, calls):
        assert 400 <= answer.status_code < 500, (str(way), answer.status_code, answer.text)
        assert MARK not in answer.text

    assert not [record.value for record in await profiled.records() if MARK.encode() in (record.value or b"")]
    assert MARK not in json.dumps(asked(profiled), default=str)


async def test_an_operator_written_as_a_text_is_a_text(profiled: Target) -> None:
    calls = [
        (way, replaced(way.sample(), place, text)) for way in ways() for place in texts(way.message) for text in TEXTS
    ]

    answers = await send(profiled, calls)

    wrong = [(str(way), answer.status_code, answer.text) for way, answer in answers if answer.status_code >= 500]
    assert not wrong
    commands = [operation["command"] for operation in asked(profiled)]
    assert any(MARK in json.dumps(command, default=str) for command in commands), "nothing came that far"
    for command in commands:
        assert not {name for name in keys(command) if name in OPERATORS - OURS or MARK in name}, command


async def test_more_fields_than_a_method_has_are_refused(target: Target) -> None:
    for way in ways():
        if way.verb == "GET":
            continue
        for name in ("$where", "a.b", "__proto__", "_id", "key", "id.$gt"):
            fields = {name: value for name, value in way.sample().items() if name not in way.in_path}
            path, _ = way.request(way.sample())
            answer = await target.nest.http.request(
                way.verb, path, content=json.dumps({**fields, name: MARK}), headers=target.nest.internal
            )
            assert answer.status_code in (400, 422), (str(way), name, answer.status_code, answer.text)
