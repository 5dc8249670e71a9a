"""Grafana's dashboards against their source, Grafana's schema, Prometheus and the metrics of Nest."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from services.reference.dashboards import FOLDER, Board, Panel, declared, files
from tests.deploy.environments import ROOT
from tests.deploy.test_alerts import EXPORTED, series

BOARDS: Final = {board.uid: board for board in declared()}
UNITS: Final = {"short", "s", "bytes", "ops", "reqps", "percentunit", "bool_on_off"}
"""Units of Grafana that the panels use (https://github.com/grafana/grafana, packages/grafana-data, valueFormats)."""
NODE_MODULES: Final = ROOT / "tests/reference/clients/typescript/node_modules"
"""With TypeScript and @grafana/schema, Grafana's published types."""
PROCESS: Final = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Metrics of the Python client library."""


def panels(board: Board) -> list[Panel]:
    return [panel for row in board.rows.values() for panel in row]


def expressions() -> dict[str, str]:
    """Return the PromQL of every panel by its place."""
    return {
        f"{uid}: {panel.title}: {legend}": expression.replace("$__rate_interval", "1m")
        for uid, board in BOARDS.items()
        for panel in panels(board)
        for legend, expression in panel.queries.items()
    }


def test_there_is_an_overview_and_a_dashboard_for_each_service_and_stripe() -> None:
    names = ("overview", "gateway", "auth", "billing", "mailer", "news", "stripe")
    assert list(BOARDS) == [f"nest-{name}" for name in names]
    assert {path.name for path in (FOLDER / "dashboards").iterdir()} == {path.name for path in files()}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_dashboard_is_what_make_reference_writes(path: Path) -> None:
    assert path.read_text("utf-8") == files()[path], "run make reference"


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_have_ids_units_and_places_that_do_not_overlap(uid: str) -> None:
    shown: list[dict[str, Any]] = json.loads((FOLDER / f"dashboards/{uid}.json").read_text())["panels"]
    ids = [panel["id"] for panel in shown]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in shown:
        place = panel["gridPos"]
        own = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells
        assert max(column for column, _ in own) < 24
        cells |= own
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
            assert panel["title"]
    titles = [panel.title for panel in panels(BOARDS[uid])]
    assert len(set(titles)) == len(titles)


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions().values())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    command = ("promtool", "check", "rules", str(tmp_path / "rules.yaml"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_queries_name_existing_metrics_and_labels() -> None:
    for place, expression in expressions().items():
        used = series(expression)
        assert used or "ALERTS" in expression, place
        labels = {"le", "instance", "job"}
        for name, selected in used:
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            known = EXPORTED.get(name) or EXPORTED.get(base)
            assert name in EXPORTED, place
            assert known is not None, place
            assert selected <= known | {"le"}, place
            labels |= known
        for by in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(by.split(", ")) <= labels, place
        shown = set(re.findall(r"{{(\w+)}}", place))
        assert shown <= labels, place
        assert set(re.findall(r"\b(process_\w+)", expression)) <= PROCESS, place


def test_every_metric_of_nest_is_on_a_dashboard_or_in_an_alert() -> None:
    read = " ".join(expressions().values()) + (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    named = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in re.findall(r"\bnest_\w+", read)}
    exported = {
        re.sub(r"_(bucket|count|sum|total|created)$", "", name) for name in EXPORTED if name.startswith("nest_")
    }
    assert exported - named <= {"nest_outage_notices", "nest_messages_republished", "nest_records_expired"}


def test_provisioning_names_the_folder_and_the_data_source() -> None:
    provisioning = FOLDER / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((provisioning / "dashboards/nest.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_the_dashboards_have_the_types_of_grafanas_schema(tmp_path: Path) -> None:
    """As literals, so that TypeScript refuses unknown fields and values too."""
    imported = 'import type { Dashboard } from "@grafana/schema/dist/types/veneer/dashboard.types";\n'
    written = sorted((FOLDER / "dashboards").glob("*.json"))
    literals = [f"export const d{number}: Dashboard = {path.read_text()}" for number, path in enumerate(written)]
    (tmp_path / "dashboards.ts").write_text(imported + "".join(literals))
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "node")
    command = (NODE_MODULES / ".bin/tsc", *options, tmp_path / "dashboards.ts")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
