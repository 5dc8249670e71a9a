"""Spans after OpenTelemetry's semantic conventions 1.44.0 (HTTP, messaging with Kafka, MongoDB)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from pymongo.errors import OperationFailure

from shared.bus.envelope import Envelope
from shared.mongo import connect, database
from shared.otel_settings import TraceExport
from shared.tracing import (
    NO_SPAN,
    Span,
    Tracing,
    batch_span,
    http_request,
    new_traceparent,
    parse_traceparent,
    record_sending,
    smtp_mail,
)

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "00"
OTHER_TRACE = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Exported(list[ReadableSpan]):
    """Spans that were exported, each once its tracing has stopped."""

    def attributes(self, name: str) -> dict[str, Any]:
        return dict(next(each for each in self if each.name == name).attributes or {})


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    spans = Exported()

    def export(_: OTLPSpanExporter, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        spans.extend(batch)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    return spans


@contextmanager
def tracing(service: str = "auth", **changed: Any) -> Iterator[Tracing]:
    traced = Tracing(service, TraceExport(exporter="otlp", **changed), environment="test")
    try:
        yield traced
    finally:
        traced.stop()


def server(traced: Tracing, *, verb: str = "POST", remote: str | None = None, trusted: bool = False) -> Span:
    return traced.server(verb, version="1.1", scheme="https", server="api.test", remote=remote, trusted=trusted)


def envelope(message_id: str, *, trace: str) -> Envelope:
    return Envelope(
        id=message_id, wire="auth.get-user", topic="auth.commands", key="user_1", body=b"{}", time=1, trace=trace
    )


class Record:
    """Position of a record."""

    partition, offset, key, value = 3, 42, None, None
    headers: Sequence[tuple[str, bytes]] = ()


def process(traced: Tracing, message: Envelope) -> Span:
    return traced.process(message, Record(), topic="p.auth.commands", group="p.auth", client="auth-1")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (SAMPLED, SAMPLED),
        ("cc" + SAMPLED[2:], SAMPLED),
        ("cc" + SAMPLED[2:] + "-what-the-future-adds", SAMPLED),
        (SAMPLED + "-extra", None),
        ("ff" + SAMPLED[2:], None),
        (SAMPLED.upper(), None),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        ("cc" + SAMPLED[2:] + "-" + "x" * 8000, None),
        ("", None),
    ],
)
def test_trace_context_is_parsed_as_the_w3c_says(text: str, valid: str | None) -> None:
    assert parse_traceparent(text) == valid


def test_new_context_is_valid_and_not_sampled() -> None:
    assert parse_traceparent(text := new_traceparent()) == text
    assert text.endswith("-00")


def test_without_an_exporter_nothing_is_recorded() -> None:
    traced = Tracing("auth", TraceExport())
    message = envelope("1" * 32, trace=SAMPLED)
    assert process(traced, message) is server(traced) is http_request("GET", "https://a.test/") is NO_SPAN
    assert traced.sending([message], prefix="", client="c", server="k:1").trace(0, message) == SAMPLED
    assert traced.mongo_listeners() == []


@pytest.mark.parametrize(
    ("remote", "trusted", "continued", "linked"),
    [
        (None, False, False, False),
        (SAMPLED, True, True, False),
        (SAMPLED, False, False, True),
        ("x", True, False, False),
    ],
)
def test_only_a_trusted_context_is_the_parent_of_a_call(
    exported: Exported, remote: str | None, *, trusted: bool, continued: bool, linked: bool
) -> None:
    with tracing() as traced, server(traced, remote=remote, trusted=trusted):
        pass
    (span,) = exported
    assert (span.parent is not None) is continued
    assert bool(span.links) is linked
    if span.parent is not None:
        assert f"{span.parent.span_id:016x}" in SAMPLED


@pytest.mark.parametrize(
    ("sampler", "ratio", "remote", "count"),
    [
        ("parentbased_traceidratio", 1.0, None, 1),
        ("parentbased_traceidratio", 0.0, None, 0),
        ("parentbased_traceidratio", 0.0, SAMPLED, 1),
        ("parentbased_traceidratio", 1.0, UNSAMPLED, 0),
        ("traceidratio", 1.0, UNSAMPLED, 1),
        ("parentbased_always_off", 1.0, None, 0),
        ("always_off", 1.0, SAMPLED, 0),
        ("always_on", 0.0, UNSAMPLED, 1),
    ],
)
def test_sampler(exported: Exported, sampler: str, ratio: float, remote: str | None, count: int) -> None:
    with tracing(sampler=sampler, ratio=ratio) as traced, server(traced, remote=remote, trusted=True) as span:
        # The other bit says that the ID is random (W3C Trace Context Level 2).
        assert int(span.traceparent[-2:], 16) & 1 == count
        message = envelope("1" * 32, trace=span.traceparent)
        with traced.sending([message], prefix="", client="c", server="k:1") as sending:
            # What follows is sampled as the call is.
            assert sending.trace(0, message)[-2:] == span.traceparent[-2:]
        with http_request("GET", "https://a.test/"), smtp_mail("smtp.test", 25):
            pass
    assert bool(exported) is bool(count)


def test_ratio_samples_its_share(exported: Exported) -> None:
    with tracing(ratio=0.3) as traced:
        for _ in range(1000):
            with server(traced):
                pass
    assert 200 < len(exported) < 400


@pytest.mark.parametrize(
    ("status", "failed"),
    [(200, False), (204, False), (302, False), (404, False), (429, False), (500, True), (503, True)],
)
def test_call_fails_only_with_5xx(exported: Exported, status: int, *, failed: bool) -> None:
    with tracing() as traced, server(traced) as span:
        span.routed("POST", "/1/2021-10-06/get_user")
        span.responded(status)
    (got,) = exported
    assert (got.name, got.kind) == ("POST /1/2021-10-06/get_user", SpanKind.SERVER)
    assert (got.status.status_code is StatusCode.ERROR) is failed
    assert got.status.description is None
    expected = {
        "http.request.method": "POST",
        "http.route": "/1/2021-10-06/get_user",
        "http.response.status_code": status,
        "url.scheme": "https",
        "url.path": "/1/2021-10-06/get_user",
        "server.address": "api.test",
        "server.port": 443,
        "network.protocol.version": "1.1",
    }
    assert dict(got.attributes or {}) == expected | ({"error.type": str(status)} if failed else {})


def test_unknown_method_and_path_are_not_recorded(exported: Exported) -> None:
    with tracing() as traced, server(traced, verb="HUNTER2") as span:
        span.routed("HUNTER2", None)
        span.responded(405)
    (got,) = exported
    assert got.name == "HTTP"
    assert dict(got.attributes or {})["http.request.method"] == "_OTHER"
    assert "hunter2" not in got.to_json().lower()


def test_message_is_processed_below_its_sending(exported: Exported) -> None:
    message = envelope("1" * 32, trace=SAMPLED)
    with tracing() as traced, process(traced, message) as span:
        span.handled("done")
    (got,) = exported
    assert (got.name, got.kind) == ("process p.auth.commands", SpanKind.CONSUMER)
    assert got.parent is not None
    assert got.parent.is_remote
    assert [f"{link.context.span_id:016x}" for link in got.links] == [SAMPLED.split("-")[2]]
    assert dict(got.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "p.auth.commands",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 42,
        "messaging.consumer.group.name": "p.auth",
        "messaging.client.id": "auth-1",
        "messaging.message.id": "1" * 32,
        "nest.message.type": message.wire,
        "nest.message.outcome": "done",
    }


def test_without_propagation_each_process_traces_alone(exported: Exported) -> None:
    with tracing(propagates=False) as traced:
        with process(traced, envelope("1" * 32, trace=SAMPLED)):
            pass
        with server(traced, remote=SAMPLED, trusted=True):
            pass
    assert [(span.parent, list(span.links)) for span in exported] == [(None, []), (None, [])]


def test_message_of_a_timer_begins_a_trace_that_is_linked_to_its_cause(exported: Exported) -> None:
    message = envelope("1" * 32, trace=SAMPLED)
    with tracing() as traced, traced.sending([message], prefix="p.", client="c", server="[::1]:9093,k:9092") as sending:
        assert sending.trace(0, message)[3:35] != SAMPLED[3:35]
        sending.acknowledged(0, 5, 7)
    (got,) = exported
    assert (got.name, got.kind, got.parent) == (f"send p.{message.topic}", SpanKind.PRODUCER, None)
    assert [f"{link.context.trace_id:032x}" for link in got.links] == [SAMPLED[3:35]]
    attributes = dict(got.attributes or {})
    assert (attributes["server.address"], attributes["server.port"]) == ("::1", 9093)
    assert (attributes["messaging.destination.partition.id"], attributes["messaging.kafka.offset"]) == ("5", 7)
    assert "messaging.kafka.message.key" not in attributes


def test_dead_letter_keeps_the_context_of_its_message(exported: Exported) -> None:
    with tracing() as traced, process(traced, envelope("1" * 32, trace=SAMPLED)):
        with record_sending("t.dead", [("traceparent", OTHER_TRACE.encode())], client="c", server="k:1") as kept:
            assert kept.traced([("a", b"1")]) == [("a", b"1")]
        with record_sending("replies", [("id", b"1")], client="c", server="k:1") as created:
            headers = dict(created.traced([("id", b"1")]))
    dead, reply, handled = exported
    assert (dead.kind, reply.kind) == (SpanKind.CLIENT, SpanKind.PRODUCER)
    assert [f"{link.context.trace_id:032x}" for link in dead.links] == [OTHER_TRACE[3:35]]
    assert reply.context is not None
    assert headers["traceparent"].decode().split("-")[2] == f"{reply.context.span_id:016x}"
    assert handled.context is not None
    assert dead.parent == reply.parent == handled.context


@pytest.mark.parametrize(
    ("url", "template", "full", "port"),
    [
        ("https://api.stripe.com/v1/customers", "/v1/customers", "https://api.stripe.com/v1/customers", 443),
        (
            "https://api.stripe.com/v1/customers/cus_NffrFeUfNV2Hib?expand[]=x",
            "/v1/customers/{id}",
            "https://api.stripe.com/v1/customers/REDACTED",
            443,
        ),
        (
            "https://api.stripe.com/v1/billing_portal/sessions",
            "/v1/billing_portal/sessions",
            "https://api.stripe.com/v1/billing_portal/sessions",
            443,
        ),
        (
            "https://api.twilio.com/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json?To=%2B49151",
            "/2010-04-01/Accounts/{id}/Messages.json",
            "https://api.twilio.com/2010-04-01/Accounts/REDACTED/Messages.json",
            443,
        ),
        (
            "http://user:hunter2@us21.api.mailchimp.com:81/3.0/lists/1a2b/members/62eeb292278cc15f5817cb78f7790b08",
            "/3.0/lists/{id}/members/{id}",
            "http://us21.api.mailchimp.com:81/3.0/lists/REDACTED/members/REDACTED",
            81,
        ),
        ("https://a.test/ada@example.com/+491511", "/{id}/{id}", "https://a.test/REDACTED/REDACTED", 443),
    ],
)
def test_request_to_a_vendor_is_recorded_without_ids(
    exported: Exported, url: str, template: str, full: str, port: int
) -> None:
    with tracing() as traced, server(traced), http_request("PUT", url, attempt=2) as span:
        span.responded(404)
    got = exported[0]
    assert (got.name, got.kind, got.status.status_code) == (f"PUT {template}", SpanKind.CLIENT, StatusCode.ERROR)
    attributes = dict(got.attributes or {})
    assert attributes.pop("server.address") in full
    assert attributes == {
        "http.request.method": "PUT",
        "http.request.resend_count": 1,
        "http.response.status_code": 404,
        "error.type": "404",
        "url.full": full,
        "url.template": template,
        "server.port": port,
    }


def test_failure_is_recorded_without_the_text_of_the_exception(exported: Exported) -> None:
    with tracing() as traced, server(traced), pytest.raises(ValueError, match="hunter2"), smtp_mail("smtp.test", 587):
        raise ValueError("hunter2")
    smtp = exported[0]
    assert smtp.name == "smtp send"
    assert dict(smtp.attributes or {}) == {
        "network.protocol.name": "smtp",
        "network.transport": "tcp",
        "server.address": "smtp.test",
        "server.port": 587,
        "error.type": "ValueError",
    }
    assert not smtp.events
    assert "hunter2" not in smtp.to_json()


async def test_work_of_several_messages_is_linked_to_each(exported: Exported) -> None:
    with tracing() as traced:
        first, second = (process(traced, envelope(digit * 32, trace=SAMPLED)) for digit in "12")
        members: Any = [None, first, second]
        with batch_span("commit", members, "nest.commit.messages"), http_request("GET", "https://a.test/"):
            pass
        for each in (first, second):
            each.__exit__(None, None, None)
    inner, batch, one, other = exported
    assert inner.parent == batch.context
    assert batch.parent == one.context
    assert [link.context for link in batch.links] == [other.context]
    assert dict(batch.attributes or {}) == {"nest.commit.messages": 3}


async def test_work_of_others_is_not_below_the_span_that_its_task_began_in(exported: Exported) -> None:
    async def other() -> None:
        with batch_span("commit", [None], "nest.commit.messages"), http_request("GET", "https://a.test/"):
            pass

    with tracing() as traced, server(traced):
        await asyncio.create_task(other())
    assert len(exported) == 1


@pytest.fixture
async def documents(mongo_url: str, database_prefix: str, exported: Exported) -> AsyncIterator[Callable[[], Any]]:
    """A traced collection and its tracing."""
    with tracing() as traced:
        client = connect(mongo_url, application="test", listeners=traced.mongo_listeners())
        yield lambda: (traced, database(client, f"{database_prefix}traces")["people"])
        await client.close()


async def test_mongodb_command_is_recorded_without_its_content(
    documents: Callable[[], Any], exported: Exported
) -> None:
    traced, people = documents()
    await people.insert_one({"_id": "outside of every call"})
    with server(traced):
        await people.insert_many([{"_id": "ada@example.com"}, {"_id": "b"}], ordered=False)
        await people.find({"_id": "ada@example.com"}).batch_size(1).to_list()
        with pytest.raises(OperationFailure):
            await people.update_one({"_id": "ada@example.com"}, {"$hunter2": 1})
        with pytest.raises(OperationFailure):
            await people.insert_one({"_id": "ada@example.com"})
    traced.stop()
    insert, find, update, duplicate, _call = exported
    assert (insert.name, insert.kind) == ("insert people", SpanKind.CLIENT)
    attributes = dict(insert.attributes or {})
    assert attributes.pop("server.address")
    assert attributes.pop("server.port")
    assert attributes == {
        "db.system.name": "mongodb",
        "db.operation.name": "insert",
        "db.namespace": people.database.name,
        "db.collection.name": "people",
        "db.operation.batch.size": 2,
    }
    assert (find.name, find.status.status_code) == ("find people", StatusCode.UNSET)
    failures = [dict(each.attributes or {}) for each in (update, duplicate)]
    assert [each["db.response.status_code"] for each in failures] == ["9", "11000"]
    assert [each["error.type"] for each in failures] == ["9", "11000"]
    whole = "".join(each.to_json() for each in exported)
    assert "ada@example.com" not in whole
    assert "hunter2" not in whole


def test_resource_names_the_process(exported: Exported) -> None:
    with tracing("mailer", service_name="mails", attributes={"cloud.region": "x"}) as traced, server(traced):
        pass
    resource = dict(exported[0].resource.attributes)
    assert resource["service.name"] == "mails"
    assert resource["service.namespace"] == "nest"
    assert resource["deployment.environment.name"] == "test"
    assert resource["cloud.region"] == "x"
    assert resource["service.version"]
    assert resource["service.instance.id"]
    scope = exported[0].instrumentation_scope
    assert scope is not None
    assert scope.schema_url == exported[0].resource.schema_url == "https://opentelemetry.io/schemas/1.44.0"
