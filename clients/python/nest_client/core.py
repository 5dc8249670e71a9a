"""Requests, responses and retries as values, without I/O. The clients send what this module decides."""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from nest_client.caller import UNSET, Operation
from nest_client.errors import CODES, STATUSES, ClientError, ConnectionFailed, NestError, Reason, ServerError

RETRIED: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""Responses that Nest does not store: the same key tries again, or returns the missed response. 502 is a proxy's."""
FINAL_CODES: Final = {"query_timeout"}
"""A repeat of a query that was too slow would be too slow again."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True)
class Retries:
    """Bounds of one call. In a session they hold for the call and for a refresh each.

    Attributes:
        within: Seconds for all attempts and pauses of a call. 0 makes one attempt.
        timeout: Seconds for one attempt.
    """

    within: float = 30.0
    timeout: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.within < math.inf or not 0 < self.timeout < math.inf:
            raise ValueError("`within` must be at least 0 and `timeout` more than 0, both finite.")


@dataclass(frozen=True)
class Request:
    """An HTTP request to Nest.

    Attributes:
        verb: HTTP method.
        path: Path, relative to the URL of the Nest.
        content: Body, empty for GET.
        headers: Headers, with the caller's credential.
        idempotency_key: Key of a command, or None.
        tag_key: Key of the response's entity tag, or None if it has none.
        text: Whether the result is a text instead of a JSON value.
    """

    verb: str
    path: str
    content: bytes
    headers: Mapping[str, str] = field(repr=False)
    idempotency_key: str | None = None
    tag_key: tuple[str, str, bytes] | None = None
    text: bool = False


@dataclass(frozen=True)
class Response:
    """An HTTP response. The names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)  # may have tokens


@dataclass(frozen=True)
class NoResponse:
    """A request without a response: the connection failed, or the time is over."""

    cause: Exception


@dataclass(frozen=True)
class Send:
    """Step of a call: send the request, and wait for as many seconds as ``timeout`` for its response."""

    request: Request
    timeout: float


@dataclass(frozen=True)
class Pause:
    """Step of a call: wait for as many seconds."""

    seconds: float


Steps = Generator[Send | Pause, Response | NoResponse | None, Any]
"""The steps of a call; a ``Send`` is answered with its outcome, a ``Pause`` with None. Returns the result."""


def new_key() -> str:
    """Return a random idempotency key."""
    return secrets.token_urlsafe(24)


def request_of(
    operation: Operation,
    fields: Mapping[str, Any],
    *,
    authorization: str | None,
    idempotency_key: str | None = None,
    caller: str = "",
) -> Request:
    """Return the request of an operation.

    Args:
        operation: The operation.
        fields: Its fields. Those that are ``UNSET`` are left out; a ``datetime`` needs a time zone.
        authorization: Value of the header, or None for an anonymous caller.
        idempotency_key: Key of a command. Default: a random one.
        caller: Who calls, for entity tags: responses to one caller are not used for another one.
    """
    headers = {"accept": "application/json"}
    if authorization is not None:
        headers["authorization"] = authorization
    key = (idempotency_key or new_key()) if operation.command else None
    if key is not None:
        headers["idempotency-key"] = key
    body = {name: value for name, value in fields.items() if value is not UNSET}
    path = re.sub(r"\{(\w+)\}", lambda name: quote(body.pop(name[1]), safe=""), operation.path)
    content = b""
    if operation.verb != "GET":
        headers["content-type"] = "application/json"
        content = json.dumps(body, default=_as_json, ensure_ascii=False, allow_nan=False).encode()
    tag_key = (caller, path, content) if operation.tagged else None
    return Request(operation.verb, path, content, headers, key, tag_key, operation.text)


