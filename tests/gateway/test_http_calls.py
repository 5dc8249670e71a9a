"""Trace contexts, schemes and lines of calls."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from services.gateway import http_calls
from services.gateway.http_calls import HttpCall, HttpCalls, log_call, log_refusal
from shared.errors import Unavailable
from shared.otel_settings import TraceExport
from shared.tracing import NO_SPAN, Span, Tracing

THEIRS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder(Tracing):
    """Keeps the arguments of server spans."""

    def __init__(self) -> None:
        super().__init__("gateway", TraceExport())
        self.begun: list[dict[str, Any]] = []

    @property
    def on(self) -> bool:
        return True

    def server(self, verb: str, **arguments: Any) -> Span:
        self.begun.append({"verb": verb, **arguments})
        return NO_SPAN


class Lines:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, ids: HttpCall, **fields: Any) -> None:
        self.written.append({"request_id": ids.request_id, "trace_id": ids.trace_id, **fields})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    replaced = Lines()
    monkeypatch.setattr(http_calls, "LINES", replaced)
    return replaced


def scope(peer: str | None = "203.0.113.7", path: str = "/1/2021-10-06/get_user", verb: str = "POST") -> dict[str, Any]:
    client = None if peer is None else (peer, 1)
    return {"client": client, "path": path, "method": verb, "scheme": "http", "http_version": "1.1"}


def calls(tracing: Tracing) -> HttpCalls:
    return HttpCalls(tracing, issuer="https://api.example.com", trusted_proxies=(ip_network("10.0.0.0/8"),))


@pytest.mark.parametrize(
    ("peer", "headers", "remote", "trusted", "scheme"),
    [
        ("10.1.2.3", {b"traceparent": THEIRS.encode(), b"x-forwarded-proto": b"https"}, THEIRS, True, "https"),
        ("::ffff:10.1.2.3", {b"traceparent": THEIRS.encode()}, THEIRS, True, "http"),
        ("203.0.113.7", {b"traceparent": THEIRS.encode(), b"x-forwarded-proto": b"https"}, THEIRS, False, "http"),
        ("10.1.2.3", {b"traceparent": b"x", b"x-forwarded-proto": b"hunter2"}, None, True, "http"),
        ("10.1.2.3", {}, None, True, "http"),
        (None, {b"traceparent": THEIRS.encode()}, THEIRS, False, "http"),
        ("testclient", {b"traceparent": THEIRS.encode()}, THEIRS, False, "http"),
    ],
)
def test_only_a_trusted_proxy_names_the_trace_and_the_scheme(
    peer: str | None, headers: dict[bytes, bytes], remote: str | None, *, trusted: bool, scheme: str
) -> None:
    tracing = Recorder()
    calls(tracing).begin(scope(peer), headers, "r")
    (begun,) = tracing.begun
    assert (begun["remote"], begun["trusted"], begun["scheme"]) == (remote, trusted, scheme)
    assert begun["server"] == "api.example.com"


@pytest.mark.parametrize(("peer", "continued"), [("10.1.2.3", True), ("203.0.113.7", False)])
def test_trace_id_of_a_trusted_proxy_is_in_the_logs_without_traces_too(peer: str, *, continued: bool) -> None:
    call = calls(Tracing("gateway", TraceExport())).begin(scope(peer), {b"traceparent": THEIRS.encode()}, "r")
    assert (call.trace == THEIRS) is continued
    assert len(call.trace_id) == 32


def test_request_without_an_id_has_that_of_its_trace() -> None:
    for headers in ({}, {b"traceparent": THEIRS.encode()}):
        call = calls(Tracing("gateway", TraceExport())).begin(scope("203.0.113.7"), headers, "")
        assert call.request_id == call.trace_id != THEIRS[3:35]


def test_requests_within_the_trace_of_a_proxy_have_ids_of_their_own() -> None:
    begin = calls(Tracing("gateway", TraceExport())).begin
    first, second = (begin(scope("10.1.2.3"), {b"traceparent": THEIRS.encode()}, "") for _ in range(2))
    assert first.trace_id == second.trace_id == THEIRS[3:35]
    assert len({first.request_id, second.request_id, first.trace_id}) == 3


def test_client_chooses_the_request_id_and_not_the_trace() -> None:
    call = calls(Tracing("gateway", TraceExport())).begin(scope("203.0.113.7"), {}, "c" * 32)
    assert call.request_id == "c" * 32 != call.trace_id


@pytest.mark.parametrize(("status", "outage"), [(200, False), (404, False), (429, True), (503, True), (504, True)])
def test_outage_and_overload_are_marked(lines: Lines, status: int, *, outage: bool) -> None:
    log_call(HttpCall("r", "POST", status=status), 0.01)
    assert lines.written[0]["outage"] is outage


def test_line_of_a_call_names_no_path_and_no_unknown_verb(lines: Lines) -> None:
    with calls(Tracing("gateway", TraceExport())).begin(scope(path="/hunter2", verb="HUNTER2"), {}, "r") as call:
        call.outcome, call.status = "not_found", 404
    (line,) = lines.written
    assert (line["method"], line["verb"], line["outcome"], line["status"]) == ("unknown", "other", "not_found", 404)
    assert "hunter2" not in repr(line).lower()


def test_client_that_goes_away_has_a_line(lines: Lines) -> None:
    with calls(Tracing("gateway", TraceExport())).begin(scope(), {}, "r"):
        pass
    assert lines.written[0]["outcome"] == "disconnected"


@pytest.mark.parametrize(
    ("path", "status", "outcomes"),
    [
        ("/healthz", 200, []),
        ("/healthz/", 200, []),
        ("/healthz", 503, ["http_503"]),
        ("/1/x", 200, ["done"]),
    ],
)
def test_successful_health_checks_have_neither_line_nor_span(
    lines: Lines, path: str, status: int, outcomes: list[str]
) -> None:
    tracing = Recorder()
    with calls(tracing).begin(scope(path=path), {}, "r") as call:
        call.status = status
    assert [line["outcome"] for line in lines.written] == outcomes
    assert len(tracing.begun) == (path == "/1/x")


def test_refusal_before_the_app_has_a_line(lines: Lines) -> None:
    log_refusal(Unavailable(), 503, "r", verb="POST", operation=("2021-10-06", "get_user"))
    (line,) = lines.written
    assert (line["outcome"], line["method"], line["version"], line["request_id"]) == (
        *("unavailable", "get_user", "2021-10-06", "r"),
    )
