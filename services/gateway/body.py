"""What did the client send? A body of bounded size, one JSON object in it, and the message that it says."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Message as HttpMessage
from starlette.types import Receive

from services.gateway.errors import BodyTooLarge, MalformedBody, RequestIncomplete, ValidationFailed
from shared.messages import Message

Sent = TypeVar("Sent", bound=Message)
MAX_ERRORS: Final = 20
"""How many mistakes one answer lists: a body can hold thousands."""
MAX_PATH_CHARACTERS: Final = 200
PLAIN: Final = {"plain": True}
"""Clients send secrets as they are; they are sealed on their way out of here."""
LINGER_BYTES: Final = 1024 * 1024
LINGER_SECONDS: Final = 1.0


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body's bytes; empty when there is none. How long it may take, the connection sees to.

    Raises:
        BodyTooLarge: more than ``limit`` bytes.
        RequestIncomplete: the connection ended before the body did.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body"):
        body = await _read_on(message, receive, limit)
    if len(body) > limit:
        raise BodyTooLarge(limit=limit)
    return body


async def _read_on(message: HttpMessage, receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > limit:
            await discard_body(receive)
            raise BodyTooLarge(limit=limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise RequestIncomplete


async def discard_body(receive: Receive) -> None:
    """Read what else comes of a body that is refused, within bounds.

    A client that is cut off while it sends would never see why.
    """
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while discarded < LINGER_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def parse_object(body: bytes) -> dict[str, Any]:
    """The one JSON object that a body holds, each of its objects with every key once.

    Stricter than most readers, so that no two of them disagree about what it says: UTF-8 without a byte order mark,
    finite numbers.

    Raises:
        MalformedBody: it is something else.
    """
    try:
        found = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise MalformedBody from None
    if not isinstance(found, dict):
        raise MalformedBody
    return found


def canonical(found: dict[str, Any]) -> bytes:
    """The same bytes for the same object, however it was written."""
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def validated(kind: type[Sent], sent: dict[str, Any], body: bytes = b"") -> Sent:
    """The message that an object says, all of its fields right and none besides.

    Args:
        kind: what it is to be.
        sent: the object.
        body: the bytes it was parsed from; empty when it comes from elsewhere.

    Raises:
        ValidationFailed: naming places, never what was found there.
        MalformedBody: a text in it is no Unicode, or it is too deep.
    """
    errors = [{"path": "key", "message": "Extra inputs are not permitted"}] if "key" in sent else []
    try:
        # From the bytes, not from what was parsed of them: JSON's strictness differs (a list for a tuple, a text for
        # a date), and lone surrogates are found only there.
        message: Sent = kind.__pydantic_validator__.validate_json(
            body or canonical(sent), strict=True, extra="forbid", context=PLAIN
        )
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False, include_context=False, include_input=False):
            if error["type"] == "json_invalid":
                raise MalformedBody from None
            errors.append({"path": _place(error, sent)[:MAX_PATH_CHARACTERS], "message": error["msg"]})
    if errors:
        raise ValidationFailed(errors=errors[:MAX_ERRORS])
    return message


def _place(error: ErrorDetails, sent: Any) -> str:
    """Where something is wrong in what was sent: without the names that pydantic has for the sorts of a field."""
    place = []
    for part in error["loc"]:
        known = sent if isinstance(sent, dict) else range(len(sent)) if isinstance(sent, list) else ()
        if part in known:
            place.append(str(part))
            sent = sent[part]
    if error["type"] == "missing":
        place.append(str(error["loc"][-1]))
    return ".".join(place)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_each_key_once, parse_float=_finite, parse_constant=_finite)
