"""What the doctor says of a gateway, and of a server's clock and certificate."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest

from services.embedded import ports
from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.gateway import look_at_gateway
from services.operator.doctor.http import asked, certificate, clock
from tests.mailer.smtp_server import certificate as pem_file
from tests.mailer.smtp_server import server_tls
from tests.operator.web import Says, served

ISSUER = "https://nest.example"
WELL = {"/healthz": Says({"status": "ok"}), "/.well-known/openid-configuration": Says({"issuer": ISSUER})}


async def seen(answers: dict[str, Says]) -> list[Finding]:
    async with served(answers) as url:
        return [finding async for finding in look_at_gateway(url, ISSUER)]


async def test_a_gateway_that_is_well_is_said_to_be() -> None:
    assert [(each.level, each.area) for each in await seen(WELL)] == [(Level.OK, "gateway"), (Level.OK, "clock")]


async def test_a_gateway_that_is_not_well_says_why() -> None:
    ailing = Says({"status": "failing", "reasons": ["no record read for 30 s"]}, 503)
    first, *_ = await seen({**WELL, "/healthz": ailing})
    assert (first.level, "no record read for 30 s" in first.says) == (Level.PROBLEM, True)


async def test_nobody_there_somebody_else_and_another_nest_are_told_apart(tmp_path: Path) -> None:
    nobody = [finding async for finding in look_at_gateway(f"http://127.0.0.1:{ports.any_free()}", ISSUER)]
    somebody = await seen({"/healthz": Says("It works!")})
    another = await seen({**WELL, "/.well-known/openid-configuration": Says({"issuer": "https://other.example"})})
    async with served(WELL, server_tls(pem_file(tmp_path))) as url:
        untrusted = [finding async for finding in look_at_gateway(url, ISSUER)]
    for findings, told in (
        (nobody, "nobody answers"),
        (somebody, "is not Nest's gateway"),
        (another, "https://other.example"),
        (untrusted, "ertificate"),
    ):
        worst = findings[-1]
        assert (worst.level, told in worst.says) == (Level.PROBLEM, True), findings
        assert worst.do


@pytest.mark.parametrize(
    ("seconds", "level", "word"),
    [
        (0, Level.OK, "agrees"),
        (6, Level.WARNING, "ahead of"),
        (-6, Level.WARNING, "behind"),
        (400, Level.PROBLEM, "ahead of"),
        (-400, Level.PROBLEM, "behind"),
    ],
)
async def test_a_clock_that_is_off_is_told_by_the_servers_date(seconds: int, level: Level, word: str) -> None:
    dated = {**WELL, "/healthz": Says({"status": "ok"}, headers={"date": formatdate(time.time() + seconds)})}
    (told,) = [finding for finding in await seen(dated) if finding.area == "clock"]
    assert (told.level, word in told.says) == (level, True), told


async def test_a_date_that_is_none_says_nothing_of_the_clock() -> None:
    async with served({"/": Says({}, headers={"date": "yesterday"})}) as url:
        assert (await asked(url)).offset is None


def test_a_clock_is_judged_by_its_seconds() -> None:
    assert [clock("it", offset).level.value for offset in (0.4, -1.9, 2.0, -9.9, 10.0)] == [
        "ok",
        "ok",
        "warning",
        "warning",
        "problem",
    ]


def test_a_certificate_is_told_of_in_its_last_two_weeks() -> None:
    now = datetime.now(UTC)
    assert certificate("a", "it", None) == certificate("a", "it", now + timedelta(days=15)) == []
    (told,) = certificate("a", "it", now + timedelta(days=13))
    assert (told.level, "renew it" in told.do) == (Level.WARNING, True)
