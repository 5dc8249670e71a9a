"""Network policies: every connection of every pod, computed as Kubernetes does, against the table of docs/security.md.

https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.deploy.manifests import OVERLAYS, SERVICES, render

PODS: Final = (*SERVICES, "topics", "doctor")
KAFKA: Final = {9092, 9093, 9094}
OUTGOING: Final[dict[str, dict[str, set[Any]]]] = {
    "dns": {pod: {53} for pod in PODS},
    "kafka": dict.fromkeys(PODS, KAFKA),
    "mongodb": {pod: {27017} for pod in ("auth", "billing", "mailer", "news", "doctor")},
    "telemetry": {pod: {4317, 4318} for pod in SERVICES},
    "mail-servers": {"mailer": {25, 465, 587, 2465, 2525, 2587}},
    "vendors": {"billing": {443}, "mailer": {443}},
    "doctor": {"doctor": {"http"}},
}
"""The ports of each peer that each pod may open."""
INCOMING: Final[dict[str, dict[str, set[str]]]] = {
    "ingress-controller": {"gateway": {"http"}},
    "prometheus": {pod: {"health"} for pod in SERVICES},
    "doctor-gateway": {"gateway": {"http"}},
}
KINDS: Final = {"namespaceSelector", "podSelector", "ipBlock"}
PRIVATE: Final = ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1", "::1")
PUBLIC: Final = ("54.187.174.169", "2606:4700::1111")
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def policies(overlay: str) -> dict[str, Any]:
    return {name: each["spec"] for name, each in render(overlay).objects("NetworkPolicy").items()}


def selected(overlay: str, selector: dict[str, Any]) -> Iterator[str]:
    for pod, template in render(overlay).pods().items():
        labels = template["metadata"]["labels"]
        matches = selector.get("matchLabels", {}).items() <= labels.items()
        for each in selector.get("matchExpressions", ()):
            assert each["operator"] == "In"
            matches = matches and labels.get(each["key"]) in each["values"]
        if matches:
            yield pod


def opened(overlay: str, direction: str, peers: str) -> dict[str, dict[str, set[Any]]]:
    return {
        name: {
            pod: {port["port"] for rule in spec[direction] for port in rule["ports"]}
            for pod in selected(overlay, spec["podSelector"])
        }
        for name, spec in policies(overlay).items()
        if direction in spec and all(peers in rule for rule in spec[direction])
    }


def in_overlay(overlay: str, table: dict[str, dict[str, set[Any]]]) -> dict[str, dict[str, set[Any]]]:
    pods = render(overlay).pods()
    return {name: {pod: ports for pod, ports in row.items() if pod in pods} for name, row in table.items()}


@every_overlay
def test_everything_is_denied_in_both_directions_unless_allowed(overlay: str) -> None:
    assert policies(overlay)["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@every_overlay
def test_each_pod_may_open_exactly_these_connections(overlay: str) -> None:
    assert opened(overlay, "egress", "to") == in_overlay(overlay, OUTGOING)


@every_overlay
def test_each_pod_accepts_exactly_these_connections(overlay: str) -> None:
    assert opened(overlay, "ingress", "from") == in_overlay(overlay, INCOMING)


@every_overlay
def test_every_rule_names_its_peers(overlay: str) -> None:
    # An empty list, like an absent one, allows everybody.
    for name, spec in policies(overlay).items():
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, ()):
                assert rule[peers], name
                assert all(
                    peer and set(peer) <= {"namespaceSelector", "podSelector", "ipBlock"} for peer in rule[peers]
                )


@every_overlay
@pytest.mark.parametrize("name", ["mail-servers", "vendors"])
def test_public_addresses_of_both_families_are_reached_and_private_ones_are_not(overlay: str, name: str) -> None:
    (rule,) = policies(overlay)[name]["egress"]

    def reached(address: str) -> bool:
        found = ipaddress.ip_address(address)
        return any(
            found in ipaddress.ip_network(peer["ipBlock"]["cidr"])
            and not any(found in ipaddress.ip_network(each) for each in peer["ipBlock"]["except"])
            for peer in rule["to"]
        )

    assert [address for address in PUBLIC + PRIVATE if reached(address)] == list(PUBLIC)


@every_overlay
def test_the_ports_of_the_settings_are_open(overlay: str) -> None:
    values = render(overlay).settings()
    assert {int(broker.rpartition(":")[2]) for broker in values["NEST_KAFKA_BOOTSTRAP"].split(",")} <= KAFKA
    assert int(values.get("NEST_SMTP_PORT", "587")) in OUTGOING["mail-servers"]["mailer"]
