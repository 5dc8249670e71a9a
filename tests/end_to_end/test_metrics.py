"""Metrics of running processes after a login: valid, and with a value for every part of it."""

from __future__ import annotations

import asyncio
import subprocess

import httpx

from tests.stack import Stack, eventually

BUS = (
    'nest_consumer_partitions_assigned{service="%s"}',
    'nest_commit_works_waiting{service="%s"} 0.0',
    'nest_timers_due{service="%s"} ',
    'nest_dependency_up{dependency="mongodb",service="%s"} 1.0',
)
ALL = (
    'nest_dependency_up{dependency="kafka",service="%s"} 1.0',
    'nest_event_loop_delay_seconds_bucket{le="+Inf",service="%s"}',
    'service="%s",version="',
)
AFTER_A_LOGIN = {
    "gateway": ('nest_gateway_call_seconds_count{method="authenticate_user",status="200",version="2021-10-06"}',),
    "auth": ('nest_logins_total{method="mail",step="asked"}', 'nest_logins_total{method="mail",step="redeemed"}'),
    "mailer": (
        'nest_logins_total{method="mail",step="mailed"}',
        'nest_deliveries_total{medium="mail",outcome="handed_over",template="magic-link"}',
    ),
    "billing": (),
    "news": (),
}


async def test_every_process_exports_valid_metrics_of_a_login(separate: Stack) -> None:
    await separate.log_in("metrics@example.com")
    async with httpx.AsyncClient(timeout=30) as http:
        for name, url in separate.health.items():
            service = name.rstrip("0123456789-")
            expected = [*AFTER_A_LOGIN[service], *(part % service for part in ALL)]
            expected += [part % service for part in BUS if service != "gateway"]
            page = ""

            async def is_complete(url: str = url, expected: list[str] = expected) -> bool:
                nonlocal page
                page = (await http.get(f"{url}/metrics")).text
                return all(part in page for part in expected)

            await eventually(is_complete, within=60, what=f"metrics of {name}")
            await asyncio.to_thread(
                subprocess.run, ("promtool", "check", "metrics"), input=page, text=True, check=True, timeout=60
            )
            assert "metrics@example.com" not in page
