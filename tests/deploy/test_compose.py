from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.told import ROOT, SETTINGS, STAND_INS, all_variables, command_named, settings, variables

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
ASKED: Final = re.compile(r"\$\{([A-Z_]+):\?[^}]*\}")
"""A variable without which compose does nothing."""


def example() -> dict[str, str]:
    lines = (DEPLOY / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment(service: str) -> dict[str, str]:
    filled_in = {name: value or STAND_INS[name] for name, value in example().items()}
    told: dict[str, str] = SERVICES[service]["environment"]
    return {name: ASKED.sub(lambda asked: filled_in[asked[1]], value) for name, value in told.items()}


@pytest.mark.parametrize("service", SETTINGS)
def test_each_service_starts_with_what_it_is_told(service: str) -> None:
    assert settings(service, environment(service)).kafka_bootstrap == "kafka:9092"


@pytest.mark.parametrize("service", SETTINGS)
def test_no_service_is_told_what_it_does_not_read(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= variables(service)


@pytest.mark.parametrize("service", SETTINGS)
def test_each_service_is_run_by_its_own_command(service: str) -> None:
    assert SERVICES[service]["command"] == ["run", service]
    assert command_named(SERVICES[service]["command"]) == "nest run"


def test_topics_are_made_before_any_service_starts() -> None:
    assert command_named(SERVICES["topics"]["command"], environment("topics")) == "nest topics apply"
    for service in SETTINGS:
        assert SERVICES[service]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_all_of_nest_is_one_image() -> None:
    ours = {name: service for name, service in SERVICES.items() if name in SETTINGS or name == "topics"}
    assert len({service["image"] for service in ours.values()}) == 1
    (build,) = [service["build"] for service in ours.values() if "build" in service]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_the_example_asks_for_what_is_needed_and_nothing_else() -> None:
    asked = set(ASKED.findall((DEPLOY / "compose.yaml").read_text()))
    assert set(example()) == asked
    assert asked <= all_variables()


def test_the_example_holds_no_secret() -> None:
    assert {name: value for name, value in example().items() if value} == {
        "NEST_ENVIRONMENT": "staging",
        "NEST_ISSUER": "http://127.0.0.1:8080",
    }


def test_a_stop_waits_longer_than_a_drain() -> None:
    for service in SETTINGS:
        told = settings(service, environment(service))
        assert float(SERVICES[service]["stop_grace_period"].removesuffix("s")) > told.drain_seconds


def test_health_is_asked_where_it_is_served() -> None:
    for service in SETTINGS:
        told = SERVICES[service]["environment"]
        assert f"http://127.0.0.1:{told['NEST_HEALTH_PORT']}/healthz" in SERVICES[service]["healthcheck"]["test"][-1]


def test_only_the_api_and_the_mail_page_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8080:8080"], "mailpit": ["127.0.0.1:8025:8025"]}


def test_every_volume_is_declared() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"])
