from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.environments import ROOT, SETTINGS, STAND_INS, all_variables, command_named, settings, variables

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
REQUIRED: Final = re.compile(r"\$\{([A-Z_]+):\?[^}]*\}")
"""A variable that compose requires."""


def example() -> dict[str, str]:
    lines = (DEPLOY / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment(service: str) -> dict[str, str]:
    filled_in = {name: value or STAND_INS.get(name, "") for name, value in example().items()}
    declared: dict[str, str] = SERVICES[service]["environment"]
    return {name: REQUIRED.sub(lambda match: filled_in[match[1]], value) for name, value in declared.items()}


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


def test_health_checks_use_the_health_port() -> None:
    for service in SETTINGS:
        declared = SERVICES[service]["environment"]
        assert (
            f"http://127.0.0.1:{declared['NEST_HEALTH_PORT']}/healthz" in SERVICES[service]["healthcheck"]["test"][-1]
        )


@pytest.mark.parametrize("service", SETTINGS)
def test_every_port_is_open_on_ipv4_and_ipv6(service: str) -> None:
    hosts = {name: value for name, value in environment(service).items() if name.endswith("_HOST")}
    assert hosts.pop("NEST_HEALTH_HOST") == "::"
    assert hosts.pop("NEST_HOST", None) == ("::" if service == "gateway" else None)


def test_only_the_api_and_the_mail_page_are_published_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8080:8080"], "mailpit": ["127.0.0.1:8025:8025"]}


def test_every_volume_is_declared() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"])
