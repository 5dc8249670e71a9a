"""Observation of HTTP requests: a span and one log line for each, except for successful health checks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from starlette.types import Scope

from services.gateway.requests import Network, peer_is_trusted
from shared.errors import Refusal
from shared.ids import new_message_id
from shared.telemetry import CORRELATION, Correlation, OutcomeLog
from shared.tracing import NO_SPAN, Span, Tracing, new_traceparent, parse_traceparent

DONE: Final = "done"
DISCONNECTED: Final = "disconnected"
FIRST_STATUS: Final = 100
FIRST_ERROR: Final = 400
OUTAGE_STATUSES: Final = frozenset({429, 503, 504})
HEALTH_PATH: Final = "/healthz"
CALL: Final = "call"
"""Name of a request's ``HttpCall`` in the state of its ASGI scope."""
LINES: Final = OutcomeLog("call", module=__name__, service="gateway")
_VERBS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_VERSIONS: Final = frozenset({"1.0", "1.1"})


@dataclass(slots=True)
class HttpCall:
    """One HTTP request, as it is observed.

    Attributes:
        request_id: ID of the request; empty until it begins if the client gave it none.
        verb: HTTP method.
        trace: trace context for the messages that it causes.
        span: its span.
        version: dated version of an RPC method, or group of routes; empty for none.
        method: name of the method or route; ``unknown`` for none.
        route: path with names in place of values; None for none.
        message_id: ID of its message; empty for none.
        outcome: ``done``, or the code of its refusal.
        status: of the response; 0 for none.
    """

    request_id: str
    verb: str
    trace: str = ""
    span: Span = NO_SPAN
    version: str = ""
    method: str = "unknown"
    route: str | None = None
    message_id: str = ""
    outcome: str = DONE
    status: int = 0
    began: float = field(default_factory=time.perf_counter)
    silent: bool = False
    _token: Token[Correlation | None] | None = None

    @property
    def trace_id(self) -> str:
        """ID of the trace."""
        return self.trace[3:35]

    def __enter__(self) -> Self:
        """Begin the observation."""
        self.span.__enter__()
        self._token = CORRELATION.set(self)
        return self

    def __exit__(self, *raised: object) -> None:
        """End it, and write the line."""
        if self._token is not None:
            CORRELATION.reset(self._token)
        self.span.routed(self.verb, self.route)
        if self.status:
            self.span.responded(self.status)
        else:
            # The client went away before the response.
            self.span.fail(DISCONNECTED)
        self.span.__exit__(*raised)
        if self.outcome == DONE and not FIRST_STATUS <= self.status < FIRST_ERROR:
            # A response that no refusal has caused, such as that of a failed health check.
            self.outcome = f"http_{self.status}" if self.status else DISCONNECTED
        if not (self.silent and self.outcome == DONE):
            log_call(self, time.perf_counter() - self.began)

    def operate(self, operation: tuple[str, str]) -> None:
        """Set version and method."""
        self.version, self.method = operation


def log_call(call: HttpCall, seconds: float) -> None:
    """Write the line of a request, also of one that was refused before it reached the app."""
    fields: dict[str, Any] = {"method": call.method, "verb": call.verb if call.verb in _VERBS else "other"}
    if call.status:
        fields["status"] = call.status
    if call.version:
        fields["version"] = call.version
    LINES.write(call, outcome=call.outcome, seconds=seconds, outage=call.status in OUTAGE_STATUSES, **fields)


def log_refusal(
    refusal: Refusal, status: int, request_id: str, *, verb: str = "", operation: tuple[str, str] = ("", "unknown")
) -> None:
    """Write the line of a request that was refused before it reached the app; it has no span."""
    call = HttpCall(request_id, verb, outcome=refusal.code, status=status)
    call.operate(operation)
    log_call(call, 0.0)


def call_of(scope: Scope) -> HttpCall:
    """Return the observation of the request of an ASGI scope."""
    call: HttpCall = scope["state"][CALL]
    return call


class HttpCalls:
    """Begins the observation of requests.

    Args:
        tracing: records the spans.
        issuer: public URL of the gateway. The ``host`` header is not recorded, because anything may be in it.
        trusted_proxies: networks whose ``traceparent`` and ``x-forwarded-proto`` are used.
    """

    def __init__(self, tracing: Tracing, *, issuer: str, trusted_proxies: Sequence[Network]) -> None:
        self._tracing = tracing
        self._trusted_proxies = trusted_proxies
        url = urlsplit(issuer)
        self._server = url.netloc.rpartition("@")[2]

    def begin(self, scope: Scope, headers: Mapping[bytes, bytes], request_id: str) -> HttpCall:
        """Return the observation of a request.

        A request whose client gave it no ID has that of the trace which begins with it.

        The trace context of a trusted proxy is continued. Any other one is not: a client could have its calls sampled,
        or add spans to another person's trace. The trace that begins instead is linked to it.
        """
        call = HttpCall(request_id, scope["method"], silent=scope["path"].rstrip("/") == HEALTH_PATH)
        received = headers.get(b"traceparent")
        remote = None if received is None else parse_traceparent(received.decode("latin-1"))
        trusted = bool(self._trusted_proxies) and peer_is_trusted(scope, self._trusted_proxies)
        continued = remote if trusted else None
        if self._tracing.on and not call.silent:
            scheme = headers.get(b"x-forwarded-proto", b"").decode("latin-1") if trusted else ""
            call.span = self._tracing.server(
                call.verb,
                version=scope["http_version"] if scope["http_version"] in _VERSIONS else "",
                scheme=scheme if scheme in {"http", "https"} else scope["scheme"],
                server=self._server,
                remote=remote,
                trusted=trusted,
            )
            call.trace = call.span.traceparent
        else:
            call.trace = continued or new_traceparent()
        if not request_id:
            # Other requests may be in a trace that a proxy began.
            call.request_id = new_message_id() if continued else call.trace_id
        scope.setdefault("state", {})[CALL] = call
        return call
