import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from services.operator.doctor.checks import Check, check_everything, run_checks
from services.operator.doctor.findings import Finding, ok


async def healthy() -> AsyncIterator[Finding]:
    yield ok("healthy")


async def test_failed_or_slow_check_keeps_all_other_findings() -> None:
    async def fails() -> AsyncIterator[Finding]:
        yield ok("found before", area="other")
        raise OSError("no route")

    async def hangs() -> AsyncIterator[Finding]:
        await asyncio.sleep(60)
        yield ok("never")

    findings = await run_checks([Check("a", fails), Check("b", hangs), Check("c", healthy)], timeout=0.2)
    assert [(finding.area, finding.level.value) for finding in findings] == [
        ("other", "ok"),
        ("a", "problem"),
        ("b", "problem"),
        ("c", "ok"),
    ]
    assert "no route" in findings[1].says


async def test_unfinished_checks_are_reported() -> None:
    gate = asyncio.Event()

    async def waits() -> AsyncIterator[Finding]:
        await gate.wait()
        yield ok("healthy")

    async def opens() -> AsyncIterator[Finding]:
        gate.set()
        yield ok("healthy")

    reports: list[list[str]] = []
    await run_checks([Check("a", waits), Check("b", opens)], report=lambda unfinished: reports.append(list(unfinished)))
    assert reports == [["a", "b"], ["a"], []]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mongodb://nest:hunter2@mongo.test/?readPreference=secondary", "remove the option readPreference"),
        ("mongodb://nest:hunter2", "is not a connection string"),
    ],
)
async def test_invalid_mongodb_url_is_a_finding_without_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    for name in [name for name in os.environ if name.startswith("NEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEST_MONGO_URL", url)
    findings = await check_everything(services_known=True, selectors=(), replication=None, report=None)
    [finding] = [finding for finding in findings if finding.area == "mongodb"]
    assert finding.level.value == "problem"
    assert finding.says.startswith(f"NEST_MONGO_URL: {text}")
    assert "hunter2" not in repr(findings)
