"""Checks of the gateway, clocks and certificates."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest

from services.embedded import ports
from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.http import certificate_findings, check_gateway, check_issuer, clock_finding, get
from tests.mailer.smtp_server import certificate, server_tls
from tests.operator.http_server import Reply, serving

ISSUER = "https://nest.example"
HEALTHY = {"/healthz": Reply({"status": "ok"}), "/.well-known/openid-configuration": Reply({"issuer": ISSUER})}


async def check(replies: dict[str, Reply]) -> list[Finding]:
    async with serving(replies) as url:
        return [finding async for finding in check_gateway(url, ISSUER)]


async def test_healthy_gateway_is_ok() -> None:
    assert [(each.level, each.area) for each in await check(HEALTHY)] == [(Level.OK, ""), (Level.OK, "clock")]


async def test_unhealthy_gateway_is_a_problem_with_its_reasons() -> None:
    unhealthy = Reply({"status": "failing", "reasons": ["no record read for 30 s"]}, 503)
    first, *_ = await check({**HEALTHY, "/healthz": unhealthy})
    assert (first.level, "no record read for 30 s" in first.says) == (Level.PROBLEM, True)


async def test_unreachable_foreign_and_untrusted_servers_are_distinguished(tmp_path: Path) -> None:
    unreachable = [finding async for finding in check_gateway(f"http://127.0.0.1:{ports.any_free()}", ISSUER)]
    foreign = await check({"/healthz": Reply("It works!")})
    other = await check({**HEALTHY, "/.well-known/openid-configuration": Reply({"issuer": "https://other.example"})})
    async with serving(HEALTHY, server_tls(certificate(tmp_path))) as url:
        untrusted = [finding async for finding in check_gateway(url, ISSUER)]
    for findings, text in (
        (unreachable, "no response"),
        (foreign, "is not Nest's gateway"),
        (other, "https://other.example"),
        (untrusted, "ertificate"),
    ):
        last = findings[-1]
        assert (last.level, text in last.says) == (Level.PROBLEM, True), findings
        assert last.do


@pytest.mark.parametrize(
    ("required", "beside", "levels"),
    [
        (True, False, [Level.PROBLEM]),
        (False, False, [Level.SKIPPED]),
        (False, True, [Level.SKIPPED, Level.OK, Level.OK]),
    ],
)
async def test_a_pod_skips_a_public_url_that_it_cannot_reach(
    *, required: bool, beside: bool, levels: list[Level]
) -> None:
    issuer = f"http://127.0.0.1:{ports.any_free()}"
    replies = {**HEALTHY, "/.well-known/openid-configuration": Reply({"issuer": issuer})}
    async with serving(replies) as local:
        findings = [each async for each in check_issuer(issuer, local if beside else None, required=required)]
    assert [each.level for each in findings] == levels
    assert issuer in findings[0].says


@pytest.mark.parametrize(
    ("seconds", "level", "text"),
    [
        (0, Level.OK, "agrees"),
        (6, Level.WARNING, "ahead of"),
        (-6, Level.WARNING, "behind"),
        (400, Level.PROBLEM, "ahead of"),
        (-400, Level.PROBLEM, "behind"),
    ],
)
async def test_clock_is_judged_by_the_date_header(seconds: int, level: Level, text: str) -> None:
    dated = {**HEALTHY, "/healthz": Reply({"status": "ok"}, headers={"date": formatdate(time.time() + seconds)})}
    (clock,) = [finding for finding in await check(dated) if finding.area == "clock"]
    assert (clock.level, text in clock.says) == (level, True), clock


async def test_invalid_date_header_gives_no_clock_offset() -> None:
    async with serving({"/": Reply({}, headers={"date": "yesterday"})}) as url:
        assert (await get(url)).clock_offset is None


def test_clock_offset_of_2_s_is_a_warning_and_10_s_a_problem() -> None:
    levels = [clock_finding("it", offset).level.value for offset in (0.4, -1.9, 2.0, -9.9, 10.0)]
    assert levels == ["ok", "ok", "warning", "warning", "problem"]


def test_certificate_is_reported_in_its_last_two_weeks() -> None:
    now = datetime.now(UTC)
    assert certificate_findings("it", None) == certificate_findings("it", now + timedelta(days=15)) == []
    (finding,) = certificate_findings("it", now + timedelta(days=13))
    assert (finding.level, "renew it" in finding.do) == (Level.WARNING, True)
