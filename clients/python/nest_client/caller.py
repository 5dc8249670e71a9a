"""Operations of Nest, and the base classes of everything that calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import quote

from nest_client.models import VERSION


class Unset(Enum):
    """Type of ``UNSET``."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""A field that is left out of the request; None sends null."""


@dataclass(frozen=True)
class Operation:
    """A method or a route of Nest.

    Attributes:
        path: Path, with the names of its parameters in braces.
        verb: HTTP method.
        command: Whether it changes something and takes an idempotency key.
        tagged: Whether its responses have an entity tag.
        text: Whether its result is a text instead of a JSON value.
        of_user: Whether ``user_id`` is required, which a session fills in.
    """

    path: str
    verb: str = "POST"
    command: bool = False
    tagged: bool = False
    text: bool = False
    of_user: bool = False


def method_of(name: str, *, command: bool = False, tagged: bool = False, of_user: bool = False) -> Operation:
    """Return the operation of a method of the newest version."""
    return Operation(f"/1/{VERSION}/{quote(name, safe='')}", command=command, tagged=tagged, of_user=of_user)


class Caller(ABC):
    """A blocking caller of Nest."""

    @abstractmethod
    def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation and return its result, or None if it has none.

        Args:
            operation: The operation.
            fields: Its fields.
            options: ``idempotency_key`` of a command; ``token`` of an owner of applications, not in a session.
        """

    def call(self, method: str, body: Mapping[str, Any], *, command: bool, idempotency_key: str | None = None) -> Any:
        """Call a method by its name, for example one that this release does not know."""
        return self.perform(method_of(method, command=command), body, idempotency_key=idempotency_key)


class AsyncCaller(ABC):
    """An asynchronous caller of Nest."""

    @abstractmethod
    async def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation and return its result, or None if it has none.

        Args:
            operation: The operation.
            fields: Its fields.
            options: ``idempotency_key`` of a command; ``token`` of an owner of applications, not in a session.
        """

    async def call(
        self, method: str, body: Mapping[str, Any], *, command: bool, idempotency_key: str | None = None
    ) -> Any:
        """Call a method by its name, for example one that this release does not know."""
        return await self.perform(method_of(method, command=command), body, idempotency_key=idempotency_key)
