"""Spans of calls to Stripe (semantic conventions 1.44.0, HTTP client)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from pydantic import SecretStr

from services.billing.stripe_api.calls import StripeRefused, Timeouts, open_calls
from services.stripe_double import StripeDouble
from shared.otel_settings import TraceExport
from shared.tracing import Tracing
from tests.billing.conftest import API_KEY


async def test_each_call_to_stripe_has_a_span_without_ids(
    double: StripeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[ReadableSpan] = []

    def export(_: OTLPSpanExporter, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        exported.extend(batch)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    tracing = Tracing("billing", TraceExport(exporter="otlp"))
    arguments: dict[str, Any] = {"api_key": SecretStr(API_KEY), "api_base": double.url, "rate": 100.0}
    async with open_calls(**arguments, timeouts=Timeouts()) as calls:
        with tracing.server("POST", version="1.1", scheme="http", server="a", remote=None, trusted=False):
            customer = await calls.post("create_customer", "/v1/customers", {"email": "ada@example.com"})
            await calls.get("get_customer", f"/v1/customers/{customer['id']}", {})
            with pytest.raises(StripeRefused):
                await calls.get("get_customer", "/v1/customers/cus_00000000000000", {})
    tracing.stop()
    created, read, refused, _ = exported
    assert [each.name for each in (created, read, refused)] == [
        *("POST /v1/customers", "GET /v1/customers/{id}", "GET /v1/customers/{id}"),
    ]
    attributes = [dict(each.attributes or {}) for each in (created, read, refused)]
    assert [each["http.response.status_code"] for each in attributes] == [200, 200, 404]
    assert [each.get("error.type") for each in attributes] == [None, None, "404"]
    assert attributes[1]["url.full"] == f"{double.url}/v1/customers/REDACTED"
    whole = "".join(each.to_json() for each in exported)
    for secret in (customer["id"], "ada@example.com", API_KEY):
        assert secret not in whole
