"""Which no may a client hear, with which status, and what does it mean? All refusals, by their codes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

# What is imported here is read below: the subclasses of Refusal that there are then.
import shared.messages.auth.errors
import shared.messages.billing.errors
import shared.messages.mailer.errors
import shared.messages.news  # noqa: F401 -- as said
from services.gateway.errors import STATUS, HttpRefusal
from services.reference.docstrings import markdown
from shared.errors import Refusal

SHARED: Final = "errors"
"""Where ``shared.errors`` has its name; a service's refusals have the service's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A no.

    Attributes:
        status: HTTP's.
        code: as in the body.
        meaning: in Markdown.
    """

    status: int
    code: str
    meaning: str


def refused(service: str, codes: Iterable[str]) -> list[Refused]:
    """What these codes mean when a service says them; what it does not know itself, others say for it.

    Raises:
        KeyError: no refusal has such a code.
    """
    return [_by_code()[code].get(service) or next(iter(_by_code()[code].values())) for code in codes]


def _namesake(kind: type[Refusal]) -> bool:
    """Whether a code is the refusal's own; others say the same of something special, or for another reason."""
    return kind.code.replace("_", "") == kind.__name__.lower()


def _service(kind: type[Refusal]) -> str:
    """The service that raises it; ``errors`` for those of all services."""
    return (
        kind.__module__.removeprefix("shared.messages.")
        .removeprefix("services.")
        .removeprefix("shared.")
        .partition(".")[0]
    )


@cache
def _by_code() -> dict[str, dict[str, Refused]]:
    found: dict[str, dict[str, Refused]] = {}
    # In one order whoever imported them first; what all share goes first, since it was written for all.
    for kind in sorted(
        filter(_namesake, set(_below(Refusal))), key=lambda kind: (kind.__module__ != "shared.errors", kind.__module__)
    ):
        status = kind.status if issubclass(kind, HttpRefusal) else STATUS[kind.kind]
        meaning = markdown(inspect.cleandoc(kind.__doc__ or ""))
        found.setdefault(kind.code, {}).setdefault(_service(kind), Refused(status, kind.code, meaning))
    return found


def _below(kind: type[Refusal]) -> Iterator[type[Refusal]]:
    for child in kind.__subclasses__():
        if child.__module__.startswith(("services.", "shared.")):
            yield child
            yield from _below(child)
