from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
import yaml  # type: ignore[import-untyped]

from services.operator.kafka import OperatorSettings
from shared.settings import load
from tests.deploy.environments import (
    ROOT,
    SETTINGS,
    STAND_INS,
    all_variables,
    command_named,
    own_variables,
    settings,
    variables,
)

FOLDER: Final = ROOT / "deploy/kubernetes"
BASE: Final = FOLDER / "base"
OVERLAYS: Final = {folder.name: folder for folder in (FOLDER / "overlays").iterdir() if folder.is_dir()}


def read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def kustomization(folder: Path) -> dict[str, Any]:
    (found,) = read(folder / "kustomization.yaml")
    return found


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


OBJECTS: Final = [each for name in kustomization(BASE)["resources"] for each in read(BASE / name)]
PROCESSES: Final = (*SETTINGS, "operator")
"""Processes that may have variables of their own; the topics are created by ``operator``."""
SECRETS: Final = env_file(FOLDER / "secrets.example.env")


def objects(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {name: each["spec"]["template"]["spec"] for name, each in (objects("Deployment") | objects("Job")).items()}


def container(name: str) -> dict[str, Any]:
    (found,) = pods()[name]["containers"]
    return dict(found)


def shared_settings(overlay: str) -> dict[str, str]:
    return env_file(BASE / "settings.env") | env_file(OVERLAYS[overlay] / "settings.env")


def environment(service: str, overlay: str) -> dict[str, str]:
    """Return the environment of a container: the ConfigMap and its keys of the Secret."""
    pod_variables = shared_settings(overlay)
    filled_in = {name: STAND_INS[name] for name in SECRETS}
    if pod_variables["NEST_STRIPE_LIVEMODE"] == "true":
        filled_in["NEST_STRIPE_API_KEY"] = "sk_live_of_a_test"
    for variable in container(service).get("env", ()):
        if "value" in variable:
            pod_variables[variable["name"]] = variable["value"]
            continue
        reference = variable["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "nest", "key": variable["name"]}
        pod_variables[variable["name"]] = filled_in[variable["name"]]
    return pod_variables


def test_staging_and_production_have_overlays() -> None:
    assert set(OVERLAYS) == {"staging", "production"}
    assert env_file(OVERLAYS["production"] / "settings.env")["NEST_ENVIRONMENT"] == "production"


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS.values()], ids=lambda folder: folder.name)
def test_every_named_file_exists(folder: Path) -> None:
    found = kustomization(folder)
    for name in found["resources"]:
        assert (folder / name).exists()
    for generator in found["configMapGenerator"]:
        for name in generator["envs"]:
            assert (folder / name).is_file()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_patch_has_a_target(overlay: str) -> None:
    for patch in kustomization(OVERLAYS[overlay])["patches"]:
        target = objects(patch["target"]["kind"])[patch["target"]["name"]]
        for change in yaml.safe_load(patch["patch"]):
            assert change["op"] == "replace"
            found: Any = target
            for step in change["path"].strip("/").split("/"):
                found = found[int(step)] if isinstance(found, list) else found[step]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("service", SETTINGS)
def test_each_service_starts_with_its_environment(service: str, overlay: str) -> None:
    assert settings(service, environment(service, overlay)).environment == overlay


@pytest.mark.parametrize("service", SETTINGS)
def test_no_service_has_secrets_that_it_does_not_read(service: str) -> None:
    assert {variable["name"] for variable in container(service)["env"]} <= variables(service) | own_variables(service)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("pod", [*SETTINGS, "topics"])
def test_each_pod_logs_in_to_kafka_as_a_user_of_its_own(pod: str, overlay: str) -> None:
    user = "operator" if pod == "topics" else pod
    with mock.patch.dict(os.environ, environment(pod, overlay), clear=True):
        kafka = (load(SETTINGS[pod]) if pod in SETTINGS else load(OperatorSettings)).kafka
    assert (kafka.protocol, kafka.user) == ("SASL_SSL", user)
    assert kafka.password is not None


def test_every_named_setting_exists() -> None:
    for overlay in OVERLAYS:
        assert set(shared_settings(overlay)) <= all_variables()
    assert set(SECRETS) <= all_variables().union(*map(own_variables, PROCESSES))


