"""Pictures of the dashboards, drawn from the data of their queries. They are not Grafana's: it is not in the tests."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import time
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import async_playwright

from services.reference.dashboards import FOLDER

CELL: Final = (38, 25)
"""Pixels of a column and of a line of the grid."""
POINTS: Final = 120
COLOURS: Final = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#f2cc0c", "#37872d", "#8ab8ff", "#b877d9")
STYLE: Final = """
body { margin: 0; background: #f4f5f5; font: 12px sans-serif; color: #24292e; position: relative }
section { position: absolute; background: white; border: 1px solid #d8d9da; box-sizing: border-box; padding: 6px 8px;
          overflow: hidden }
h2 { position: absolute; margin: 6px 8px; font-size: 14px }
h3 { margin: 0 0 4px; font-size: 12px }
p { margin: 2px 0; font-size: 10px; line-height: 13px }
b { font-size: 26px; font-weight: normal; margin-right: 14px; color: #37872d }
i { display: inline-block; width: 10px; height: 3px; margin: 0 4px 3px 8px }
text { font-size: 9px; fill: #6e7075 }
"""
SCALES: Final = {"s": ((1, "s"), (0.001, "ms")), "bytes": ((1e9, "GB"), (1e6, "MB"))}
SUFFIXES: Final = {"ops": "/s", "reqps": "/s", "percentunit": "%"}


async def draw(http: httpx.AsyncClient, folder: Path, began: float, rate_interval: str) -> None:
    """Draw every dashboard with the data since ``began`` into a folder, as PNG.

    Args:
        http: client of Prometheus.
        folder: an existing folder, where the pictures are written.
        began: Unix time.
        rate_interval: value of Grafana's ``$__rate_interval``.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        for path in sorted((FOLDER / "dashboards").glob("*.json")):
            panels = json.loads(path.read_text())["panels"]
            lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
            size = {"width": 24 * CELL[0], "height": lines * CELL[1]}
            parts = [await _panel(http, panel, began, rate_interval) for panel in panels]
            page = await browser.new_page(viewport=size)  # type: ignore[arg-type]
            await page.set_content(f"<style>{STYLE}</style>{''.join(parts)}")
            await page.screenshot(path=folder / f"{path.stem}.png")
            await page.close()
        await browser.close()


async def _panel(http: httpx.AsyncClient, panel: dict[str, Any], began: float, rate_interval: str) -> str:
    place, title = panel["gridPos"], html.escape(panel["title"])
    x, y, width, height = place["x"] * CELL[0], place["y"] * CELL[1], place["w"] * CELL[0], place["h"] * CELL[1]
    if panel["type"] == "row":
        return f'<h2 style="left:{x}px;top:{y}px">{title}</h2>'
    unit = panel["fieldConfig"]["defaults"]["unit"]
    lines = [line for target in panel["targets"] for line in await _lines(http, target, began, rate_interval)]
    if not lines:
        body = "<p>No data</p>"
    elif panel["type"] == "timeseries":
        body = _graph(lines, unit, width - 18, height - 72)
    elif panel["type"] == "stat":
        body = "".join(f"<p>{html.escape(name)}</p><b>{_shown(points[-1][1], unit)}</b>" for name, points in lines[:5])
    else:
        body = "".join(f"<p>{html.escape(name)}: {_shown(points[-1][1], unit)}</p>" for name, points in lines)
    style = f"left:{x + 2}px;top:{y + 2}px;width:{width - 4}px;height:{height - 4}px"
    return f'<section style="{style}"><h3>{title}</h3>{body}</section>'


async def _lines(
    http: httpx.AsyncClient, target: dict[str, Any], began: float, rate_interval: str
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the name and the points, time and value, of each series of a query."""
    now = time.time()
    query = {"query": target["expr"].replace("$__rate_interval", rate_interval), "start": began, "end": now}
    reply = await http.get("/api/v1/query_range", params={**query, "step": max(1, (now - began) / POINTS)})
    lines = []
    for series in reply.json()["data"]["result"]:
        labels = series["metric"]
        pattern = target.get("legendFormat") or ", ".join(f"{name}={{{{{name}}}}}" for name in labels)
        name = re.sub(r"{{(\w+)}}", lambda found, labels=labels: labels.get(found[1], ""), pattern)
        points = [(at, float(value)) for at, value in series["values"] if not math.isnan(float(value))]
        if points:
            lines.append((name, points))
    return sorted(lines, key=lambda line: -max(value for _, value in line[1]))


def _graph(lines: list[tuple[str, list[tuple[float, float]]]], unit: str, width: int, height: int) -> str:
    times = [at for _, points in lines for at, _ in points]
    first, last = min(times), max(*times, min(times) + 1)
    top = max(value for _, points in lines for _, value in points) or 1
    drawn = [f'<line x1="40" x2="{width}" y1="{y}" y2="{y}" stroke="#e5e6e8"/>' for y in (8, height / 2 + 4, height)]
    for number, (_, points) in enumerate(lines):
        places = " ".join(
            f"{40 + (at - first) / (last - first) * (width - 40):.1f},{height - value / top * (height - 8):.1f}"
            for at, value in points
        )
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    scale = f'<text x="0" y="12">{_shown(top, unit)}</text><text x="0" y="{height}">{_shown(0, unit)}</text>'
    legend = "".join(
        f'<i style="background:{COLOURS[number % len(COLOURS)]}"></i>{html.escape(name)}'
        for number, (name, _) in enumerate(lines[:8])
    )
    return f'<svg width="{width}" height="{height + 2}">{"".join(drawn)}{scale}</svg><p>{legend}</p>'


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        value *= 100
    for size, name in SCALES.get(unit, ()):
        if value >= size or (size, name) == SCALES[unit][-1]:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g}{SUFFIXES.get(unit, '')}"
