"""Kubernetes resources that are written from declared tables: Strimzi's topics and users, and the alerting rules.

https://strimzi.io/docs/operators/latest/configuring (KafkaTopic, KafkaUser),
https://prometheus-operator.dev/docs/api-reference/api/ (PrometheusRule)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from shared.bus.access import PRINCIPALS, Acl, declared_acls
from shared.bus.topics import declared

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
COMPONENTS: Final = DEPLOY / "kubernetes/components"
REPLICATION: Final = 3
"""Replication factor of the topics. A cluster with fewer brokers changes it by a patch."""
HEADER: Final = "# Written by `make reference` from {}; do not edit.\n"
STRIMZI: Final = "kafka.strimzi.io/v1"
LABELS: Final = "{app.kubernetes.io/part-of: nest, strimzi.io/cluster: kafka}"
_IN_STRIMZI: Final = {
    "describe configs": "DescribeConfigs",
    "alter configs": "AlterConfigs",
    "idempotent write": "IdempotentWrite",
    "cluster action": "ClusterAction",
}
"""Strimzi's names of operations with several words."""


def manifests() -> dict[Path, str]:
    """Return the content of each generated file."""
    alerts = (DEPLOY / "prometheus/alerts.yaml").read_text("utf-8")
    return {
        COMPONENTS / "strimzi/topics.yaml": topics_text(),
        COMPONENTS / "strimzi/users.yaml": users_text(),
        COMPONENTS / "prometheus-operator/rules.yaml": rules_text(alerts),
    }


def topics_text() -> str:
    """Return a ``KafkaTopic`` for each declared topic, dead letters included, with its partitions and settings."""
    documents = [
        f"apiVersion: {STRIMZI}\n"
        "kind: KafkaTopic\n"
        f"metadata: {{name: {topic.name}, labels: {LABELS}}}\n"
        "spec:\n"
        f"  partitions: {topic.partitions}\n"
        f"  replicas: {REPLICATION}\n"
        "  config:\n"
        + "".join(f"    {name}: {json.dumps(value)}\n" for name, value in topic.settings(REPLICATION).items())
        for topic in declared()
    ]
    return HEADER.format("shared/bus/topics.py") + "---\n".join(documents)


def users_text() -> str:
    """Return a ``KafkaUser`` for each process, with the password of its Secret and exactly its declared rights."""
    rights = {user: list(acls) for user, acls in groupby(declared_acls(), lambda acl: acl.principal)}
    documents = [
        f"apiVersion: {STRIMZI}\n"
        "kind: KafkaUser\n"
        f"metadata: {{name: {process}, labels: {LABELS}}}\n"
        "spec:\n"
        "  authentication:\n"
        "    type: scram-sha-512\n"
        "    password:\n"
        "      valueFrom:\n"
        f"        secretKeyRef: {{name: nest-{process}, key: NEST_{process.upper()}_KAFKA_PASSWORD}}\n"
        "  authorization:\n"
        "    type: simple\n"
        "    acls:\n" + "".join(_rules(rights[f"User:{process}"]))
        for process in PRINCIPALS
    ]
    return HEADER.format("shared/bus/access.py") + "---\n".join(documents)


def rules_text(alerts: str) -> str:
    """Return the ``PrometheusRule`` with the groups of a rule file of Prometheus."""
    groups = alerts[alerts.index("groups:\n") :]
    lines = [f"  {line}" if line.strip() else "" for line in groups.splitlines()]
    return (
        HEADER.format("deploy/prometheus/alerts.yaml")
        + "apiVersion: monitoring.coreos.com/v1\n"
        + "kind: PrometheusRule\n"
        + "metadata: {name: nest, labels: {app.kubernetes.io/part-of: nest}}\n"
        + "spec:\n"
        + "".join(f"{line}\n" for line in lines)
    )


def _rules(acls: list[Acl]) -> Iterator[str]:
    """Yield one rule for each topic or group, with all operations on it."""
    for (resource, name), same in groupby(acls, lambda acl: (acl.resource, acl.name)):
        operations = ", ".join(_IN_STRIMZI.get(acl.operation, acl.operation.capitalize()) for acl in same)
        named = "" if resource == "cluster" else f", name: {name}, patternType: literal"
        yield f"      - {{resource: {{type: {resource}{named}}}, operations: [{operations}]}}\n"
