"""Refusals of unknown paths, which name the nearest method or route."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

from starlette.routing import BaseRoute, Route

from services.gateway.errors import UnknownVersion, VersionNotSupported
from services.gateway.methods import METHODS
from services.gateway.versions import BASE_VERSION, VERSIONS
from shared.errors import NotFound

MAX_CHARACTERS: Final = 120
"""Longer paths get no suggestion: the comparison costs time in proportion to the length."""
METHOD_LIKENESS: Final = 0.8
"""Lowest likeness of a method's name, from 0 to 1: twice the common characters, divided by those of both names."""
PART_LIKENESS: Final = 0.7
"""The same if one name is a part of the other: ``list_news`` of ``list_news_items``."""
ROUTE_LIKENESS: Final = 0.85
"""Higher than for methods: the beginnings of routes are alike."""
NEWEST: Final = VERSIONS[-1].date
_DATED: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UnknownPaths:
    """The refusals, for the methods and the given routes.

    A suggestion is a path of Nest, never text of the client: paths may contain passwords and tokens.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._templates = [_template(route) for route in routes if isinstance(route, Route) and _is_called(route)]
        served = (version.date for version in VERSIONS)
        self._methods = {
            name: date for date in served for name, method in METHODS[date].items() if method.message is not None
        }
        """The newest version of each method."""

    def refusal(self, path: str) -> UnknownVersion | VersionNotSupported | NotFound:
        """The refusal of an unknown path. ``meta.did_you_mean`` is the nearest path, if any is near enough."""
        base, *rest = path.removeprefix("/").split("/")
        # Routes without a version are at the root too, so only paths that look versioned are checked for their version.
        if base != BASE_VERSION and rest and (base.isdecimal() or _DATED.fullmatch(rest[0])):
            return UnknownVersion(supported_version=BASE_VERSION)
        if base == BASE_VERSION and rest and rest[0] not in METHODS:
            return VersionNotSupported(versions=sorted(METHODS))
        nearest = None if len(path) > MAX_CHARACTERS else self._nearest(path.strip("/").split("/"))
        return NotFound() if nearest is None else NotFound(did_you_mean=nearest)

    def _nearest(self, segments: list[str]) -> str | None:
        if segments[0] == BASE_VERSION:
            return self._nearest_method(segments[1], segments[2]) if len(segments) > 2 else None  # noqa: PLR2004
        if len(segments) == 1 and segments[0] in self._methods:
            return self._path(NEWEST, segments[0])
        return self._nearest_route(segments)

    def _nearest_method(self, version: str, name: str) -> str | None:
        # Of two that are equally near the one of this version comes first.
        names = sorted(self._methods, key=lambda each: each not in METHODS[version])
        found = _most_alike(_letters(name), ((_letters(each), each) for each in names))
        return None if found is None else self._path(version, found)

    def _nearest_route(self, segments: list[str]) -> str | None:
        """The route whose fixed segments are most like those in the same place of the path."""
        candidates = []
        for template in self._templates:
            parts = template.strip("/").split("/")
            if len(parts) == len(segments):
                fixed = [index for index, part in enumerate(parts) if "{" not in part]
                candidates.append(
                    ("/".join(parts[index] for index in fixed), "/".join(segments[index] for index in fixed), template)
                )
        likeness = [(_likeness(own, theirs), template) for own, theirs, template in candidates]
        best, nearest = max(likeness, default=(0.0, ""))
        return nearest if best >= ROUTE_LIKENESS else None

    def _path(self, version: str, name: str) -> str:
        return f"/{BASE_VERSION}/{version if name in METHODS[version] else self._methods[name]}/{name}"


def _is_called(route: Route) -> bool:
    """Whether clients call a route by this path: not the files of pages, and not the refusal of unknown webhooks."""
    return ":" not in _template(route) and route.path not in ("/", "/1/webhook/{provider}")


def _template(route: Route) -> str:
    """The path with its fields; a route that reads the raw path has it as its name."""
    return route.name if route.name.startswith("/") else route.path


def _letters(name: str) -> str:
    """A name without what separates its words: ``sendMagicLink`` and ``send-magic-link`` are ``sendmagiclink``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _most_alike(wanted: str, names: Iterable[tuple[str, str]]) -> str | None:
    matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    best, found = 0.0, None
    for letters, name in names:
        minimum = max(best, PART_LIKENESS if wanted in letters or letters in wanted else METHOD_LIKENESS)
        matcher.set_seq1(letters)
        # The first two are cheap upper bounds of the third.
        if matcher.real_quick_ratio() < minimum or matcher.quick_ratio() < minimum:
            continue
        if (ratio := matcher.ratio()) >= minimum and ratio > best:
            best, found = ratio, name
    return found


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower(), autojunk=False).ratio()
