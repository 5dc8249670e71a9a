"""Variables of OpenTelemetry (specification 1.x, "Environment Variable Specification" and "OTLP Exporter")."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.otel_settings import OtelSettings, TraceExport
from shared.variables import SettingsError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in OtelSettings.model_fields:
        monkeypatch.delenv(OtelSettings.variable(field), raising=False)


def export(monkeypatch: pytest.MonkeyPatch, **variables: str) -> TraceExport:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    return OtelSettings().trace_export()


def test_nothing_is_exported_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert export(monkeypatch).exporter == "none"


ENDPOINT = {"EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (ENDPOINT, {"exporter": "otlp", "ratio": 1.0, "sampler": "parentbased_traceidratio", "propagates": True}),
        ({**ENDPOINT, "SDK_DISABLED": "TRUE"}, {"exporter": "none"}),
        ({**ENDPOINT, "SDK_DISABLED": ""}, {"exporter": "otlp"}),
        ({**ENDPOINT, "TRACES_EXPORTER": "none"}, {"exporter": "none"}),
        ({**ENDPOINT, "TRACES_EXPORTER": ""}, {"exporter": "otlp"}),
        ({"TRACES_EXPORTER": "console"}, {"exporter": "console"}),
        ({"TRACES_EXPORTER": "otlp"}, {"exporter": "otlp"}),
        ({"TRACES_SAMPLER_ARG": "0.25"}, {"ratio": 0.25, "sampler": "parentbased_traceidratio"}),
        ({"TRACES_SAMPLER_ARG": "0"}, {"ratio": 0.0}),
        ({"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "1e-3"}, {"ratio": 0.001, "sampler": "traceidratio"}),
        ({"TRACES_SAMPLER": "Always_On"}, {"sampler": "always_on"}),
        ({"PROPAGATORS": "none"}, {"propagates": False}),
        ({"PROPAGATORS": "tracecontext,baggage"}, {"propagates": True}),
        ({"SERVICE_NAME": "login"}, {"service_name": "login"}),
        ({"RESOURCE_ATTRIBUTES": "a=1, b=x%2Cy"}, {"attributes": {"a": "1", "b": "x,y"}}),
        ({"EXPORTER_OTLP_TIMEOUT": "2500"}, {"timeout": 2.5}),
        ({"EXPORTER_OTLP_TIMEOUT": "2500", "EXPORTER_OTLP_TRACES_TIMEOUT": "500"}, {"timeout": 0.5}),
        ({"EXPORTER_OTLP_COMPRESSION": "gzip"}, {"gzip": True}),
        ({"EXPORTER_OTLP_COMPRESSION": "gzip", "EXPORTER_OTLP_TRACES_COMPRESSION": "none"}, {"gzip": False}),
        ({"EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"exporter": "none"}),
        ({"SPAN_LINK_COUNT_LIMIT": "4"}, {"limits": {"max_links": 4}}),
    ],
)
def test_variable_is_respected(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, object]
) -> None:
    result = export(monkeypatch, **variables)
    assert {name: getattr(result, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        ({"EXPORTER_OTLP_ENDPOINT": "https://collector/otlp/"}, "https://collector/otlp/v1/traces"),
        ({**ENDPOINT, "EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:9/x"}, "http://traces:9/x"),
    ],
)
def test_endpoint_of_traces(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str) -> None:
    assert export(monkeypatch, **variables).endpoint.get_secret_value() == endpoint


def test_secret_may_be_the_content_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("authorization=Bearer%20x\n")
    headers = export(monkeypatch, EXPORTER_OTLP_HEADERS_FILE=str(file)).headers
    assert headers == SecretStr("authorization=Bearer%20x")
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_HEADERS: is set, and .*_FILE too"):
        export(monkeypatch, EXPORTER_OTLP_HEADERS="a=b")


WRONG = {
    "SDK_DISABLED": ["1", "yes", "on"],
    "TRACES_EXPORTER": ["zipkin", "otlp,console", "1"],
    "TRACES_SAMPLER": ["all", "jaeger_remote", "0.5"],
    "TRACES_SAMPLER_ARG": ["-0.1", "1.1", "10%", "nan", "inf"],
    "PROPAGATORS": ["b3", "none,tracecontext", "jaeger"],
    "RESOURCE_ATTRIBUTES": ["a", "=b", ",".join(f"k{n}=v" for n in range(65))],
    "SERVICE_NAME": ["x" * 256],
    "EXPORTER_OTLP_ENDPOINT": ["collector:4318", "ftp://collector", "http://", "http://a b", "http://a:99999"],
    "EXPORTER_OTLP_TRACES_ENDPOINT": ["/v1/traces", "grpc://collector"],
    "EXPORTER_OTLP_HEADERS": ["authorization", "a b=c", "a=b%0ac", "x" * 9_000],
    "EXPORTER_OTLP_TRACES_HEADERS": ["=x"],
    "EXPORTER_OTLP_PROTOCOL": ["grpc", "http/json", "http"],
    "EXPORTER_OTLP_TRACES_PROTOCOL": ["grpc"],
    "EXPORTER_OTLP_TIMEOUT": ["0", "-1", "10s", "1.5", "99999999"],
    "EXPORTER_OTLP_TRACES_TIMEOUT": ["x"],
    "EXPORTER_OTLP_COMPRESSION": ["brotli", "true"],
    "EXPORTER_OTLP_CERTIFICATE": ["/nowhere/ca.pem"],
    "EXPORTER_OTLP_CLIENT_CERTIFICATE": ["/nowhere/client.pem"],
    "EXPORTER_OTLP_CLIENT_KEY": ["/nowhere/key.pem", __file__],
    "BSP_SCHEDULE_DELAY": ["0", "soon"],
    "BSP_EXPORT_TIMEOUT": ["0"],
    "BSP_MAX_QUEUE_SIZE": ["0", "2000000"],
    "BSP_MAX_EXPORT_BATCH_SIZE": ["0", "4096"],
    "ATTRIBUTE_COUNT_LIMIT": ["-1"],
    "ATTRIBUTE_VALUE_LENGTH_LIMIT": ["unlimited"],
    "SPAN_EVENT_COUNT_LIMIT": ["1.5", "x"],
}
"""Values that refuse the start."""


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_value_refuses_the_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        export(monkeypatch, **{name: value})
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"OTEL_{name}: ")


def test_ratio_without_a_sampler_that_takes_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG: the sampler always_off takes no ratio"):
        export(monkeypatch, TRACES_SAMPLER="always_off", TRACES_SAMPLER_ARG="0.5")
