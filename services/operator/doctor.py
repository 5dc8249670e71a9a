"""`nest doctor`: what is wrong with this Nest, and what to do about it?"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.embedded.way_in import way_in
from services.operator.options import AsJson, Data
from services.operator.tables import plain

if TYPE_CHECKING:
    from services.operator.doctor_findings import Check, Finding
    from services.operator.doctor_settings import Told

COLOURS: Final = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}
BOOTSTRAP: Final = "NEST_KAFKA_BOOTSTRAP"

Selectors = Annotated[
    list[str] | None, typer.Option("--dkim-selector", help="Under which your mail provider signs; once for each.")
]
Replication = Annotated[
    int | None,
    typer.Option(min=1, help="Copies that each topic should have; by default as many as brokers, 3 at most."),
]


def doctor(
    data: Data = Path(".nest"),
    *,
    dkim_selector: Selectors = None,
    replication: Replication = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that Nest needs, and say what is wrong and what to do. Exit code 1 when there is a problem.

    Run it where the services run, with their environment; without, it looks at the Nest of the data folder.
    """
    note = None if os.environ.get(BOOTSTRAP) else way_in(data)
    if note is not None:
        os.environ.update({name: value for name, value in note.environment.items() if name not in os.environ})
    # What libraries complain of besides is said by the findings.
    logging.disable(logging.CRITICAL)
    findings = asyncio.run(_examined(dkim_selector or [], replication))
    if as_json:
        typer.echo(json.dumps([finding.fields() for finding in findings], indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            _say(finding)
    problems = sum(finding.level.value == "problem" for finding in findings)
    warnings = sum(finding.level.value == "warning" for finding in findings)
    if not as_json:
        typer.echo(f"\n{problems} problems, {warnings} warnings" if problems or warnings else "\nAll is well")
    raise typer.Exit(1 if problems else 0)


def _say(finding: Finding) -> None:
    level = f"{finding.level.value:<8}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        level = typer.style(level, fg=COLOURS[finding.level.value], bold=finding.level.value == "problem")
    typer.echo(f"{level} {finding.area + ':':<14} {plain(finding.says)}")
    if finding.do:
        typer.echo(f"{'':<8} {'':<14} → {plain(finding.do)}")


async def _examined(selectors: list[str], replication: int | None) -> list[Finding]:
    # Here, so that `nest --help` needs not wait for it.
    from services.operator.doctor_findings import Check, found  # noqa: PLC0415
    from services.operator.doctor_settings import Told, look_at_settings  # noqa: PLC0415

    told = Told()
    checks = [Check("settings", partial(look_at_settings, told))]
    async with AsyncExitStack() as stack:
        checks += await _of_mongo(told, stack)
        checks += _of_kafka(told, replication, stack)
        checks += _of_others(told, selectors)
        return await found(checks)


async def _of_mongo(told: Told, stack: AsyncExitStack) -> list[Check]:
    from services.operator import doctor_mongo as mongo  # noqa: PLC0415
    from services.operator.doctor_findings import Check  # noqa: PLC0415
    from shared.mongo import connect  # noqa: PLC0415

    url = told.first("mongo_url", os.environ.get("NEST_MONGO_URL"))
    if not url:
        return []
    client = connect(url, application="nest-doctor", timeout=8.0)
    stack.push_async_callback(client.close)
    prefix = told.first("database_prefix", os.environ.get("NEST_DATABASE_PREFIX", "nest_"))
    checks = [
        Check("mongodb", partial(mongo.look_at_mongo, client)),
        Check("indexes", partial(mongo.look_at_indexes, client, prefix)),
        Check("timers", partial(mongo.look_at_timers, client, prefix)),
    ]
    if told.settings:
        keys = next(iter(told.settings.values())).master_keys()
        checks.append(Check("sealing keys", partial(mongo.look_at_sealing_keys, client, prefix, keys)))
    return checks


def _of_kafka(told: Told, replication: int | None, stack: AsyncExitStack) -> list[Check]:
    from services.operator import doctor_kafka as kafka  # noqa: PLC0415
    from services.operator.doctor_findings import Check  # noqa: PLC0415
    from shared.mongo import connect, database  # noqa: PLC0415

    bootstrap = told.first("kafka_bootstrap", os.environ.get(BOOTSTRAP))
    if not bootstrap:
        return []
    prefix = told.first("topic_prefix", os.environ.get("NEST_TOPIC_PREFIX", ""))
    auth = None
    if "auth" in told.settings:
        settings = told.settings["auth"]
        client = connect(settings.mongo_url, application="nest-doctor", timeout=8.0)
        stack.push_async_callback(client.close)
        auth = database(client, f"{settings.database_prefix}auth")
    return [
        Check("topics", partial(kafka.look_at_topics, bootstrap, prefix, replication=replication)),
        Check("consumers", partial(kafka.look_at_consumers, bootstrap, prefix)),
        Check("dead letters", partial(kafka.look_at_dead_letters, bootstrap, prefix, auth)),
    ]


def _of_others(told: Told, selectors: list[str]) -> list[Check]:
    from services.operator import doctor_mail as mail  # noqa: PLC0415
    from services.operator import doctor_vendors as vendors  # noqa: PLC0415
    from services.operator.doctor_findings import Check  # noqa: PLC0415

    checks = []
    if (billing := told.settings.get("billing")) is not None:
        checks.append(Check("stripe", partial(vendors.look_at_stripe, billing)))
    if (mailer := told.settings.get("mailer")) is not None:
        checks.append(Check("mail server", partial(mail.look_at_mail_servers, mailer)))
        if mail.lives_in_the_world(mailer.mail_from, mailer.smtp_host):
            domain = mail.domain_of(mailer.mail_from)
            checks.append(Check("mail records", partial(mail.look_at_mail_records, domain, selectors)))
        if mailer.text_provider == "twilio":
            checks.append(Check("twilio", partial(vendors.look_at_twilio, mailer)))
    return checks
