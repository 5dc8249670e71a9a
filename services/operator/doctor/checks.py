"""Selection and concurrent execution of the checks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from pydantic import SecretStr

from services.operator.client import URL
from services.operator.doctor import kafka, mail, mongo
from services.operator.doctor.findings import Finding, problem
from services.operator.doctor.http import check_gateway
from services.operator.doctor.instances import check_clocks
from services.operator.doctor.settings import LoadedSettings, check_settings
from services.operator.doctor.stripe import check_stripe
from services.operator.kafka import OperatorSettings
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import SERVICES
from shared.mongo import Client, Database, connect, database
from shared.mongo_urls import InvalidMongoUrl
from shared.sealing import Sealer
from shared.settings import SettingsError, load

CHECK_SECONDS: Final = 20.0
"""Timeout of one check."""

Report = Callable[[Sequence[str]], None]


async def check_everything(
    *, services_known: bool, selectors: Sequence[str], replication: int | None, report: Report | None
) -> list[Finding]:
    """Run every check that this environment has settings for.

    Args:
        services_known: whether the environment is that of the services.
        selectors: DKIM selectors of the mail provider.
        replication: required replicas of each topic; None for one per broker, 3 at most.
        report: receives the areas of the unfinished checks, at the start and after each check.
    """
    loaded = LoadedSettings()
    checks = [Check("settings", partial(check_settings, loaded, services_known=services_known))]
    issuer = loaded.first("issuer")
    if gateway := os.environ.get(URL) or issuer:
        checks.append(Check("gateway", partial(check_gateway, gateway.rstrip("/"), issuer)))
    async with AsyncExitStack() as stack:
        auth = mailer = None
        try:
            databases, clients = _databases(loaded)
        except InvalidMongoUrl as invalid:
            checks.append(Check("mongodb", partial(mongo.report_invalid_url, invalid)))
        else:
            for client in clients:
                stack.push_async_callback(client.close)
            if databases:
                auth, mailer = databases["auth"], databases["mailer"]
                checks += _mongo_checks(clients, databases, loaded)
        checks += _kafka_checks(loaded, replication, auth)
        checks += _vendor_checks(loaded, selectors, mailer)
        return await run_checks(checks, report=report)


def _databases(loaded: LoadedSettings) -> tuple[dict[str, Database], list[Client]]:
    """Return the database of each service, with its own credentials if it has some, and the clients by server.

    The clients connect with their first command.

    Raises:
        InvalidMongoUrl: a connection string can't be used.
    """
    usual = loaded.first("mongo_url", SecretStr(os.environ.get("NEST_MONGO_URL", "")))
    prefix = loaded.first("database_prefix", os.environ.get("NEST_DATABASE_PREFIX", "nest_"))
    if not usual:
        return {}, []
    urls = {name: getattr(loaded.settings.get(name), "mongo_url", usual).get_secret_value() for name in SERVICES}
    clients = {url: connect(url, application="nest-doctor", timeout=8.0) for url in set(urls.values())}
    return {name: database(clients[url], prefix + name) for name, url in urls.items()}, list(clients.values())


def _mongo_checks(clients: Sequence[Client], databases: mongo.Databases, loaded: LoadedSettings) -> list[Check]:
    checks = [
        Check("mongodb", partial(mongo.check_mongo, clients[0])),
        Check("indexes", partial(mongo.check_indexes, databases, loaded.settings)),
        Check("versions", partial(mongo.check_versions, databases)),
        Check("timers", partial(mongo.check_timers, databases)),
        Check("stripe events", partial(mongo.check_stripe_events, databases)),
    ]
    if (keys := loaded.sealing_keys()) is not None:
        checks.append(Check("sealing keys", partial(mongo.check_sealing_keys, databases, keys)))
    return checks


def _kafka_checks(loaded: LoadedSettings, replication: int | None, auth: Database | None) -> list[Check]:
    # Kafka and MongoDB are checked even if no service would start.
    if not os.environ.get("NEST_KAFKA_BOOTSTRAP"):
        return []
    try:
        connection = load(OperatorSettings).kafka
    except SettingsError as invalid:
        return [Check("kafka", partial(kafka.report_invalid_settings, invalid))]
    prefix = loaded.first("topic_prefix", os.environ.get("NEST_TOPIC_PREFIX", ""))
    keys, accepts = loaded.sealing_keys(), loaded.first("unauthenticated_records") == "accept"
    macs = None if keys is None else RecordMacs(Sealer(keys), prefix=prefix, accept_missing=accepts)
    retentions = [each.inbox_retention for each in loaded.settings.values() if hasattr(each, "inbox_retention")]
    retention = min(retentions, default=None)
    topics = partial(kafka.check_topics, connection, prefix, replication=replication, inbox_retention=retention)
    return [
        Check("topics", topics),
        Check("consumers", partial(kafka.check_consumers, connection, prefix)),
        Check("clock", partial(check_clocks, connection, prefix, macs)),
        Check("dead letters", partial(kafka.check_dead_letters, connection, prefix, auth)),
    ]


def _vendor_checks(loaded: LoadedSettings, selectors: Sequence[str], database: Database | None) -> list[Check]:
    checks = []
    if (billing := loaded.settings.get("billing")) is not None:
        checks.append(Check("stripe", partial(check_stripe, billing, loaded.first("issuer"))))
    if (mailer := loaded.settings.get("mailer")) is not None:
        checks.append(Check("mail server", partial(mail.check_mail_servers, mailer)))
        checks.append(Check("mail records", partial(mail.check_senders, mailer, database, selectors)))
        if mailer.text_provider == "twilio":
            checks.append(Check("twilio", partial(mail.check_twilio, mailer)))
    return checks


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
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
        findings.append(problem(f"the check failed: {reason[:300]}", "check that it runs and can be reached"))
    return [replace(finding, area=finding.area or check.area) for finding in findings]
