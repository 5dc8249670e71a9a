"""Answers, counts and reports of wrong internal keys and forged bearer tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from services.gateway import failed_authentications
from services.gateway.errors import AccessDenied, TooManyRequests, Unauthorized
from services.gateway.failed_authentications import FAILURES, MAX_REPORTS, Credential, FailedAuthentications
from shared.bus.producer import BusDown
from shared.messages import Caller
from shared.messages.auth.audit import RecordAuditEntry
from tests.gateway.conftest import GatewayStack
from tests.stack import eventually

IP = "198.51.100.7"


@dataclass
class Harness:
    """Failed authentications with a fake clock, of which each network has three a minute."""

    now: float = 0.0
    kafka_away: bool = False
    published: list[tuple[RecordAuditEntry, Caller]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.failed = FailedAuthentications(self._publish, per_minute=3, clock=lambda: self.now)

    async def _publish(self, entry: RecordAuditEntry, caller: Caller) -> None:
        if self.kafka_away:
            raise BusDown
        self.published.append((entry, caller))

    def fail(self, ip: str | None = IP, credential: Credential = "internal key") -> int:
        """Fail once; return 0, or the seconds until the next answer that is not 429."""
        refusal = AccessDenied() if credential == "internal key" else Unauthorized(reasons=())
        answer = self.failed.answer(credential, refusal, ip)
        if answer is refusal:
            return 0
        assert isinstance(answer, TooManyRequests)
        seconds: int = answer.body()["meta"]["retry_after"]
        return seconds

    def counts(self) -> dict[str | None, int]:
        counts: dict[str | None, int] = {}
        for entry, caller in self.published:
            counts[caller.client_ip] = counts.get(caller.client_ip, 0) + entry.count
        return counts


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_failures_beyond_the_limit_of_a_network_back_off_and_recover(harness: Harness) -> None:
    assert [harness.fail() for _ in range(5)] == [0, 0, 0, 20, 20]
    harness.now = 19.0
    assert harness.fail() == 1
    harness.now = 20.0
    assert [harness.fail(), harness.fail()] == [0, 20]
    harness.now = 1_000.0
    assert [harness.fail() for _ in range(4)] == [0, 0, 0, 20]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("198.51.100.7", "198.51.100.250", True),
        ("198.51.100.7", "198.51.101.7", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("198.51.100.7", "::ffff:198.51.100.9", True),
    ],
)
def test_limit_is_of_a_network(harness: Harness, one: str, other: str, *, same: bool) -> None:
    """RFC 6177 section 2: a household has a whole /64."""
    for _ in range(3):
        harness.fail(one)
    assert (harness.fail(other) > 0) == same


def test_each_kind_of_credential_has_its_own_limit(harness: Harness) -> None:
    for _ in range(4):
        harness.fail()
    assert harness.fail(credential="access token") == 0


async def test_failures_of_a_network_are_one_report(harness: Harness) -> None:
    with capture_logs() as logs:
        for _ in range(7):
            harness.fail()
        harness.fail(credential="access token")
        await harness.failed.report()
        await harness.failed.report()
    entries = [(entry.action, entry.refused_as, entry.count, caller) for entry, caller in harness.published]
    assert entries == [
        ("authenticate_internal_key", "access_denied", 7, Caller(client_ip=IP)),
        ("authenticate_access_token", "unauthorized", 1, Caller(client_ip=IP)),
    ]
    assert [(entry["credential"], entry["network"], entry["count"]) for entry in logs] == [
        ("internal key", "198.51.100.0/24", 7),
        ("access token", "198.51.100.0/24", 1),
    ]


async def test_reports_of_many_networks_are_capped_and_count_everything(harness: Harness) -> None:
    for number in range(200):
        harness.fail(f"198.51.{number}.7")
    harness.fail("198.51.3.9")
    harness.fail(None)
    await harness.failed.report()
    assert len(harness.published) <= MAX_REPORTS + 1
    counts = harness.counts()
    assert sum(counts.values()) == 202
    assert counts["198.51.3.9"] == 2
    assert counts[None] == 202 - 2 - (MAX_REPORTS - 1)


async def test_memory_of_networks_is_bounded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_authentications, "MAX_NETWORKS", 10)
    for number in range(200):
        harness.fail(f"198.51.{number}.7")
    assert len(harness.failed._budgets) == 10
    assert len(harness.failed._unreported) <= 11
    await harness.failed.report()
    assert sum(harness.counts().values()) == 200


async def test_entries_that_kafka_does_not_take_are_reported_later(harness: Harness) -> None:
    harness.kafka_away = True
    harness.fail()
    await harness.failed.report()
    harness.kafka_away = False
    harness.fail()
    await harness.failed.report()
    assert harness.counts() == {IP: 2}


@pytest.fixture
async def running(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    monkeypatch.setattr(failed_authentications, "FIRST_REPORT_SECONDS", 0.01)
    harness.failed.start()
    yield harness
    await harness.failed.stop()


async def test_first_failure_is_reported_at_once_and_the_rest_at_the_stop(running: Harness) -> None:
    running.fail()
    await eventually(lambda: running.published, what="the first report")
    running.fail()
    await asyncio.sleep(0.05)
    assert running.counts() == {IP: 1}
    await running.failed.stop()
    assert running.counts() == {IP: 2}


def test_failures_are_counted_by_credential_and_answer(harness: Harness) -> None:
    def value(answer: str) -> float:
        return FAILURES.labels("internal key", answer)._value.get()

    before = value("refused"), value("backed off")
    for _ in range(5):
        harness.fail()
    assert (value("refused") - before[0], value("backed off") - before[1]) == (3, 2)


async def test_expired_and_revoked_tokens_do_not_count(stack: GatewayStack) -> None:
    failed = stack.gateway._failed_authentications
    before = sum(budget.left for budget in failed._budgets.values())
    for _ in range(3):
        expired = stack.signer.token(iat=1, exp=2)
        refused = await stack.http.post(
            "/1/2021-10-06/get_user", json={"user_id": "user_1"}, headers={"authorization": f"bearer {expired}"}
        )
        assert refused.json()["reasons"][0]["code"] == "token_expired"
    assert sum(budget.left for budget in failed._budgets.values()) == before