def test_the_example_lists_exactly_the_used_secrets_without_values() -> None:
    used = {variable["name"] for name in pods() for variable in container(name)["env"] if "valueFrom" in variable}
    assert set(SECRETS) == used
    assert not any(SECRETS.values())


def test_each_service_is_a_deployment_with_its_own_command() -> None:
    assert set(objects("Deployment")) == set(SETTINGS)
    for service in SETTINGS:
        assert container(service)["args"] == ["run", service]
        assert command_named(container(service)["args"]) == "nest run"
    assert command_named(container("topics")["args"], shared_settings("production")) == "nest topics apply"


def test_every_pod_runs_the_image_without_privileges_or_token() -> None:
    assert objects("ServiceAccount")["nest"]["automountServiceAccountToken"] is False
    for name, pod in pods().items():
        assert pod["serviceAccountName"] == "nest"
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container(name)["image"] == "nest"
        assert container(name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container(name)["resources"]["limits"]


def test_selectors_match_the_intended_pods() -> None:
    for service in SETTINGS:
        labels = {"app.kubernetes.io/name": "nest", "app.kubernetes.io/component": service}
        spec = objects("Deployment")[service]["spec"]
        assert spec["selector"]["matchLabels"] == labels
        assert spec["template"]["metadata"]["labels"] == labels
        assert objects("PodDisruptionBudget")[service]["spec"]["selector"]["matchLabels"] == labels
    assert objects("Service")["gateway"]["spec"]["selector"]["app.kubernetes.io/component"] == "gateway"
    for policy in objects("NetworkPolicy").values():
        component = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component")
        assert component is None or component in SETTINGS


@pytest.mark.parametrize("service", SETTINGS)
def test_probes_use_the_health_port(service: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(service)["ports"]}
    assert str(ports["health"]) == shared_settings("production")["NEST_HEALTH_PORT"]
    paths = {kind: container(service)[kind]["httpGet"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in paths.values()} == {"health"}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startupProbe": "/healthz",
        "readinessProbe": "/healthz",
        "livenessProbe": "/metrics",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_port_is_open_on_ipv4_and_ipv6(overlay: str) -> None:
    assert {shared_settings(overlay)[name] for name in ("NEST_HOST", "NEST_HEALTH_HOST")} == {"::"}


@pytest.mark.parametrize("service", SETTINGS)
def test_the_termination_grace_period_is_longer_than_the_drain(service: str) -> None:
    drain = settings(service, environment(service, "production")).drain_seconds
    before = container(service).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert pods()[service]["terminationGracePeriodSeconds"] >= int(before[-1]) + drain + 10


def test_ingress_and_autoscaler_target_the_gateway() -> None:
    (rule,) = objects("Ingress")["gateway"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    ports = {port["name"]: port for port in objects("Service")[backend["name"]]["spec"]["ports"]}
    target = ports[backend["port"]["name"]]["targetPort"]
    served = {port["name"]: port["containerPort"] for port in container("gateway")["ports"]}
    assert str(served[target]) == shared_settings("production")["NEST_PORT"]
    assert objects("HorizontalPodAutoscaler")["gateway"]["spec"]["scaleTargetRef"]["name"] == "gateway"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_host_is_the_issuer(overlay: str) -> None:
    host = env_file(OVERLAYS[overlay] / "settings.env")["NEST_ISSUER"].removeprefix("https://")
    (patch,) = [each for each in kustomization(OVERLAYS[overlay])["patches"] if each["target"]["kind"] == "Ingress"]
    assert {change["value"] for change in yaml.safe_load(patch["patch"])} == {host}


def test_the_network_policy_opens_the_port_of_kafka() -> None:
    (shared,) = [each for each in objects("NetworkPolicy").values() if each["metadata"]["name"] == "nest"]
    opened = {port["port"] for rule in shared["spec"]["egress"] for port in rule["ports"]}
    for overlay in OVERLAYS:
        brokers = shared_settings(overlay)["NEST_KAFKA_BOOTSTRAP"].split(",")
        assert {int(broker.rpartition(":")[2]) for broker in brokers} <= opened
