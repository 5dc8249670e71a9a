"""HTTP requests: client IP address, bodies of bounded size, strict JSON, messages, and accepted languages."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Receive, Scope

from services.gateway.errors import BodyTooLarge, MalformedBody, RequestIncomplete, ValidationFailed
from shared.messages import Message
from shared.messages.languages import language_tag

M = TypeVar("M", bound=Message)
Network = IPv4Network | IPv6Network
Fields = dict[str, Any]
"""The JSON object of a request, with fields from its path."""
MAX_ERRORS: Final = 20
"""Validation errors in one response; a body can have thousands."""
MAX_PATH_CHARACTERS: Final = 200
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_ECHOING: Final = frozenset({"union_tag_invalid"})
"""Errors of pydantic whose messages contain the input."""
_LENGTH: Final = re.compile(
    r"(?:Tuple|List|Set|Frozenset) should (have at (?:least|most) \d+ items?) after validation.*"
)
"""Message of pydantic about the length of an array; it names the type in Python."""
MAX_LANGUAGES: Final = 10
"""Languages of an ``Accept-Language`` header that are read; the rest is ignored, to bound the work."""
_PLAINTEXT_SECRETS: Final = {"plain": True}
"""Validation context: clients send secrets in plain text, and the gateway seals them when it encodes the message."""
MAX_ELEMENT_CHARACTERS: Final = 512
"""Length of an element of a ``forwarded`` header, to bound the work."""
_NODE: Final = re.compile(
    r"(?:\[([^\[\]]+)\]|([0-9.]+)|([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
)
"""Address with or without port; the port may be obfuscated (RFC 7239 section 6)."""
_PAIR: Final = r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))"""
_FORWARDED_PAIR: Final = re.compile(_PAIR)
_FORWARDED_ELEMENT: Final = re.compile(rf"[ \t;]*(?:{_PAIR}[ \t]*(?:;[ \t;]*|$))*")
"""RFC 7239 section 4, but many proxies do not quote the colon of a port."""
_DISCARD_BYTES: Final = 1024 * 1024
_DISCARD_SECONDS: Final = 1.0
_MAX_PARAMETERS: Final = 4
"""Parameters of a language in an ``Accept-Language`` header that are read."""
_WEIGHT: Final = re.compile(r"0?\.[0-9]+|[01]\.?|0\.[0-9]*|1\.0*")


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

    @property
    def has_body(self) -> bool:
        """Whether the head announces a body (RFC 9112 section 6.3)."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0").strip(b"0") != b""

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the person, the preferred one first, from all ``accept-language`` headers."""
        values = (value for name, value in self.scope["headers"] if name == b"accept-language")
        return accepted_languages(b",".join(values).decode("latin-1"))


