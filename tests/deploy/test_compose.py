from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from services.operator.health_check import check
from tests.deploy.environments import ROOT, SETTINGS, STAND_INS, all_variables, command_named, settings, variables

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
COLLECTOR: Final = "http://otel-collector:4318/v1/traces"
REQUIRED: Final = re.compile(r"\$\{([A-Z_]+):\?[^}]*\}")
"""A variable that compose requires."""


def example() -> dict[str, str]:
    lines = (DEPLOY / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment(service: str) -> dict[str, str]:
    filled_in = {name: value or STAND_INS.get(name, "") for name, value in example().items()}
    declared: dict[str, str | None] = SERVICES[service]["environment"]
    # A variable without a value is passed on if it is set, for example by `make up PROFILE=observability`.
    set_here = {name: value for name, value in declared.items() if value is not None}
    return {name: REQUIRED.sub(lambda match: filled_in[match[1]], value) for name, value in set_here.items()}


@pytest.mark.parametrize("service", SETTINGS)
def test_each_service_starts_with_its_environment(service: str) -> None:
    assert settings(service, environment(service)).kafka_bootstrap == "kafka:9092"


@pytest.mark.parametrize("service", SETTINGS)
def test_no_service_has_variables_that_it_does_not_read(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= variables(service)


@pytest.mark.parametrize("service", SETTINGS)
def test_each_service_has_its_own_command(service: str) -> None:
    assert SERVICES[service]["command"] == ["run", service]
    assert command_named(SERVICES[service]["command"]) == "nest run"


def test_topics_are_created_before_any_service_starts() -> None:
    assert command_named(SERVICES["topics"]["command"], environment("topics")) == "nest topics apply"
    for service in SETTINGS:
        assert SERVICES[service]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_all_services_use_one_image() -> None:
    ours = {name: service for name, service in SERVICES.items() if name in SETTINGS or name == "topics"}
    assert len({service["image"] for service in ours.values()}) == 1
    (build,) = [service["build"] for service in ours.values() if "build" in service]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_the_example_sets_every_required_variable() -> None:
    required = set(REQUIRED.findall((DEPLOY / "compose.yaml").read_text()))
    assert required <= set(example()) <= all_variables()


def test_the_example_contains_no_secret() -> None:
    assert {name: value for name, value in example().items() if value} == {
        "NEST_ENVIRONMENT": "staging",
        "NEST_ISSUER": "http://127.0.0.1:8080",
        "NEST_KAFKA_BOOTSTRAP": "kafka:9092",
        "NEST_STRIPE_LIVEMODE": "false",
    }


def test_the_stop_grace_period_is_longer_than_the_drain() -> None:
    for service in SETTINGS:
        loaded = settings(service, environment(service))
        assert float(SERVICES[service]["stop_grace_period"].removesuffix("s")) > loaded.drain_seconds


@pytest.mark.parametrize("service", SETTINGS)
def test_the_health_check_of_the_image_finds_the_health_port(service: str) -> None:
    assert "healthcheck" not in SERVICES[service]
    command = ["/opt/nest/bin/python", "/opt/nest/bin/nest", *SERVICES[service]["command"]]
    code, report = check(command, environment(service))
    assert code == 1
    assert "no answer from 127.0.0.1 port 8081" in report
    assert "no answer from ::1 port 8081" in report


@pytest.mark.parametrize("service", SETTINGS)
def test_every_port_is_open_on_ipv4_and_ipv6(service: str) -> None:
    hosts = {name: value for name, value in environment(service).items() if name.endswith("_HOST")}
    assert hosts.pop("NEST_HEALTH_HOST") == "::"
    assert hosts.pop("NEST_HOST", None) == ("::" if service == "gateway" else None)


def test_only_the_api_and_the_pages_are_published_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "gateway": ["127.0.0.1:8080:8080"],
        "mailpit": ["127.0.0.1:8025:8025"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
        "jaeger": ["127.0.0.1:16686:16686"],
    }


def test_every_volume_is_declared() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert {name for name in used if not name.startswith("./")} == set(COMPOSE["volumes"])


def test_every_mounted_file_exists_and_is_read_only() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ()) if volume[0] == "."]
    assert len(mounts) == 5
    for source, _, options in (mount.split(":") for mount in mounts):
        assert (DEPLOY / source).exists(), source
        assert options == "ro"


def test_the_profiles_are_core_and_observability() -> None:
    core = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert core == {*SETTINGS, "topics", "kafka", "mongo", "mailpit"}
    observability = {name for name, service in SERVICES.items() if service.get("profiles") == ["observability"]}
    assert observability == {"prometheus", "grafana", "otel-collector", "jaeger"}
    assert core | observability == set(SERVICES)


def test_prometheus_accepts_its_configuration_and_finds_every_service() -> None:
    """`promtool check config`, with the alerting rules that it includes."""
    file = DEPLOY / "prometheus/prometheus.yml"
    ran = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (nest,) = [job for job in yaml.safe_load(file.read_text())["scrape_configs"] if job["job_name"] == "nest"]
    (found,) = nest["dns_sd_configs"]
    assert set(found["names"]) == set(SETTINGS)
    assert {environment(service)["NEST_HEALTH_PORT"] for service in SETTINGS} == {str(found["port"])}


