"""Selection and concurrent execution of the checks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from services.operator.client import URL
from services.operator.doctor import kafka, mail, mongo
from services.operator.doctor.access import MongoAccess, denial, kafka_access, mongo_access
from services.operator.doctor.consumers import check_consumers
from services.operator.doctor.findings import Finding, problem, skipped
from services.operator.doctor.http import check_gateway, check_issuer
from services.operator.doctor.instances import check_clocks, check_paused_partitions
from services.operator.doctor.settings import LoadedSettings, check_settings
from services.operator.doctor.stripe import check_stripe
from shared.bus.record_macs import RecordMacs
from shared.mongo import Database
from shared.sealing import Sealer

CHECK_SECONDS: Final = 20.0
"""Timeout of one check."""

DENIED: Final = "run nest doctor with the credentials of operator, or in the environment of the service concerned"

Report = Callable[[Sequence[str]], None]


async def check_everything(
    *,
    services_known: bool,
    required: Collection[str] = (),
    selectors: Sequence[str],
    replication: int | None,
    report: Report | None,
) -> list[Finding]:
    """Run every check that this environment allows; report the others as skipped, with the reason.

    Args:
        services_known: whether the environment is that of the services.
        required: services that this environment must start.
        selectors: DKIM selectors of the mail provider.
        replication: required replicas of each topic; None for one per broker, 3 at most.
        report: receives the areas of the unfinished checks, at the start and after each check.
    """
    loaded = LoadedSettings(required)
    checks = [Check("settings", partial(check_settings, loaded, services_known=services_known)), _gateway_check(loaded)]
    if not services_known:
        return await run_checks(checks, report=report)
    access = mongo_access(loaded)
    async with AsyncExitStack() as stack:
        for client, _ in access.clients:
            stack.push_async_callback(client.close)
        checks += _mongo_checks(access, loaded)
        checks += _kafka_checks(loaded, replication, access)
        checks += _vendor_checks(loaded, selectors, access.databases.get("mailer"))
        return await run_checks(checks, report=report)


def _gateway_check(loaded: LoadedSettings) -> Check:
    issuer = loaded.first("issuer") or os.environ.get("NEST_ISSUER") or None
    gateway = loaded.settings.get("gateway")
    # A pod's network policy may close the way to the public URL, but not to the process beside it.
    in_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    local = f"http://127.0.0.1:{gateway.port}" if gateway is not None and in_pod else None
    if url := os.environ.get(URL):
        return Check("gateway", partial(check_gateway, url.rstrip("/"), issuer))
    if issuer is None:
        return _skipped("gateway", f"it is not checked: neither {URL} nor NEST_ISSUER is set", f"set {URL}")
    required = gateway is not None and not in_pod
    return Check("gateway", partial(check_issuer, issuer, local, required=required))


def _skipped(area: str, says: str, do: str) -> Check:
    async def findings() -> AsyncIterator[Finding]:
        yield skipped(says, do)

    return Check(area, findings)


def _mongo_checks(access: MongoAccess, loaded: LoadedSettings) -> list[Check]:
    checks = [Check("mongodb", partial(mongo.check_access, access))]
    if not access.databases:
        return checks
    stripe_events = partial(_with_databases, access, mongo.check_stripe_events, "billing")
    checks += [
        Check("indexes", partial(_with_databases, access, partial(mongo.check_indexes, settings=loaded.settings))),
        Check("versions", partial(_with_databases, access, mongo.check_versions)),
        Check("timers", partial(_with_databases, access, mongo.check_timers)),
        Check("stripe events", stripe_events),
    ]
    if (keys := loaded.sealing_keys()) is None:
        do = "set NEST_SEALING_KEYS as for the services"
        return [*checks, _skipped("sealing keys", "they are not checked: NEST_SEALING_KEYS is not set", do)]
    check = partial(mongo.check_sealing_keys, master_keys=keys)
    return [*checks, Check("sealing keys", partial(_with_databases, access, check, "auth"))]


async def _with_databases(
    access: MongoAccess, check: Callable[[mongo.Databases], AsyncIterator[Finding]], *needed: str
) -> AsyncIterator[Finding]:
    """Run a check with the databases that the environment's users may read."""
    databases = await access.readable()
    lacking = [name for name in needed if name not in databases]
    if lacking or not databases:
        whose = ", ".join(lacking) or "any service"
        yield skipped(f"not checked: this environment may not read the database of {whose}", mongo.ACCESS)
        return
    async for finding in check(databases):
        yield finding


