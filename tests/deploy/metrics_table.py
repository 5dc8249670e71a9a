"""The tables of metrics in docs/observability.md, as the code exports them."""

from __future__ import annotations

import sys
from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from tests.deploy.test_alerts import EXPORTED
from tests.deploy.test_documents import NAMES

assert EXPORTED  # it has imported all services

PARTS: Final = {"Every process": "shared.", **{name: f"services.{name}." for name in sorted(NAMES)}}
"""Heading and package of each table; a metric belongs to the first package that has it."""


def metrics_in(package: str) -> set[MetricWrapperBase]:
    """Return the metrics that modules of a package have, declared or imported."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(package)]
    return {each for module in modules for each in vars(module).values() if isinstance(each, MetricWrapperBase)}


def tables() -> str:
    """Return the tables, as Markdown."""
    shown: set[MetricWrapperBase] = set()
    parts = []
    for heading, package in PARTS.items():
        rows = [_row(each) for each in metrics_in(package) - shown]
        shown |= metrics_in(package)
        if rows:
            parts.append(
                f"### {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(sorted(rows))
            )
    return "\n".join(parts)


def _row(collector: MetricWrapperBase) -> str:
    (metric,) = collector.describe()
    name = metric.name + "_total" * (metric.type == "counter")
    labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "none"
    return f"| `{name}` | {metric.type} | {labels} | {metric.documentation.rstrip('.')} |\n"
