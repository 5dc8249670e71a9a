"""Metrics against Prometheus's conventions and the documents."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Final

from prometheus_client import REGISTRY, generate_latest

from tests.deploy.environments import ROOT
from tests.deploy.metrics_table import tables
from tests.deploy.test_alerts import EXPORTED

DOCUMENT: Final = ROOT / "docs/observability.md"
TABLES: Final = re.compile(r"(?<=<!-- metrics -->\n\n).*?(?=\n<!-- end of metrics -->)", re.DOTALL)
PERSONS: Final = {"user", "user_id", "client_ip", "ip", "address", "email", "number", "phone", "session", "identifier"}


def test_promtool_accepts_the_names_types_and_units_of_all_metrics() -> None:
    assert EXPORTED
    done = subprocess.run(("promtool", "check", "metrics"), input=generate_latest(REGISTRY), check=False, timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_exactly_the_existing_metrics_are_documented() -> None:
    """After a change of metrics: WRITE_METRICS=1 .venv/bin/pytest tests/deploy/test_metrics.py."""
    text = DOCUMENT.read_text()
    if os.environ.get("WRITE_METRICS"):
        text = TABLES.sub(lambda _: tables(), text)
        DOCUMENT.write_text(text)
    assert TABLES.findall(text) == [tables()]


def test_no_label_names_a_person() -> None:
    assert {name: labels & PERSONS for name, labels in EXPORTED.items() if labels & PERSONS} == {}
