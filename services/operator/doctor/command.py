"""`nest doctor`: what is wrong with this Nest, and what to do about it?"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.embedded.credentials import operator_credentials
from services.operator.client import URL
from services.operator.errors import NowhereToGo
from services.operator.options import AsJson, Data, said_in_words, without_logs
from services.operator.tables import plain

if TYPE_CHECKING:
    from services.operator.doctor.findings import Check, Finding
    from services.operator.doctor.settings import Told
    from shared.mongo import Client

COLOURS: Final = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}
BOOTSTRAP: Final = "NEST_KAFKA_BOOTSTRAP"
MONGO: Final = "NEST_MONGO_URL"
AREA_WIDTH: Final = 14
"""The longest area and its colon."""

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
    with said_in_words():
        _find_out(data)
    with without_logs(), _telling() as tell:
        findings = asyncio.run(_examined(dkim_selector or [], replication, tell))
    if as_json:
        typer.echo(json.dumps([finding.fields() for finding in findings], indent=2, ensure_ascii=False))
    else:
        for finding, following in zip_longest(findings, findings[1:]):
            # What is to be done about several things in a row is said once.
            _say(finding, do=following is None or following.do != finding.do)
    problems = sum(finding.level.value == "problem" for finding in findings)
    warnings = sum(finding.level.value == "warning" for finding in findings)
    if not as_json:
        told = f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}"
        typer.echo(f"\n{told if problems or warnings else 'All is well'}")
    raise typer.Exit(1 if problems else 0)


def _find_out(data: Path) -> None:
    """Take what the services are told from their environment, else from the note in the data folder.

    Raises:
        NowhereToGo: there is neither, and no URL.
    """
    if os.environ.get(BOOTSTRAP) or os.environ.get(MONGO):
        return
    note = operator_credentials(data)
    if note is not None:
        os.environ.update({name: value for name, value in note.environment.items() if name not in os.environ})
    elif not os.environ.get(URL):
        raise NowhereToGo(
            f"which Nest? Run it where the services run, with their environment, or beside nest up (there is none in"
            f" {data.absolute()}); {URL} alone lets it look at the gateway"
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _say(finding: Finding, *, do: bool) -> None:
    level, terminal = f"{finding.level.value:<8}", sys.stdout.isatty()
    said = _lines(f"{finding.area + ':':<{AREA_WIDTH}}", plain(finding.says), terminal=terminal)
    if finding.do and do:
        said += _lines(" " * AREA_WIDTH, f"→ {plain(finding.do)}", terminal=terminal)
    if terminal and not os.environ.get("NO_COLOR"):
        level = typer.style(level, fg=COLOURS[finding.level.value], bold=finding.level.value == "problem")
    for line in said:
        typer.echo(f"{level} {line}")
        level = " " * 8


def _lines(area: str, text: str, *, terminal: bool) -> list[str]:
    """One line, or on a terminal as many as its width needs, each below the one before."""
    width = max(40, shutil.get_terminal_size().columns - 8 - 1 - AREA_WIDTH - 1) if terminal else sys.maxsize
    # Addresses and variables are copied: they are not broken.
    pieces = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{area if number == 0 else ' ' * AREA_WIDTH} {piece}" for number, piece in enumerate(pieces)]


@contextmanager
def _telling() -> Iterator[Callable[[Sequence[str]], None] | None]:
    """Says on a terminal what is still looked at; nobody else wants to know."""
    if not sys.stderr.isatty():
        yield None
        return
    # Here, so that `nest --help` needs not wait for it.
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status("looking") as status:
        yield lambda under_way: status.update(f"looking at {', '.join(under_way)}")


async def _examined(
    selectors: list[str], replication: int | None, tell: Callable[[Sequence[str]], None] | None
) -> list[Finding]:
    # Here, so that `nest --help` needs not wait for it.
    from services.operator.doctor.findings import Check, found  # noqa: PLC0415
    from services.operator.doctor.settings import Told, look_at_settings  # noqa: PLC0415

    told = Told()
    checks = [Check("settings", partial(look_at_settings, told, elsewhere=_elsewhere()))]
    async with AsyncExitStack() as stack:
        client = await _mongo(told, stack)
        checks += _of_gateway(told)
        checks += [] if client is None else _of_mongo(told, client)
        checks += _of_kafka(told, replication, client)
        checks += _of_others(told, selectors, client)
        return await found(checks, tell=tell)


def _elsewhere() -> bool:
    """Whether the services run where we are not: only their URL is known here."""
    return not (os.environ.get(BOOTSTRAP) or os.environ.get(MONGO))


async def _mongo(told: Told, stack: AsyncExitStack) -> Client | None:
    """One client for all looks; it connects with the first of them."""
    from shared.mongo import connect  # noqa: PLC0415

    url = told.first("mongo_url", os.environ.get(MONGO))
    if not url:
        return None
    client = connect(url, application="nest-doctor", timeout=8.0)
    stack.push_async_callback(client.close)
    return client


def _of_gateway(told: Told) -> list[Check]:
    from services.operator.doctor.findings import Check  # noqa: PLC0415
    from services.operator.doctor.gateway import look_at_gateway  # noqa: PLC0415

    issuer = told.first("issuer")
    url = os.environ.get(URL) or issuer
    return [] if not url else [Check("gateway", partial(look_at_gateway, url.rstrip("/"), issuer))]


def _of_mongo(told: Told, client: Client) -> list[Check]:
    from services.operator.doctor import mongo  # noqa: PLC0415
    from services.operator.doctor.findings import Check  # noqa: PLC0415

    prefix = _databases(told)
    checks = [
        Check("mongodb", partial(mongo.look_at_mongo, client)),
        Check("indexes", partial(mongo.look_at_indexes, client, prefix, told.settings)),
        Check("timers", partial(mongo.look_at_timers, client, prefix)),
        Check("stripe events", partial(mongo.look_at_stripe_events, client, prefix)),
    ]
    if told.settings:
        keys = next(iter(told.settings.values())).master_keys()
        checks.append(Check("sealing keys", partial(mongo.look_at_sealing_keys, client, prefix, keys)))
    return checks


def _databases(told: Told) -> str:
    prefix: str = told.first("database_prefix", os.environ.get("NEST_DATABASE_PREFIX", "nest_"))
    return prefix


def _of_kafka(told: Told, replication: int | None, client: Client | None) -> list[Check]:
    from services.operator.doctor import kafka  # noqa: PLC0415
    from services.operator.doctor.findings import Check  # noqa: PLC0415
    from shared.mongo import database  # noqa: PLC0415

    bootstrap = told.first("kafka_bootstrap", os.environ.get(BOOTSTRAP))
    if not bootstrap:
        return []
    prefix = told.first("topic_prefix", os.environ.get("NEST_TOPIC_PREFIX", ""))
    auth = None if client is None else database(client, f"{_databases(told)}auth")
    kept = [each.inbox_retention for each in told.settings.values() if hasattr(each, "inbox_retention")]
    remembered = min(kept, default=None)
    return [
        Check(
            "topics", partial(kafka.look_at_topics, bootstrap, prefix, replication=replication, remembered=remembered)
        ),
        Check("consumers", partial(kafka.look_at_consumers, bootstrap, prefix)),
        Check("dead letters", partial(kafka.look_at_dead_letters, bootstrap, prefix, auth)),
    ]


def _of_others(told: Told, selectors: list[str], client: Client | None) -> list[Check]:
    from services.operator.doctor import mail  # noqa: PLC0415
    from services.operator.doctor.findings import Check  # noqa: PLC0415
    from services.operator.doctor.senders import look_at_senders  # noqa: PLC0415
    from services.operator.doctor.stripe import look_at_stripe  # noqa: PLC0415
    from services.operator.doctor.twilio import look_at_twilio  # noqa: PLC0415
    from shared.mongo import database  # noqa: PLC0415

    checks = []
    if (billing := told.settings.get("billing")) is not None:
        checks.append(Check("stripe", partial(look_at_stripe, billing, told.first("issuer"))))
    if (mailer := told.settings.get("mailer")) is not None:
        checks.append(Check("mail server", partial(mail.look_at_mail_servers, mailer)))
        looks = None if client is None else database(client, f"{_databases(told)}mailer")
        checks.append(Check("mail records", partial(look_at_senders, mailer, looks, selectors)))
        if mailer.text_provider == "twilio":
            checks.append(Check("twilio", partial(look_at_twilio, mailer)))
    return checks
