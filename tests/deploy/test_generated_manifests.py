"""Generated manifests against what they are generated from, read back from the rendered overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from services.reference.manifests import REPLICATION, manifests
from shared.bus.access import Acl, declared_acls
from shared.bus.topics import TOPICS, declared
from tests.deploy.environments import ROOT
from tests.deploy.manifests import FOLDER, OVERLAYS, SERVICES, read, render

OPERATIONS: Final = {"DescribeConfigs": "describe configs", "AlterConfigs": "alter configs"}


@pytest.mark.parametrize("path", manifests(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_is_what_make_reference_writes(path: Path) -> None:
    assert path.read_text("utf-8") == manifests()[path], "run make reference"


def test_every_component_is_in_an_overlay_of_these_tests() -> None:
    used = {
        Path(component).name
        for path in OVERLAYS.values()
        for component in read(ROOT / path / "kustomization.yaml")[0]["components"]
    }
    assert used == {path.parent.name for path in (ROOT / FOLDER / "components").glob("*/kustomization.yaml")}


def test_strimzi_creates_exactly_the_declared_topics() -> None:
    found = {name: each["spec"] for name, each in render("everything").objects("KafkaTopic").items()}
    assert found == {
        topic.name: {
            "partitions": topic.partitions,
            "replicas": REPLICATION,
            "config": topic.settings(REPLICATION),
        }
        for topic in declared()
    }


def acls(user: str, rule: dict[str, Any]) -> set[Acl]:
    resource = rule["resource"]
    name = resource.get("name", "kafka-cluster")
    assert resource.get("patternType", "literal") == "literal"
    return {
        Acl(f"User:{user}", resource["type"], name, OPERATIONS.get(each, each.lower())) for each in rule["operations"]
    }


def test_strimzi_gives_each_user_exactly_the_declared_rights() -> None:
    users = render("everything").objects("KafkaUser")
    found = [
        acls(name, rule)
        for name, each in users.items()
        for rule in (each["spec"]["authorization"]["acls"] if each["spec"]["authorization"]["type"] == "simple" else ())
    ]
    assert set().union(*found) == set(declared_acls())


def test_each_user_of_strimzi_has_the_password_of_its_pods() -> None:
    rendered = render("everything")
    for name, user in rendered.objects("KafkaUser").items():
        assert user["spec"]["authentication"]["type"] == "scram-sha-512"
        pod = "topics" if name == "operator" else name
        references = rendered.secret_keys(pod)
        assert user["spec"]["authentication"]["password"]["valueFrom"]["secretKeyRef"] in references.values()


def test_the_rules_of_prometheus_are_all_alerts() -> None:
    rules = render("everything").objects("PrometheusRule")["nest"]["spec"]
    assert rules == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())


def test_prometheus_scrapes_the_health_port_of_every_service() -> None:
    monitor = render("everything").objects("PodMonitor")["nest"]["spec"]
    assert [(each["port"], each["path"]) for each in monitor["podMetricsEndpoints"]] == [("health", "/metrics")]
    assert monitor["selector"]["matchLabels"] == {"app.kubernetes.io/name": "nest"}
    (expression,) = monitor["selector"]["matchExpressions"]
    assert (expression["operator"], set(expression["values"])) == ("In", set(SERVICES))


def test_each_service_scales_with_the_lag_of_its_group_up_to_its_partitions() -> None:
    rendered = render("everything")
    scaled = {name: each["spec"] for name, each in rendered.objects("ScaledObject").items()}
    partitions = {topic.name: topic.partitions for topic in TOPICS}
    assert set(scaled) == {service for service in SERVICES if service != "gateway"}
    for service, spec in scaled.items():
        assert spec["scaleTargetRef"]["name"] == service
        assert spec["minReplicaCount"] == 2
        assert spec["maxReplicaCount"] <= partitions[f"{service}.commands"]
        (trigger,) = spec["triggers"]
        assert trigger["metadata"]["consumerGroup"] == service
        # KEDA reads both from the environment of the service's own pods.
        assert trigger["metadata"]["bootstrapServersFromEnv"] in rendered.settings(service)
        login = rendered.objects("TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]["env"]
        assert {each["parameter"] for each in login} == {"username", "password"}
        assert {each["name"] for each in login} <= rendered.environment(service).keys()


def test_a_scaled_deployment_names_no_replicas_itself() -> None:
    rendered = render("everything")
    autoscaled = {each["spec"]["scaleTargetRef"]["name"] for each in rendered.objects("ScaledObject").values()}
    autoscaled |= {
        each["spec"]["scaleTargetRef"]["name"] for each in rendered.objects("HorizontalPodAutoscaler").values()
    }
    deployments = rendered.objects("Deployment")
    assert autoscaled == set(deployments)
    assert not [name for name in autoscaled if "replicas" in deployments[name]["spec"]]


@pytest.mark.parametrize("secret", ["gateway", "auth", "billing", "mailer", "news", "operator"])
def test_each_secret_comes_from_an_object_of_the_store(secret: str) -> None:
    spec = render("everything").objects("ExternalSecret")[f"nest-{secret}"]["spec"]
    assert spec["target"]["name"] == f"nest-{secret}"
    assert spec["dataFrom"] == [{"extract": {"key": f"nest/{secret}"}}]
    if secret != "operator":
        deployment = render("everything").objects("Deployment")[secret]
        assert deployment["metadata"]["annotations"]["reloader.stakater.com/auto"] == "true"
