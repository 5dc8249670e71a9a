"""HTTP requests: client IP address, bodies of bounded size, strict JSON, messages, and accepted languages."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Receive, Scope

from services.gateway.errors import BodyTooLarge, MalformedBody, RequestIncomplete, ValidationFailed
from shared.messages import Message

M = TypeVar("M", bound=Message)
Network = IPv4Network | IPv6Network
Fields = dict[str, Any]
"""The JSON object of a request, with fields from its path."""
MAX_ERRORS: Final = 20
"""Validation errors in one response; a body can have thousands."""
MAX_PATH_CHARACTERS: Final = 200
MAX_LANGUAGES: Final = 10
"""Languages of an ``Accept-Language`` header that are read; the rest is ignored, to bound the work."""
_PLAINTEXT_SECRETS: Final = {"plain": True}
"""Validation context: clients send secrets in plain text, and the gateway seals them when it encodes the message."""
_DISCARD_BYTES: Final = 1024 * 1024
_DISCARD_SECONDS: Final = 1.0
_LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
"""The same pattern as in ``shared.messages.types``."""
_LANGUAGE_RANGE: Final = re.compile(
    r"\s*([A-Za-z0-9-]{2,40})\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"
)


@dataclass(slots=True)
class HttpRequest:
    """An HTTP request.

    Attributes:
        scope: of ASGI.
        receive: of ASGI, for the body.
        headers: by lower-case name; the last value of a repeated header.
    """

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]

    @property
    def id(self) -> str:
        """Request ID, which the middleware assigned."""
        request_id: str = self.scope["state"]["request_id"]
        return request_id

    def header(self, name: bytes) -> str:
        """Value of a header; empty if it is missing."""
        return self.headers.get(name, b"").decode("latin-1")


def client_ip(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """IP address of the client; None if the server does not know it.

    Behind a trusted proxy it is the rightmost address of ``x-forwarded-for`` that is not a trusted proxy too. Addresses
    to its left may be forged.

    Args:
        scope: of ASGI.
        trusted: networks of proxies whose ``x-forwarded-for`` is used. From others it is ignored: anybody can send it.
    """
    if scope.get("client") is None:
        return None
    peer: str = scope["client"][0]
    nearest = _address(peer) if trusted else None
    if nearest is None:
        return peer
    hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for hop in reversed(hops.split(b",")):
        address = _address(hop.decode("latin-1").strip())
        if address is None or not any(nearest in network for network in trusted):
            break
        nearest = address
    return str(nearest)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the whole body; empty if the request has none. The connection enforces the time limit.

    Raises:
        BodyTooLarge: it has more than ``limit`` bytes.
        RequestIncomplete: the client disconnected before the end.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestIncomplete
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            if more:
                await discard_body(receive)
            raise BodyTooLarge(limit=limit)
        if not more:
            return bytes(body)


async def discard_body(receive: Receive) -> None:
    """Read and drop the rest of a refused body, up to 1 MiB and 1 second.

    A client that is disconnected while it still sends does not read the response.
    """
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while discarded < _DISCARD_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def parse_object(body: bytes) -> Fields:
    """Parse a body that must be one JSON object.

    Stricter than most parsers, so that every reader gets the same result: UTF-8 without a byte order mark, unique
    keys in every object, finite numbers.

    Raises:
        MalformedBody: it is anything else.
    """
    try:
        parsed = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise MalformedBody from None
    if not isinstance(parsed, dict):
        raise MalformedBody
    return parsed


def canonical(fields: Fields) -> bytes:
    """Serialize an object as JSON; equal objects give the same bytes."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def validated(message: type[M], fields: Fields, body: bytes = b"") -> M:
    """Create a message from a JSON object; unknown fields are errors.

    Args:
        message: its class.
        fields: the object.
        body: the bytes that ``fields`` were parsed from; empty if they have other sources.

    Raises:
        ValidationFailed: with the paths of the wrong fields, never their values.
        MalformedBody: a string is not valid Unicode, or the object is nested too deeply.
    """
    # The ordering key of a message, which only the gateway sets.
    errors = [{"path": "key", "message": "Extra inputs are not permitted"}] if "key" in fields else []
    try:
        # Strict mode accepts more from JSON than from Python objects (a list for a tuple, a string for a date), and
        # only the JSON parser detects lone surrogates.
        valid: M = message.__pydantic_validator__.validate_json(
            body or canonical(fields), strict=True, extra="forbid", context=_PLAINTEXT_SECRETS
        )
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_context=False, include_input=False):
            if error["type"] == "json_invalid":
                raise MalformedBody from None
            errors.append({"path": _path(error, fields)[:MAX_PATH_CHARACTERS], "message": error["msg"]})
    if errors:
        raise ValidationFailed(errors=errors[:MAX_ERRORS])
    return valid


def _path(error: ErrorDetails, value: Any) -> str:
    """Dotted path of an error in the client's object, without the names that pydantic adds for union members."""
    path = []
    for part in error["loc"]:
        members = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if part in members:
            path.append(str(part))
            value = value[part]
    if error["type"] == "missing":
        path.append(str(error["loc"][-1]))
    return ".".join(path)


def unique_keys(pairs: list[tuple[str, Any]]) -> Fields:
    """``object_pairs_hook`` of a JSON decoder that raises ValueError for a duplicate key."""
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("duplicate key")
    return parsed


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number is not finite")
    return number


_DECODER: Final = json.JSONDecoder(object_pairs_hook=unique_keys, parse_float=_finite, parse_constant=_finite)


def accepted_languages(header: str) -> tuple[str, ...]:
    """Language tags of an ``Accept-Language`` header (RFC 9110 section 12.5.4), the preferred one first.

    Invalid parts are ignored: the header is a preference and never a reason to refuse a request.
    """
    weighted: list[tuple[float, str]] = []
    for part in header.split(",", MAX_LANGUAGES)[:MAX_LANGUAGES]:
        match = _LANGUAGE_RANGE.fullmatch(part)
        tag = None if match is None else language_tag(match[1])
        if match is not None and tag is not None:
            weighted.append((float(match[2] or 1), tag))
    # A stable sort keeps the header's order among equal weights.
    return tuple(tag for weight, tag in sorted(weighted, key=lambda pair: -pair[0]) if weight > 0)


def language_tag(text: str) -> str | None:
    """The text if it is a language tag such as ``de-CH``, else None."""
    return text if _LANGUAGE_TAG.fullmatch(text) else None