def _kafka_checks(loaded: LoadedSettings, replication: int | None, access: MongoAccess) -> list[Check]:
    # Kafka and MongoDB are checked even if no service would start.
    found = kafka_access()
    if found.connection is None and found.wrong:
        return [Check("kafka", partial(kafka.report_invalid_settings, found.wrong))]
    if (connection := found.connection) is None:
        do = "set the variables of operator, or of a service"
        return [_skipped("kafka", f"not checked: {'; '.join(found.missing)}", do)]
    prefix = loaded.first("topic_prefix", os.environ.get("NEST_TOPIC_PREFIX", ""))
    keys, accepts = loaded.sealing_keys(), loaded.first("unauthenticated_records") == "accept"
    macs = None if keys is None else RecordMacs(Sealer(keys), prefix=prefix, accept_missing=accepts)
    retentions = [each.inbox_retention for each in loaded.settings.values() if hasattr(each, "inbox_retention")]
    retention = min(retentions, default=None)
    topics = partial(kafka.check_topics, connection, prefix, replication=replication, inbox_retention=retention)
    return [
        Check("topics", topics),
        Check("consumers", partial(check_consumers, connection, prefix)),
        Check("partitions", partial(check_paused_partitions, connection, prefix, macs)),
        Check("clock", partial(check_clocks, connection, prefix, macs)),
        Check("dead letters", partial(kafka.check_dead_letters, connection, prefix, access.databases.get("auth"))),
    ]


def _vendor_checks(loaded: LoadedSettings, selectors: Sequence[str], database: Database | None) -> list[Check]:
    checks = []
    if (billing := loaded.settings.get("billing")) is not None:
        checks.append(Check("stripe", partial(check_stripe, billing, loaded.first("issuer"))))
    else:
        checks.append(_vendor_skipped("stripe", "billing"))
    if (mailer := loaded.settings.get("mailer")) is None:
        return [*checks, _vendor_skipped("mail server", "mailer"), _vendor_skipped("mail records", "mailer")]
    checks.append(Check("mail server", partial(mail.check_mail_servers, mailer)))
    checks.append(Check("mail records", partial(mail.check_senders, mailer, database, selectors)))
    if mailer.text_provider == "twilio":
        checks.append(Check("twilio", partial(mail.check_twilio, mailer)))
    return checks


def _vendor_skipped(area: str, service: str) -> Check:
    says = f"not checked: {service} would not start with the settings of this environment"
    return _skipped(area, says, f"run nest doctor in the environment of {service}")


@dataclass(frozen=True, slots=True)
class Check:
    """A check, with the area of those findings that do not name another one."""

    area: str
    run: Callable[[], AsyncIterator[Finding]]


async def run_checks(
    checks: Sequence[Check], *, timeout: float = CHECK_SECONDS, report: Report | None = None
) -> list[Finding]:
    """Run all checks concurrently and return their findings in the order of the checks.

    A check that fails, or takes more than ``timeout`` seconds, adds a problem and does not affect the others.
    """
    unfinished = [check.area for check in checks]

    async def run(check: Check) -> list[Finding]:
        findings = await _run_check(check, timeout)
        unfinished.remove(check.area)
        if report:
            report(unfinished)
        return findings

    if report:
        report(unfinished)
    by_check = await asyncio.gather(*map(run, checks))
    return [finding for findings in by_check for finding in findings]


async def _run_check(check: Check, timeout: float) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(timeout):
            async for finding in check.run():
                findings.append(finding)  # noqa: PERF401 -- findings from before a failure are kept
    except TimeoutError:
        findings.append(problem(f"no response within {timeout:g} s", "check that it runs and can be reached"))
    except Exception as failure:  # noqa: BLE001 -- any failure is a finding
        if (denied := denial(failure)) is not None:
            findings.append(skipped(f"not checked: {denied}", DENIED))
            return [replace(finding, area=finding.area or check.area) for finding in findings]
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
        findings.append(problem(f"the check failed: {reason[:300]}", "check that it runs and can be reached"))
    return [replace(finding, area=finding.area or check.area) for finding in findings]