class EntityTags:
    """Responses with entity tags, the ones used last: ``if-none-match`` fetches them again only if they have changed.

    Args:
        size: Most responses to keep.
        longest: Longest response to keep, in bytes.
    """

    def __init__(self, size: int = 32, longest: int = 262_144) -> None:
        self.size, self.longest = size, longest
        self._kept: OrderedDict[tuple[str, str, bytes], tuple[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, request: Request) -> tuple[str, bytes] | None:
        """Return the tag and the content of the response to a request, or None."""
        with self._lock:
            return self._kept.get(request.tag_key) if request.tag_key else None

    def keep(self, request: Request, response: Response) -> None:
        """Keep a response if it has a tag and is not too long."""
        tag = response.headers.get("etag")
        if request.tag_key is None or tag is None or len(response.content) > self.longest:
            return
        with self._lock:
            self._kept[request.tag_key] = (tag, response.content)
            self._kept.move_to_end(request.tag_key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)


def _as_json(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("A time needs a time zone, such as `datetime.now(UTC)`.")
        return value.isoformat()
    raise TypeError(f"A {type(value).__name__} is no JSON value.")


def call(request: Request, retries: Retries, tags: EntityTags | None = None) -> Steps:
    """Send a request until Nest accepts or refuses it, and return the result.

    All attempts have the same idempotency key, so a command takes effect once. 429 and 503 are repeated after as many
    seconds as ``retry-after`` says; 502, 504 and failed connections after growing random pauses.

    Raises:
        NestError: Nest refused the call, or would accept it only after ``retries.within``.
        ConnectionFailed: no response arrived.
    """
    ends_at = time.monotonic() + retries.within
    longest = FIRST_PAUSE
    known = tags.find(request) if tags else None
    if known:
        request = replace(request, headers={**request.headers, "if-none-match": known[0]})
    while True:
        left = ends_at - time.monotonic() if retries.within else retries.timeout
        outcome = yield Send(request, min(retries.timeout, max(left, 0.001)))
        pause = random.uniform(longest / 2, longest)  # noqa: S311 -- spreads the repeats of many clients
        error: Exception
        if isinstance(outcome, Response):
            if outcome.status == HTTPStatus.NOT_MODIFIED and known:
                return json.loads(known[1])
            if outcome.status < HTTPStatus.BAD_REQUEST:
                result = outcome.content.decode() if request.text else result_of(outcome)
                if tags:
                    tags.keep(request, outcome)
                return result
            error = refused = error_of(outcome)
            if refused.status not in RETRIED or refused.code in FINAL_CODES:
                raise refused
            if refused.retry_after is not None:
                pause = max(refused.retry_after, pause) + random.uniform(0, FIRST_PAUSE)  # noqa: S311 -- the same
        else:
            cause = outcome.cause if outcome else None
            name = type(cause).__name__
            error = ConnectionFailed(f"Nest did not respond ({name}).", idempotency_key=request.idempotency_key)
            error.__cause__ = cause
        if time.monotonic() + pause >= ends_at:
            raise error
        yield Pause(pause)
        longest = min(longest * 2, LONGEST_PAUSE)


def result_of(response: Response) -> Any:
    """Return the JSON value of a response, or None if it has no content.

    Raises:
        NestError: the response is not one of Nest's, such as the page of a proxy.
    """
    if response.status == HTTPStatus.NO_CONTENT:
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        code = f"http_{response.status}"
        raise NestError(code=code, status=response.status, message="The response is no JSON: check the URL.") from None


def error_of(response: Response) -> NestError:
    """Return the error of a response: the class of its code, else that of its status."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    meta = body["meta"] if isinstance(body.get("meta"), dict) else {}
    code = str(body.get("code") or f"http_{response.status}")
    kind = CODES.get(code)
    status_kind = STATUSES.get(response.status) or (
        ServerError if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR else ClientError
    )
    return (kind if kind and issubclass(kind, status_kind) else status_kind)(
        code=code,
        message=str(body.get("message", "")),
        docs=str(body.get("docs", "")),
        status=response.status,
        request_id=str(meta.get("request_id") or response.headers.get("x-request-id", "")),
        retry_after=_retry_after(response.headers.get("retry-after"), meta.get("retry_after")),
        reasons=tuple(_reason(each) for each in body.get("reasons") or () if isinstance(each, dict)),
        meta=meta,
    )


def _reason(part: dict[str, Any]) -> Reason:
    return Reason(str(part.get("code", "")), str(part.get("message", "")), str(part.get("docs", "")))


def _retry_after(header: str | None, seconds: Any) -> float | None:
    """Return the seconds of the header (RFC 9110 section 10.2.3: a number or a date), else those of ``meta``."""
    if header is not None and header.strip().isdecimal():
        return float(header)
    if header is not None:
        try:
            return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
        except (ValueError, TypeError):
            pass  # neither a number nor a date with a time zone; `meta` may have the number
    return float(seconds) if isinstance(seconds, int) else None
