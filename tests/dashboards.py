"""Every panel of Grafana's dashboards against a Prometheus that scrapes a running Nest; run by `make dashboards`.

It is no ordinary test, because it takes two minutes. It fails if a panel has no data, unless its declaration says what
it ``needs``, or if Prometheus refuses a query or an alerting rule. `PICTURES=<folder>` draws the panels as well.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from services.embedded import ports
from services.reference.dashboards import declared
from tests.dashboard_pictures import draw
from tests.deploy.environments import ROOT
from tests.end_to_end.flows import redeem_trial
from tests.stack import ALL_SERVICES, Login, RunNest, Stack, eventually

SCRAPE_SECONDS = 1
LOAD_SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
RATE_INTERVAL = "20s"


@asynccontextmanager
async def prometheus(stack: Stack, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run a Prometheus that scrapes all processes and evaluates the alerting rules."""
    port = ports.any_free()
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "5s"},
        "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")],
        "scrape_configs": [
            {
                "job_name": "nest",
                "static_configs": [{"targets": [url.removeprefix("http://") for url in stack.health.values()]}],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/-/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, what="Prometheus")
            yield http
    finally:
        process.terminate()
        await process.wait()


async def load(stack: Stack, seconds: float) -> None:
    """Log people in, list news, order trials and query subscriptions for so many seconds."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        email = f"panel{number}@example.com"
        tokens = await stack.log_in(email)
        bearer = f"bearer {tokens['access_token']}"
        await stack.call("list_news_items", {}, authorization=bearer)
        await stack.call("get_subscription_status", {"user_id": tokens["user_id"]}, authorization=bearer)
        await stack.call("authenticate_user", Login(email).redemption(f"authzcode_{number}.{'0' * 64}"))
        await stack.call("get_user", {"user_id": tokens["user_id"]}, authorization="internal wrong")
        await stack.http.post("/1/webhook/stripe", content=b"{}", headers={"stripe-signature": "t=1,v1=00"})
        await stack.http.post("/init", json={"phone_number": f"+4179123{number:04}"})
        if number % 5 == 0:
            await redeem_trial(stack, Login(f"trial{number}@example.com"))
        number += 1


def is_number(sample: dict[str, Any]) -> bool:
    return not math.isnan(float(sample["value"][1]))


async def test_every_panel_has_data_or_says_what_it_needs(run_nest: RunNest, tmp_path: Path) -> None:
    async with run_nest(separate=ALL_SERVICES) as stack, prometheus(stack, tmp_path) as http:
        began = time.time()
        await load(stack, LOAD_SECONDS)
        groups = (await http.get("/api/v1/rules")).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) >= 40
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
        empty, surprising = [], []
        for board in declared():
            for panel in [each for row in board.rows.values() for each in row]:
                for legend, expression in panel.queries.items():
                    query = expression.replace("$__rate_interval", RATE_INTERVAL)
                    reply = (await http.get("/api/v1/query", params={"query": query})).json()
                    assert reply["status"] == "success", (panel.title, reply)
                    has_data = any(map(is_number, reply["data"]["result"]))
                    if not has_data and not panel.needs:
                        empty.append((board.uid, panel.title, legend))
                    if has_data and panel.needs:
                        surprising.append((board.uid, panel.title, legend))
        print(f"\nempty without a reason: {empty}\nwith data despite a reason: {surprising}")  # noqa: T201 -- a report
        if pictures := os.environ.get("PICTURES"):
            await draw(http, Path(pictures), began, RATE_INTERVAL)
        assert empty == []


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s"]))