def test_the_collector_receives_what_the_services_send() -> None:
    collector = yaml.safe_load((DEPLOY / "otel/collector.yaml").read_text())
    endpoint = re.search(r"http://([a-z-]+):(\d+)/v1/traces", (DEPLOY / "compose").read_text())
    assert endpoint is not None
    assert endpoint[1] in SERVICES
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{endpoint[2]}")
    (exporter,) = collector["exporters"].values()
    assert exporter["endpoint"].split(":")[0] in SERVICES
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])


@pytest.mark.parametrize(("profile", "number"), [("core", 9), ("observability", 13)])
def test_docker_compose_accepts_each_profile(profile: str, number: int, tmp_path: Path) -> None:
    """The real parser, where there is one: `docker compose config` needs no engine."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no docker compose")
    filled_in = {name: value or STAND_INS.get(name, "") for name, value in example().items()}
    (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in filled_in.items()))
    command = ["docker", "compose", "--env-file", tmp_path / ".env", "-f", DEPLOY / "compose.yaml"]
    ran = subprocess.run(
        [*command, "--profile", profile, "config", "--format", "json"], capture_output=True, check=True
    )
    configured = json.loads(ran.stdout)["services"]
    assert len(configured) == number
    assert {name for name in configured if name in SETTINGS} == set(SETTINGS)


class Script:
    """`deploy/compose` in a folder of its own, with a `docker` that logs its arguments and does what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "deploy"
        self.path.mkdir()
        shutil.copy(DEPLOY / "compose", self.path / "compose")
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("sh", "dirname"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def docker(self, cases: str) -> None:
        """Install a `docker` with these cases of a shell's `case`, by all arguments."""
        log = self.folder / "log"
        (self.bin / "docker").write_text(
            f'#!/bin/sh\necho "$* ${{NEST_OTLP_ENDPOINT:-}}" >> {log}\ncase "$*" in\n{cases}\nesac\n'
        )
        (self.bin / "docker").chmod(0o755)

    def run(self, *words: str) -> tuple[int, str, list[str]]:
        """Return the exit code, the output and the calls of `docker`."""
        environment = {"PATH": str(self.bin)}
        ran = subprocess.run(
            [self.path / "compose", *words], env=environment, capture_output=True, text=True, check=False
        )
        log = self.folder / "log"
        return ran.returncode, ran.stdout + ran.stderr, log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.mark.parametrize(
    ("cases", "words", "says"),
    [
        (None, ["up"], "there is no docker: install Docker Engine with Compose, or run Nest without it: make run"),
        ("'compose version') exit 1;;", ["up"], "docker has no compose"),
        ("version) echo Cannot connect >&2; exit 1;;", ["up"], "no Docker engine answers"),
        ("x) ;;", ["up"], "deploy/.env is missing: cp deploy/example.env deploy/.env"),
        ("x) ;;", ["up", "everything"], "there is no profile everything"),
    ],
)
def test_the_script_names_what_is_missing(script: Script, cases: str | None, words: list[str], says: str) -> None:
    if cases is not None:
        script.docker(cases)
    code, output, calls = script.run(*words)
    assert code == 1
    assert says in output
    assert not [call for call in calls if " up " in call]


def test_the_script_shows_the_reason_of_docker(script: Script) -> None:
    script.docker("version) echo permission denied >&2; exit 1;;")
    assert "permission denied" in script.run("up")[1]


def test_the_script_stops_before_the_build_if_a_variable_is_missing(script: Script) -> None:
    script.docker("*config*) echo required variable NEST_ISSUER is missing >&2; exit 1;;")
    (script.path / ".env").touch()
    code, output, calls = script.run("up", "core")
    assert code == 1
    assert "required variable NEST_ISSUER" in output
    assert "deploy/.env is incomplete" in output
    assert not [call for call in calls if " up " in call]


@pytest.mark.parametrize(
    ("words", "call", "says"),
    [
        (["up"], "compose --profile core up --build --detach --wait --wait-timeout 600 ", "127.0.0.1:8080"),
        (
            ["up", "observability"],
            f"compose --profile observability up --build --detach --wait --wait-timeout 600 {COLLECTOR}",
            "127.0.0.1:16686",
        ),
        (["down", "core"], "compose --profile observability down ", "the data is kept"),
        (["logs", "core"], "compose --profile observability logs --follow --tail 100 ", ""),
        (["logs", "core", "auth"], "compose --profile observability logs --follow --tail 100 auth ", ""),
    ],
)
def test_the_script_runs_compose_with_the_profile(script: Script, words: list[str], call: str, says: str) -> None:
    script.docker("x) ;;")
    (script.path / ".env").touch()
    code, output, calls = script.run(*words)
    assert code == 0, output
    assert calls[-1] == call
    assert says in output


def test_the_script_lists_the_containers_if_one_is_not_healthy(script: Script) -> None:
    script.docker("*' up '*) exit 1;;\n*' ps '*) echo nest-auth-1 unhealthy;;")
    (script.path / ".env").touch()
    code, output, _ = script.run("up")
    assert code == 1
    assert "nest-auth-1 unhealthy" in output
    assert "not every container is healthy" in output
