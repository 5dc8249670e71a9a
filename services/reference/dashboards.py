"""Grafana's dashboards: an overview, one for each service, and Stripe. ``make reference`` writes them as JSON.

``deploy/grafana/dashboards.yaml`` declares what they show. They are built with Grafana's own library, whose types are
generated from Grafana's schema (https://grafana.github.io/grafana-foundation-sdk/).
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml  # type: ignore[import-untyped]

with warnings.catch_warnings():
    # The library prefers version 2 of the schema, which Grafana before 12 cannot read.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_models
    from grafana_foundation_sdk.models import dashboard as dashboard_models
    from grafana_foundation_sdk.models import prometheus as prometheus_models
    from grafana_foundation_sdk.models.dashboard import GridPos

FOLDER: Final = Path(__file__).parents[2] / "deploy/grafana"
DATASOURCE: Final = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Chosen in the dashboard, so that it works under any name."""
PANELS: Final[dict[str, tuple[Any, int]]] = {
    "graph": (timeseries.Panel, 8),
    "stat": (stat.Panel, 6),
    "table": (table.Panel, 12),
}
"""Builder of each kind of panel, and its width in columns."""
WIDTH: Final = 24
"""Columns of a dashboard."""
HEIGHT: Final = 7
"""Lines of a panel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; the fields are described in the file."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["graph", "stat", "table"] = "graph"
    description: str = ""
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard: its panels by the title of their row."""

    uid: str
    title: str
    description: str
    rows: dict[str, list[Panel]]


def declared() -> list[Board]:
    """Return the declared dashboards."""
    declaration = yaml.safe_load((FOLDER / "dashboards.yaml").read_text("utf-8"))
    return [_board(dict(board), declaration["common_rows"]) for board in declaration["dashboards"]]


def files() -> dict[Path, str]:
    """Return the content of each generated file."""
    return {FOLDER / f"dashboards/{board.uid}.json": text(board) for board in declared()}


def text(board: Board) -> str:
    """Return a dashboard as JSON."""
    encoded = json.loads(JSONEncoder().encode(_built(board).build()))
    for variable in encoded["templating"]["list"]:
        # The library writes them for every variable, but the schema has them for intervals only.
        for name in ("auto", "auto_min", "auto_count"):
            del variable[name]
    return json.dumps(encoded, indent=1, ensure_ascii=False) + "\n"


def _board(board: dict[str, Any], common_rows: dict[str, Any]) -> Board:
    service = board.pop("service", "")
    of_service = json.loads(
        json.dumps({title: common_rows[title] for title in board.pop("common_rows", ())}).replace("SERVICE", service)
    )
    rows = {**board.pop("rows"), **of_service}
    return Board(**board, rows={title: [Panel(**panel) for panel in panels] for title, panels in rows.items()})


def _built(board: Board) -> dashboard.Dashboard:
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["nest"])
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard_models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            dashboard.DashboardLink("Nest")
            .type(dashboard_models.DashboardLinkType.DASHBOARDS)
            .tags(["nest"])
            .as_dropdown(as_dropdown=True)
        )
    )
    numbers, y = itertools.count(1), 0
    for title, panels in board.rows.items():
        builder.with_row(dashboard.Row(title).id(next(numbers)).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y)))
        x, y = 0, y + 1
        for panel in panels:
            # The library places panels too, but lets those of different widths overlap the edge.
            width = PANELS[panel.kind][1]
            if x + width > WIDTH:
                x, y = 0, y + HEIGHT
            place = GridPos(h=HEIGHT, w=width, x=x, y=y)
            builder.with_panel(_built_panel(panel).id(next(numbers)).grid_pos(place))
            x += width
        y += HEIGHT
    return builder


def _built_panel(panel: Panel) -> Any:
    builder = PANELS[panel.kind][0]().title(panel.title).datasource(DATASOURCE).unit(panel.unit)
    description = " ".join(_description(panel))
    if description:
        builder.description(description)
    for number, (legend, expression) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().datasource(DATASOURCE).expr(expression).ref_id(chr(ord("A") + number))
        if panel.kind == "table":
            query.format(prometheus_models.PromQueryFormat.TABLE).instant()
        else:
            query.legend_format(legend).range()
        builder.with_target(query)
    if panel.kind == "stat":
        builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.kind == "graph":
        builder.min(0).fill_opacity(10).show_points(common_models.VisibilityMode.NEVER)
        builder.legend(
            common.VizLegendOptions().show_legend(show_legend=True).placement(common_models.LegendPlacement.BOTTOM)
        )
        builder.tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    return builder


def _description(panel: Panel) -> Iterator[str]:
    if panel.description:
        yield panel.description
    if panel.needs:
        yield f"No data before {panel.needs}."
