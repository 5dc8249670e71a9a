"""Changes of an account: what a setup creates, updates or replaces, and the comparison of wanted and present values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

Json = dict[str, Any]
Action = Literal["unchanged", "create", "update", "replace"]
MARK: Final = "nest_setup"
"""Metadata of an object that the setup made: its key in the file."""
NEW: Final = "(new)"
"""Stands for the ID of an object that is not created yet, in a plan."""
MAX_PAGES: Final = 50


class Api(Protocol):
    """The calls that a setup makes; ``Calls`` of billing has them."""

    async def get(self, name: str, path: str, params: Json) -> Json:
        """Read an object or a page."""

    async def post(self, name: str, path: str, params: Json) -> Json:
        """Create or change an object."""

    async def delete(self, name: str, path: str, params: Json) -> Json:
        """Delete an object."""


@dataclass(frozen=True, slots=True)
class Diff:
    """A value that differs."""

    field: str
    present: Any
    wanted: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One object of the account and what happens to it.

    Attributes:
        action: ``unchanged`` if nothing does.
        kind: kind of object, for people.
        name: its name or key, for people.
        diffs: the values that differ; empty for a new object.
        apply: makes the change; None if there is none.
    """

    action: Action
    kind: str
    name: str
    diffs: tuple[Diff, ...] = ()
    apply: Callable[[], Awaitable[None]] | None = field(default=None, compare=False, repr=False)


def differences(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Diff, ...]:
    """The wanted values that an object does not have, by dotted name; its other values do not matter."""
    found: list[Diff] = []
    for name, value in wanted.items():
        before = present.get(name)
        if isinstance(value, dict) and isinstance(before, Mapping):
            found += [Diff(f"{name}.{each.field}", each.present, each.wanted) for each in differences(before, value)]
        elif _plain(before) != _plain(value):
            found.append(Diff(name, before, value))
    return tuple(found)


def _plain(value: Any) -> Any:
    """Lists of names have no order in Stripe; empty texts and lists are unset."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = sorted(value)
    return None if value in ("", []) else value


async def listed(api: Api, name: str, path: str, **params: Any) -> list[Json]:
    """All objects of a list."""
    found: list[Json] = []
    cursor: Json = {}
    for _ in range(MAX_PAGES):
        page = await api.get(name, path, {**params, "limit": 100, **cursor})
        found += page["data"]
        if not page["has_more"]:
            break
        cursor = {"starting_after": page["data"][-1]["id"]}
    return found


def marked(objects: Iterable[Json], key: str) -> Json | None:
    """The object that an earlier setup made for a key."""
    return next((each for each in objects if (each.get("metadata") or {}).get(MARK) == key), None)
