"""Definitions of Strimzi's topics and users.

Strimzi publishes its classes as a package, but no definitions. These are the schemas of the classes
``io.strimzi.api.kafka.model.topic.KafkaTopicSpec`` and ``…user.KafkaUserSpec`` of Maven's io.strimzi:api, as their
annotations describe them: types, enumerations, bounds and required members.
"""

from __future__ import annotations

from typing import Any, Final

SOURCE: Final = "Maven io.strimzi:api:1.2.0"
STRING: Final = {"type": "string"}
PASSWORD: Final = {
    "type": "object",
    "properties": {
        "valueFrom": {
            "type": "object",
            "properties": {
                "secretKeyRef": {
                    "type": "object",
                    "properties": {"key": STRING, "name": STRING, "optional": {"type": "boolean"}},
                },
            },
        },
    },
    "required": ["valueFrom"],
}
OPERATIONS: Final = [
    *("Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction", "AlterConfigs", "DescribeConfigs"),
    *("IdempotentWrite", "All"),
]
ACL: Final = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["allow", "deny"]},
        "resource": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["topic", "group", "cluster", "transactionalId"]},
                "name": STRING,
                "patternType": {"type": "string", "enum": ["literal", "prefix"]},
            },
            "required": ["type"],
        },
        "host": STRING,
        "operations": {"type": "array", "items": {"type": "string", "enum": OPERATIONS}},
    },
    "required": ["resource", "operations"],
}
TOPIC: Final = {
    "type": "object",
    "properties": {
        "topicName": STRING,
        "partitions": {"type": "integer", "minimum": 1},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 32767},
        "config": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
USER: Final = {
    "type": "object",
    "properties": {
        "authentication": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["tls", "tls-external", "scram-sha-512"]},
                "password": PASSWORD,
            },
            "required": ["type"],
        },
        "authorization": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["simple"]},
                "acls": {"type": "array", "items": ACL},
            },
            "required": ["type", "acls"],
        },
        # Nest uses neither.
        "quotas": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definitions() -> list[dict[str, Any]]:
    """Return the definitions as an API server takes them."""
    return [_definition("KafkaTopic", "kt", TOPIC), _definition("KafkaUser", "ku", USER)]


def _definition(kind: str, short: str, spec: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}, "spec": spec},
        "required": ["spec"],
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": f"{kind.lower()}s", "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.lower()}s.kafka.strimzi.io"},
        "spec": {
            "group": "kafka.strimzi.io",
            "names": {**names, "shortNames": [short], "categories": ["strimzi"]},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
