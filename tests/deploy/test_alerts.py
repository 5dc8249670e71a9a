"""Alerting rules against Prometheus and the code: valid rules, existing metrics and labels, a runbook page each."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY

import services
import shared
from tests.deploy.environments import ROOT
from tests.deploy.test_documents import NAMES

FILE: Final = "deploy/prometheus/alerts.yaml"
RULES: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule for group in yaml.safe_load((ROOT / FILE).read_text())["groups"] for rule in group["rules"]
}
TESTS: Final = "deploy/prometheus/alerts_test.yaml"
RUNBOOK: Final = ROOT / "docs/runbook"
PAGES: Final = {page.stem: page.read_text() for page in RUNBOOK.glob("Nest*.md")}
PARTS: Final = ("Meaning", "Effect on users", "How to see it", "What to do", "When it ends")


def exported() -> dict[str, set[str]]:
    """Return the series that Nest exports, with their labels."""
    packages = [shared, *(importlib.import_module(f"{services.__name__}.{name}") for name in NAMES)]
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    collectors = dict(REGISTRY._names_to_collectors)
    return {name: set(getattr(collector, "_labelnames", ())) for name, collector in collectors.items()}


EXPORTED: Final = exported()


def series(expression: str) -> list[tuple[str, set[str]]]:
    """Return the series that an expression reads, with the labels it selects by."""
    found = re.findall(r"\b(nest_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)=", selectors))) for name, selectors in found]


@pytest.mark.parametrize("alert", RULES)
def test_the_metrics_of_an_alarm_exist_with_their_labels(alert: str) -> None:
    expression = RULES[alert]["expr"]
    used = series(expression)
    assert used
    for name, selected in used:
        # The registry also has counters by their name without _total, which no series has.
        assert name in EXPORTED, name
        assert name.endswith(("_total", "_bucket")) or f"{name}_total" not in EXPORTED, f"{name} is a counter"
        assert selected <= EXPORTED[name]
    labels = {"le"}.union(*(EXPORTED[name] for name, _ in used))
    for by in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(by.split(", ")) <= labels


@pytest.mark.parametrize("alert", RULES)
def test_an_alarm_has_severity_summary_and_runbook(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"].endswith(".")
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown <= set().union(*(EXPORTED[name] for name, _ in series(rule["expr"])))
    # Prometheus has it as a template, so that an operator can put the address of the published runbook before it.
    assert rule["annotations"]["runbook_url"] == f'{{{{ or $externalLabels.nest_runbook "docs/runbook" }}}}/{alert}.md'


def test_every_alert_has_a_runbook_page_and_every_page_an_alert() -> None:
    assert set(PAGES) == set(RULES)
    index = (RUNBOOK / "README.md").read_text()
    listed = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \| (\w+) \|", index, re.MULTILINE)
    assert listed == [(name, name, rule["labels"]["severity"]) for name, rule in RULES.items()]


@pytest.mark.parametrize("alert", PAGES)
def test_a_runbook_page_has_its_severity_and_all_parts(alert: str) -> None:
    page = PAGES[alert]
    assert page.startswith(f"# {alert}\n\nSeverity: {RULES[alert]['labels']['severity']}.\n")
    assert re.findall(r"^\*\*([\w ]+)\.\*\*", page, re.MULTILINE) == list(PARTS)
    assert len(page.splitlines()) <= 40


@pytest.mark.parametrize("alert", PAGES)
def test_the_metrics_of_a_runbook_page_exist(alert: str) -> None:
    named = set(re.findall(r"\bnest_[a-z_]+[a-z]\b", PAGES[alert])) - {"nest_runbook"}
    assert named <= set(EXPORTED) | {f"{name}{part}" for name in EXPORTED for part in ("_bucket", "_count", "_sum")}


PROMTOOL: Final = [("check", "rules", "--lint-fatal", FILE), ("test", "rules", TESTS)]
"""Arguments of promtool, of Debian's package prometheus."""


@pytest.mark.parametrize("arguments", PROMTOOL, ids=" ".join)
def test_prometheus_accepts_the_rules_and_their_unit_tests_pass(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(("promtool", *arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alarm_is_unit_tested_quiet_and_firing() -> None:
    cases: dict[str, list[bool]] = {}
    for test in yaml.safe_load((ROOT / TESTS).read_text())["tests"]:
        for case in test["alert_rule_test"]:
            cases.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
    assert {name: sorted(set(fires)) for name, fires in cases.items()} == {name: [False, True] for name in RULES}
