"""OpenTelemetry's standard environment variables of traces, checked at start as every other setting.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/, and for OTLP
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. The specification lets a program ignore a wrong value with
a warning. Nest refuses to start instead: traces that are missing are noticed only when somebody needs them. Other
variables of OpenTelemetry have no effect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.variables import Unit, VariableSettings

PREFIX: Final = "OTEL_"
MAX_PAIRS: Final = 64
MAX_SPANS: Final = 1_000_000
MAX_MILLISECONDS: Final = 3_600_000
RATIO_SAMPLERS: Final = frozenset({"traceidratio", "parentbased_traceidratio"})
DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceExport:
    """How spans are sampled and exported.

    Attributes:
        exporter: ``otlp``, ``console`` or ``none``.
        sampler: one of the six names of the specification.
        ratio: of the traces that a sampler with a ratio samples, from 0 to 1.
        propagates: False if no trace continues in another process.
        service_name: None for Nest's own.
        attributes: further ones of the process.
        endpoint: URL that spans are sent to.
        headers: of each export.
        timeout: of one export, seconds.
        gzip: whether exports are compressed.
        certificate, client_certificate, client_key: PEM files; None for the system's authorities and no certificate.
        batch: arguments of the SDK's batch processor.
        limits: arguments of the SDK's span limits.
    """

    exporter: Literal["otlp", "console", "none"] = "none"
    sampler: str = "parentbased_traceidratio"
    ratio: float = 1.0
    propagates: bool = True
    service_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    endpoint: SecretStr = field(default_factory=lambda: SecretStr(f"{DEFAULT_ENDPOINT}/v1/traces"))
    headers: SecretStr | None = None
    timeout: float = 10.0
    gzip: bool = False
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    batch: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)


def parse_pairs(text: str) -> dict[str, str]:
    """Parse ``key=value`` separated by commas, percent-encoded (https://www.w3.org/TR/baggage/#header-content).

    Raises:
        ValueError: the text has another form, or more than ``MAX_PAIRS`` pairs. The error does not quote it.
    """
    pairs: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError("must be key=value, separated by commas")
        pairs[unquote(key.strip())] = unquote(value.strip())
    if len(pairs) > MAX_PAIRS:
        raise ValueError(f"must be at most {MAX_PAIRS} pairs")
    return pairs


def _is_pairs(text: str) -> str:
    parse_pairs(text)
    return text


def _is_headers(text: SecretStr) -> SecretStr:
    headers = parse_pairs(text.get_secret_value())
    if not all(_TOKEN.fullmatch(name) and _PRINTABLE.fullmatch(value) for name, value in headers.items()):
        raise ValueError("must be HTTP headers, name=value, separated by commas and percent-encoded")
    return text


def is_endpoint(url: SecretStr) -> SecretStr:
    """Accept an absolute URL of HTTP; raise ValueError for another text, without quoting it."""
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be an http or https URL")
    return url


def _is_file(path: Path) -> Path:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("must name a file that can be read")
    return path


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _boolean(value: Any) -> Any:
    if _lower(value) not in ("true", "false", True, False):
        raise ValueError("must be true or false")
    return _lower(value)


def _propagators(value: Any) -> Any:
    names = [part.strip() for part in value.lower().split(",") if part.strip()] if isinstance(value, str) else value
    if "none" in names and len(names) > 1:
        raise ValueError("must be none, or a list of tracecontext and baggage")
    return tuple(names)


_Boolean = Annotated[bool, BeforeValidator(_boolean)]
_Endpoint = Annotated[SecretStr, AfterValidator(is_endpoint)]
_Headers = Annotated[SecretStr, Field(max_length=8_192), AfterValidator(_is_headers)]
_Pairs = Annotated[str, Field(max_length=8_192), AfterValidator(_is_pairs)]
_File = Annotated[Path, AfterValidator(_is_file)]
_Milliseconds = Annotated[int, Unit("milliseconds"), Field(ge=1, le=MAX_MILLISECONDS)]
_Spans = Annotated[int, Unit("spans"), Field(ge=1, le=MAX_SPANS)]
_Limit = Annotated[int, Field(ge=0, le=MAX_SPANS)]
_Characters = Annotated[_Limit, Unit("characters")]
_Attributes = Annotated[_Limit, Unit("attributes")]
_Events = Annotated[_Limit, Unit("events")]
_Links = Annotated[_Limit, Unit("links")]
_Protocol = Annotated[Literal["http/protobuf"], BeforeValidator(_lower)]
_Compression = Annotated[Literal["none", "gzip"], BeforeValidator(_lower)]
_Propagator = Literal["tracecontext", "baggage", "none"]


def _variable(name: str, default: Any = None) -> Any:
    return Field(default=default, validation_alias=PREFIX + name)


class OtelSettings(VariableSettings):
    """Settings of traces. Traces are off unless an exporter or an endpoint is set."""

    SECTIONS: ClassVar = {"otel_sdk_disabled": "Traces"}

    otel_sdk_disabled: _Boolean = _variable("SDK_DISABLED", default=False)
    """``true``: no traces, whatever the other variables say."""
    otel_service_name: Annotated[str, Field(max_length=255)] | None = _variable("SERVICE_NAME")
    """``service.name`` of the process; by default ``nest-`` and the service's name. One per process."""
    otel_resource_attributes: _Pairs | None = _variable("RESOURCE_ATTRIBUTES")
    """Further attributes of the process: ``key=value``, separated by commas, percent-encoded."""
    otel_traces_exporter: Annotated[Literal["otlp", "console", "none"], BeforeValidator(_lower)] | None = _variable(
        "TRACES_EXPORTER"
    )
    """``otlp``, ``console`` (standard output) or ``none``; by default ``otlp`` if an endpoint is set."""
    otel_traces_sampler: Annotated[
        Literal[
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ],
        BeforeValidator(_lower),
    ] = _variable("TRACES_SAMPLER", "parentbased_traceidratio")
    """Sampler of traces. The default does what the specification's default, ``parentbased_always_on``, does, until
    ``OTEL_TRACES_SAMPLER_ARG`` is set."""
    otel_traces_sampler_arg: Annotated[float, Unit("of the traces"), Field(ge=0, le=1, allow_inf_nan=False)] | None = (
        _variable("TRACES_SAMPLER_ARG")
    )
    """Ratio of the traces that begin here and are sampled, from 0 to 1; all by default."""
    otel_propagators: Annotated[tuple[_Propagator, ...], NoDecode, BeforeValidator(_propagators)] = _variable(
        "PROPAGATORS", ("tracecontext",)
    )
    """``tracecontext``, with or without ``baggage``, which Nest does not use; ``none``: each process traces alone."""
    otel_exporter_otlp_endpoint: _Endpoint | None = _variable("EXPORTER_OTLP_ENDPOINT")
    """URL of the OTLP receiver, to which ``/v1/traces`` is added. A secret, since it may contain a password."""
    otel_exporter_otlp_traces_endpoint: _Endpoint | None = _variable("EXPORTER_OTLP_TRACES_ENDPOINT")
    """URL that spans are sent to, with its path; overrides the one above."""
    otel_exporter_otlp_headers: _Headers | None = _variable("EXPORTER_OTLP_HEADERS")
    """Headers of each export: ``name=value``, separated by commas, percent-encoded."""
    otel_exporter_otlp_traces_headers: _Headers | None = _variable("EXPORTER_OTLP_TRACES_HEADERS")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_protocol: _Protocol | None = _variable("EXPORTER_OTLP_PROTOCOL")
    """Only ``http/protobuf``, the specification's default, is supported."""
    otel_exporter_otlp_traces_protocol: _Protocol | None = _variable("EXPORTER_OTLP_TRACES_PROTOCOL")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_timeout: _Milliseconds | None = _variable("EXPORTER_OTLP_TIMEOUT")
    """How long one export may take; 10,000 by default."""
    otel_exporter_otlp_traces_timeout: _Milliseconds | None = _variable("EXPORTER_OTLP_TRACES_TIMEOUT")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_compression: _Compression | None = _variable("EXPORTER_OTLP_COMPRESSION")
    """``gzip``, or ``none``, the default."""
    otel_exporter_otlp_traces_compression: _Compression | None = _variable("EXPORTER_OTLP_TRACES_COMPRESSION")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_certificate: _File | None = _variable("EXPORTER_OTLP_CERTIFICATE")
    """PEM file of the authorities of the receiver's certificate; those of the system by default."""
    otel_exporter_otlp_traces_certificate: _File | None = _variable("EXPORTER_OTLP_TRACES_CERTIFICATE")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_client_certificate: _File | None = _variable("EXPORTER_OTLP_CLIENT_CERTIFICATE")
    """PEM file of a client certificate and its chain."""
    otel_exporter_otlp_traces_client_certificate: _File | None = _variable("EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE")
    """Overrides the variable without ``TRACES``."""
    otel_exporter_otlp_client_key: _File | None = _variable("EXPORTER_OTLP_CLIENT_KEY")
    """PEM file of the client certificate's key."""
    otel_exporter_otlp_traces_client_key: _File | None = _variable("EXPORTER_OTLP_TRACES_CLIENT_KEY")
    """Overrides the variable without ``TRACES``."""
    otel_bsp_schedule_delay: _Milliseconds = _variable("BSP_SCHEDULE_DELAY", 5_000)
    """Pause between two exports."""
    otel_bsp_export_timeout: _Milliseconds = _variable("BSP_EXPORT_TIMEOUT", 30_000)
    """How long the SDK may export at once; a stopping process waits for 3 s at most."""
    otel_bsp_max_queue_size: _Spans = _variable("BSP_MAX_QUEUE_SIZE", 2_048)
    """Spans that wait for an export; more are dropped."""
    otel_bsp_max_export_batch_size: _Spans = _variable("BSP_MAX_EXPORT_BATCH_SIZE", 512)
    """Spans of one export; at most the size of the queue."""
    otel_attribute_value_length_limit: _Characters | None = _variable("ATTRIBUTE_VALUE_LENGTH_LIMIT")
    """Characters of an attribute's value, the rest of which is cut off; no limit by default."""
    otel_attribute_count_limit: _Attributes | None = _variable("ATTRIBUTE_COUNT_LIMIT")
    """Attributes of a span, event or link; 128 by default."""
    otel_span_attribute_value_length_limit: _Characters | None = _variable("SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
    """Overrides the variable without ``SPAN`` for spans."""
    otel_span_attribute_count_limit: _Attributes | None = _variable("SPAN_ATTRIBUTE_COUNT_LIMIT")
    """Overrides the variable without ``SPAN`` for spans."""
    otel_span_event_count_limit: _Events | None = _variable("SPAN_EVENT_COUNT_LIMIT")
    """Events of a span; 128 by default."""
    otel_span_link_count_limit: _Links | None = _variable("SPAN_LINK_COUNT_LIMIT")
    """Links of a span; 128 by default."""
    otel_event_attribute_count_limit: _Attributes | None = _variable("EVENT_ATTRIBUTE_COUNT_LIMIT")
    """Attributes of an event; 128 by default."""
    otel_link_attribute_count_limit: _Attributes | None = _variable("LINK_ATTRIBUTE_COUNT_LIMIT")
    """Attributes of a link; 128 by default."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: Any) -> Any:
        """Drop empty variables: the specification treats them as unset."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if not (name.upper().startswith(PREFIX) and value == "")}

    @field_validator("otel_traces_sampler_arg")
    @classmethod
    def _has_use(cls, value: float | None, info: ValidationInfo) -> float | None:
        sampler = info.data.get("otel_traces_sampler")
        if value is not None and sampler is not None and sampler not in RATIO_SAMPLERS:
            raise ValueError(f"the sampler {sampler} takes no ratio")
        return value

    @field_validator("otel_bsp_max_export_batch_size")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        queue = info.data.get("otel_bsp_max_queue_size", value)
        if value > queue:
            raise ValueError(f"must be at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}")
        return value

    @field_validator("otel_exporter_otlp_client_key", "otel_exporter_otlp_traces_client_key")
    @classmethod
    def _has_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        names = ("otel_exporter_otlp_client_certificate", "otel_exporter_otlp_traces_client_certificate")
        if value is not None and not any(info.data.get(name) for name in names):
            raise ValueError("needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        return value

    def trace_export(self, endpoint: SecretStr | None = None) -> TraceExport:
        """Return how spans are exported; ``endpoint`` stands for ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``."""
        own = endpoint or self.otel_exporter_otlp_traces_endpoint
        base = self.otel_exporter_otlp_endpoint or SecretStr(DEFAULT_ENDPOINT)
        by_default: Literal["otlp", "none"] = "otlp" if own or self.otel_exporter_otlp_endpoint else "none"
        return TraceExport(
            exporter="none" if self.otel_sdk_disabled else self.otel_traces_exporter or by_default,
            sampler=self.otel_traces_sampler,
            ratio=1.0 if self.otel_traces_sampler_arg is None else self.otel_traces_sampler_arg,
            propagates="none" not in self.otel_propagators,
            service_name=self.otel_service_name,
            attributes=parse_pairs(self.otel_resource_attributes or ""),
            endpoint=own or SecretStr(f"{base.get_secret_value().removesuffix('/')}/v1/traces"),
            headers=self._of_traces("headers"),
            timeout=(self._of_traces("timeout") or 10_000) / 1000,
            gzip=self._of_traces("compression") == "gzip",
            certificate=self._of_traces("certificate"),
            client_certificate=self._of_traces("client_certificate"),
            client_key=self._of_traces("client_key"),
            batch={
                "max_queue_size": self.otel_bsp_max_queue_size,
                "schedule_delay_millis": self.otel_bsp_schedule_delay,
                "max_export_batch_size": self.otel_bsp_max_export_batch_size,
                "export_timeout_millis": self.otel_bsp_export_timeout,
            },
            limits={
                argument: limit for argument, name in _LIMITS.items() if (limit := getattr(self, name)) is not None
            },
        )

    def _of_traces(self, name: str) -> Any:
        own = getattr(self, f"otel_exporter_otlp_traces_{name}")
        return getattr(self, f"otel_exporter_otlp_{name}") if own is None else own


_LIMITS: Final[Mapping[str, str]] = {
    "max_attribute_length": "otel_attribute_value_length_limit",
    "max_attributes": "otel_attribute_count_limit",
    "max_span_attribute_length": "otel_span_attribute_value_length_limit",
    "max_span_attributes": "otel_span_attribute_count_limit",
    "max_events": "otel_span_event_count_limit",
    "max_links": "otel_span_link_count_limit",
    "max_event_attributes": "otel_event_attribute_count_limit",
    "max_link_attributes": "otel_link_attribute_count_limit",
}
"""Arguments of the SDK's span limits, and their settings."""
