"""OpenTelemetry's SDK as the settings say: resource, sampler and exporter; imported only where traces are exported."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.semconv.attributes.deployment_attributes import DEPLOYMENT_ENVIRONMENT_NAME
from opentelemetry.semconv.attributes.service_attributes import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    SERVICE_VERSION,
)
from opentelemetry.semconv.schemas import Schemas

from shared.otel_settings import TraceExport, parse_pairs

SCHEMA: Final = Schemas.V1_44_0.value
"""URL of the semantic conventions that the spans follow."""


def trace_provider(service: str, export: TraceExport, *, environment: str, instance: str) -> TracerProvider:
    """Return a provider that samples and exports as the settings say; the arguments are those of ``Tracing``."""
    resource = Resource.create(
        {
            SERVICE_NAME: f"nest-{service}",
            SERVICE_NAMESPACE: "nest",
            SERVICE_VERSION: version("nest"),
            SERVICE_INSTANCE_ID: instance or str(uuid4()),
            **({DEPLOYMENT_ENVIRONMENT_NAME: environment} if environment else {}),
            **export.attributes,
            **({SERVICE_NAME: export.service_name} if export.service_name else {}),
        },
        SCHEMA,
    )
    provider = TracerProvider(
        sampler=_sampler(export.sampler, export.ratio),
        resource=resource,
        span_limits=SpanLimits(**export.limits),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(_exporter(export), **export.batch))
    return provider


def _sampler(name: str, ratio: float) -> Sampler:
    if name.endswith("traceidratio"):
        root: Sampler = TraceIdRatioBased(ratio)
    else:
        root = ALWAYS_ON if name.endswith("always_on") else ALWAYS_OFF
    return ParentBased(root) if name.startswith("parentbased_") else root


def _exporter(export: TraceExport) -> SpanExporter:
    if export.exporter == "console":
        return ConsoleSpanExporter()
    return OTLPSpanExporter(
        endpoint=export.endpoint.get_secret_value(),
        headers=None if export.headers is None else parse_pairs(export.headers.get_secret_value()),
        timeout=export.timeout,
        compression=Compression.Gzip if export.gzip else Compression.NoCompression,
        certificate_file=None if export.certificate is None else str(export.certificate),
        client_certificate_file=None if export.client_certificate is None else str(export.client_certificate),
        client_key_file=None if export.client_key is None else str(export.client_key),
    )
