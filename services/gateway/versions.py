"""Dated versions of the API: which exist, and the format of their errors.

A date is its predecessor with some differences, and it is frozen once it is published. There are three kinds of
difference:

- a method is added, removed, or has another message class (``methods``). The class is the request and response model:
  its fields are those of the request, its ``reply`` and ``refuses`` those of the response.
- errors have another format (``DatedVersion.explained_errors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.gateway.error_messages import MESSAGES, NEAREST_MESSAGE, OTHER_MESSAGE

BASE_VERSION: Final = "1"
DOCS_PATH: Final = "/reference"
"""Page of the documentation, which every gateway serves."""


@dataclass(frozen=True, slots=True)
class DatedVersion:
    """A dated version.

    Attributes:
        date: as in the URL.
        explained_errors: whether errors, and each of their ``reasons``, have ``message`` and ``docs``.
    """

    date: str
    explained_errors: bool = False


VERSIONS: Final = (
    DatedVersion("2020-12-14"),
    DatedVersion("2021-10-06"),
    DatedVersion("2026-12-01", explained_errors=True),
)
"""All versions, the oldest first."""
_PLAIN: Final = frozenset(version.date for version in VERSIONS if not version.explained_errors)


def version_of(path: str) -> str:
    """The dated version in a path such as ``/1/2021-10-06/get_user``; any other text for a path without a version."""
    base, _, rest = path.removeprefix("/").partition("/")
    return rest.partition("/")[0] if base == BASE_VERSION else ""


def error_anchor(code: str) -> str:
    """Anchor of an error code on the documentation page. As stable as the code."""
    return f"error-{code}"


def explains_errors(version: str) -> bool:
    """Whether errors have ``message`` and ``docs``: everywhere but in the versions that were frozen without them.

    Args:
        version: the date in the request's path; any other text for a path without a known version.
    """
    return version not in _PLAIN


def error_body(body: dict[str, Any], version: str) -> dict[str, Any]:
    """An error in the format of a version.

    Args:
        body: ``code``, and ``meta`` and ``reasons`` if there are any, as ``Refusal.body`` returns them.
        version: as in ``explains_errors``.
    """
    return _explained(body) if explains_errors(version) else body


def _explained(body: dict[str, Any]) -> dict[str, Any]:
    code = body["code"]
    nearest = body.get("meta", {}).get("did_you_mean")
    explained = {
        "code": code,
        "message": MESSAGES.get(code, OTHER_MESSAGE) if nearest is None else NEAREST_MESSAGE.format(nearest),
        # Relative to the issuer, so that the error never names another host than the one that was called.
        "docs": f"{DOCS_PATH}#{error_anchor(code)}",
        **body,
    }
    if "reasons" in body:
        explained["reasons"] = [_explained(reason) for reason in body["reasons"]]
    return explained
