"""How is a no answered over HTTP? By status, each with the codes that it may have, and with what headers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from services.reference.refusals import Refused, refused

JSON: Final = "application/json"
OFTEN: Final = 4
"""How many operations share a refusal that stands apart from them."""
MOST_CODES: Final = 4
"""Of a refusal that stands apart: its name is made of them."""
HEADERS: Final = {
    "RequestId": {
        "description": "The caller's own id if it sent a sane one, else ours.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "Replayed": {
        "description": "`true` where this is the stored answer to an earlier call with the same `idempotency-key`.",
        "schema": {"type": "string", "const": "true"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before the next try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "ETag": {
        "description": "For `if-none-match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^(W/)?"[!-~]*"$'},
    },
    "Authenticate": {"description": "`bearer`.", "required": True, "schema": {"type": "string"}},
}
_HEADERS_OF: Final = {401: {"www-authenticate": "Authenticate"}, 429: {"retry-after": "RetryAfter"}}
_HEADERS_OF[503] = _HEADERS_OF[429]
_NOT_LET_IN: Final = frozenset({401, 403})


def headers(more: dict[str, str]) -> dict[str, Any]:
    """The headers of an answer: those of every one, and more of ``HEADERS``."""
    named = {"x-request-id": "RequestId", **more}
    return {name: {"$ref": f"#/components/headers/{header}"} for name, header in named.items()}


def refusals(
    service: str, codes: Iterable[str], *, own: Iterable[str] = (), repeatable: bool = False, not_let_in: bool = False
) -> dict[str, Any]:
    """The answers that say no, by status.

    Args:
        service: in whose words.
        codes: all that the gateway may say.
        own: all that the service behind it may say.
        repeatable: what the service says is kept for repeats.
        not_let_in: 401 and 403 say so in the way of the accounts' routes.
    """
    own = set(own)
    found: dict[int, list[Refused]] = defaultdict(list)
    for each in sorted(refused(service, {*codes, *own}), key=lambda each: (each.status, each.code)):
        found[each.status].append(each)
    return {
        str(status): _refusal(
            reasons,
            error="NotLetIn" if not_let_in and status in _NOT_LET_IN else "Error",
            kept=repeatable and any(each.code in own for each in reasons),
        )
        for status, reasons in found.items()
    }


def shared_responses(paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The responses that several operations have; where they stood, references to them stand then."""
    places: dict[str, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for verbs in paths.values():
        for operation in verbs.values():
            for status, response in operation["responses"].items():
                places[json.dumps(response)].append((operation["responses"], status))
    found: dict[str, Any] = {}
    for response, where in places.items():
        name = _name(json.loads(response))
        if name is None or len(where) < OFTEN:
            continue
        found[name] = json.loads(response)
        for responses, status in where:
            responses[status] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(found.items()))


def _refusal(reasons: list[Refused], *, error: str, kept: bool) -> dict[str, Any]:
    status = reasons[0].status
    more = {**_HEADERS_OF.get(status, {}), **({"idempotent-replayed": "Replayed"} if kept else {})}
    codes = [{"const": each.code, "description": each.meaning} for each in reasons]
    schema = {"allOf": [{"$ref": f"#/components/schemas/{error}"}, {"properties": {"code": {"oneOf": codes}}}]}
    return {
        "description": f"{HTTPStatus(status).phrase}.",
        "headers": headers(more),
        "content": {JSON: {"schema": schema}},
    }


def _name(response: dict[str, Any]) -> str | None:
    """A refusal's name, by its codes; None for an answer that is none."""
    try:
        (error, said) = response["content"][JSON]["schema"]["allOf"]
        codes = [each["const"] for each in said["properties"]["code"]["oneOf"]]
    except KeyError:
        return None
    if len(codes) > MOST_CODES:
        return None
    named = "Or".join(code.title().replace("_", "") for code in codes)
    return (
        named
        + ("Kept" if "idempotent-replayed" in response["headers"] else "")
        + ("NotLetIn" if error["$ref"].endswith("NotLetIn") else "")
    )
