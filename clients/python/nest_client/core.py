"""Requests, responses and retries as values, without I/O. The clients send what this module decides."""

from __future__ import annotations

import json
import math
import random
import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from nest_client.errors import CODES, STATUSES, ClientError, ConnectionFailed, NestError, Reason, ServerError
from nest_client.methods import VERSION
from nest_client.unset import UNSET

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
    """An HTTP request to Nest. ``path`` is relative to the URL of the Nest."""

    path: str
    content: bytes
    headers: Mapping[str, str] = field(repr=False)  # with the caller's credential
    idempotency_key: str | None = None


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
    method: str,
    body: Mapping[str, Any],
    *,
    authorization: str | None,
    command: bool,
    idempotency_key: str | None = None,
) -> Request:
    """Return the request that calls a method.

    Args:
        method: Name of the method.
        body: Its fields. Those that are ``UNSET`` are left out; a ``datetime`` needs a time zone.
        authorization: Value of the header, or None for an anonymous caller.
        command: Whether the method changes something and takes an idempotency key.
        idempotency_key: The command's key. Default: a random one.
    """
    headers = {"content-type": "application/json", "accept": "application/json"}
    if authorization is not None:
        headers["authorization"] = authorization
    key = (idempotency_key or new_key()) if command else None
    if key is not None:
        headers["idempotency-key"] = key
    fields = {name: value for name, value in body.items() if value is not UNSET}
    content = json.dumps(fields, default=_as_json, ensure_ascii=False, allow_nan=False).encode()
    return Request(f"/1/{VERSION}/{quote(method, safe='')}", content, headers, key)


def _as_json(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("A time needs a time zone, such as `datetime.now(UTC)`.")
        return value.isoformat()
    raise TypeError(f"A {type(value).__name__} is no JSON value.")


def call(request: Request, retries: Retries) -> Steps:
    """Send a request until Nest accepts or refuses it, and return the result.

    All attempts have the same idempotency key, so a command takes effect once. 429 and 503 are repeated after as many
    seconds as ``retry-after`` says; 502, 504 and failed connections after growing random pauses.

    Raises:
        NestError: Nest refused the call, or would accept it only after ``retries.within``.
        ConnectionFailed: no response arrived.
    """
    ends_at = time.monotonic() + retries.within
    longest = FIRST_PAUSE
    while True:
        left = ends_at - time.monotonic() if retries.within else retries.timeout
        outcome = yield Send(request, min(retries.timeout, max(left, 0.001)))
        pause = random.uniform(longest / 2, longest)  # noqa: S311 -- spreads the repeats of many clients
        error: Exception
        if isinstance(outcome, Response):
            if outcome.status < HTTPStatus.BAD_REQUEST:
                return result_of(outcome)
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
    if response.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
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