def client_ip(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """IP address of the client, an IPv4-mapped one as IPv4; None if the server does not know it.

    Behind a trusted proxy it is the rightmost address of ``x-forwarded-for``, or else of ``forwarded`` (RFC 7239), that
    is not a trusted proxy too. Addresses to its left may be forged. A proxy that does not disclose its client counts as
    the client.

    Args:
        scope: of ASGI.
        trusted: networks of proxies whose headers are used. From others they are ignored: anybody can send them.
    """
    if scope.get("client") is None:
        return None
    peer: str = scope["client"][0]
    nearest = _peer_address(peer)
    if nearest is None:
        return peer
    for node in _forwarded_nodes(scope["headers"]):
        if not any(nearest in network for network in trusted):
            break
        match = _NODE.fullmatch(node)
        address = None if match is None else _address(next(filter(None, match.groups())))
        if address is None:
            break
        nearest = address
    return str(nearest)


def peer_is_trusted(scope: Scope, trusted: Sequence[Network]) -> bool:
    """Return True if a trusted proxy has sent the request; ``trusted`` as for ``client_ip``."""
    peer = None if scope.get("client") is None else _peer_address(scope["client"][0])
    return peer is not None and any(peer in network for network in trusted)


def _forwarded_nodes(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """What the proxies say of their clients, from the nearest proxy to the farthest."""
    x_forwarded_for = [value for name, value in headers if name == b"x-forwarded-for"]
    # Most proxies set only this one, and pass on a ``forwarded`` that the client forged.
    if x_forwarded_for:
        for value in reversed(x_forwarded_for):
            nodes = [node.strip(' \t"') for node in value.decode("latin-1").split(",")]
            yield from reversed([node for node in nodes if node])
        return
    for value in reversed([value for name, value in headers if name == b"forwarded"]):
        yield from _nodes_of_forwarded(value.decode("latin-1"))


def _nodes_of_forwarded(value: str) -> Iterator[str]:
    """Yield the ``for`` parameter of each element of a ``forwarded`` header, and ``unknown`` for elements without one.

    Parsing starts at the right, so that an unclosed quote from the client does not hide what the proxy has appended.
    """
    element = ""
    for part in reversed(value.split(",")):
        # A comma may be part of a quoted string.
        element = f"{part},{element}" if element else part
        if not element.strip():
            element = ""
        elif _FORWARDED_ELEMENT.fullmatch(element):
            nodes = [
                quoted.replace("\\", "") or plain
                for name, quoted, plain in _FORWARDED_PAIR.findall(element)
                if name.lower() == "for"
            ]
            yield nodes[0] if len(nodes) == 1 else "unknown"
            element = ""
        elif len(element) > MAX_ELEMENT_CHARACTERS:
            break
    if element:
        yield "unknown"


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # Without the zone, which has a meaning only on the machine that set it.
    return address.ipv4_mapped or IPv6Address(address.packed)


_peer_address: Final = lru_cache(maxsize=1024)(_address)
"""``_address`` of a connection's other end, from memory. What a header says is not kept: it may be long."""


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
        for error in _decisive(invalid.errors(include_url=False, include_context=False, include_input=False)):
            if error["type"] == "json_invalid":
                raise MalformedBody from None
            errors.append({"path": _path(error, fields)[:MAX_PATH_CHARACTERS], "message": _message(error)})
    if errors:
        raise ValidationFailed(errors=errors[:MAX_ERRORS])
    return valid


def _path(error: ErrorDetails, value: Any) -> str:
    """Dotted path of an error in the client's object, without the names that pydantic adds for union members."""
    path = []
    for part in error["loc"]:
        members = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if part in members:
            # A name that is no identifier may be a value in the wrong place.
            path.append(str(part) if isinstance(part, int) or _IDENTIFIER.fullmatch(part) else "…")
            value = value[part]
    if error["type"] == "missing":
        path.append(str(error["loc"][-1]))
    return ".".join(path)


def _decisive(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those about the length of an array that has wrong items: pydantic counts only the others."""
    around = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    return [error for error in errors if error["type"] != "too_short" or error["loc"] not in around]


def _message(error: ErrorDetails) -> str:
    """Message of an error, without a value of the client, and in the terms of JSON."""
    if error["type"] in _ECHOING:
        return "Input is of an unknown kind"
    length = _LENGTH.fullmatch(error["msg"])
    return error["msg"] if length is None else f"must {length[1]}"


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

    The tags have the normal form of ``language_tag``. Parts that name no language or have an invalid weight are
    ignored: the header is a preference and never a reason to refuse a request. So is ``*`` (RFC 4647 section 3.4), and
    within a range it is removed.
    """
    weighted: list[tuple[float, str]] = []
    for part in header.split(",", MAX_LANGUAGES)[:MAX_LANGUAGES]:
        language_range, *parameters = part.split(";", _MAX_PARAMETERS + 1)[: _MAX_PARAMETERS + 1]
        tag, weight = language_tag(language_range.replace("-*", "")), _weight(parameters)
        if tag is not None and weight:
            weighted.append((weight, tag))
    # A stable sort keeps the header's order among equal weights.
    return tuple(tag for _weight, tag in sorted(weighted, key=lambda pair: -pair[0]))


def _weight(parameters: Sequence[str]) -> float:
    """The parameter ``q``, 1 if there is none, 0 if it is invalid."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 0
    return 1
