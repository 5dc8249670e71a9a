"""The command `nest doctor`: runs the checks and prints their findings."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.embedded.credentials import operator_credentials
from services.operator.client import URL, CommandError
from services.operator.output import AsJson, Data, one_line_errors, plain, print_json, without_logs

if TYPE_CHECKING:
    from services.operator.doctor.findings import Finding

COLOURS: Final = {
    "ok": typer.colors.GREEN,
    "skipped": typer.colors.CYAN,
    "warning": typer.colors.YELLOW,
    "problem": typer.colors.RED,
}
PROCESSES: Final = ("gateway", "auth", "billing", "mailer", "news")
LEVEL_WIDTH: Final = 8
AREA_WIDTH: Final = 14
"""Width of the longest area with its colon."""


def doctor(
    data: Data = Path(".nest"),
    *,
    dkim_selector: Annotated[
        list[str] | None, typer.Option("--dkim-selector", help="DKIM selector of your mail provider; repeat it.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="Required replicas of each topic; by default one per broker, 3 at most.")
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="Service that this environment must start; repeat it.", callback=_known),
    ] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Exit code 1 also for skipped checks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything that this environment allows, and print problems with their remedies. Exit code 1: a problem.

    Run it where the services run, with their environment; without, it checks the Nest of the data folder. Checks for
    which the environment lacks settings, credentials or rights are skipped, with the reason.
    """
    with one_line_errors():
        embedded = load_environment(data)
    from services.operator.doctor.checks import check_everything  # noqa: PLC0415 -- would slow down `nest --help`

    with without_logs(), _progress() as report:
        findings = asyncio.run(
            check_everything(
                services_known=_services_known(),
                required=service or (),
                selectors=dkim_selector or [],
                replication=replication,
                report=report,
            )
        )
    if embedded:
        findings = [finding.on_a_developers_machine() for finding in findings]
    problems, warnings, skipped = (
        sum(finding.level.value == level for finding in findings) for level in ("problem", "warning", "skipped")
    )
    if as_json:
        print_json([finding.output() for finding in findings])
    else:
        for finding, following in zip_longest(findings, findings[1:]):
            # Successive findings with the same remedy show it once.
            _print(finding, remedy=following is None or following.do != finding.do)
        summary = f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}"
        summary = f"{summary}, {skipped} skipped" if skipped else summary
        typer.echo(f"\n{summary if problems or warnings or skipped else 'All is well'}")
    raise typer.Exit(1 if problems or (complete and skipped) else 0)


def _known(services: list[str] | None) -> list[str] | None:
    for name in services or ():
        if name not in PROCESSES:
            raise typer.BadParameter(f"{name}: choose among {', '.join(PROCESSES)}")
    return services


def _services_known() -> bool:
    """Whether the settings of the services are known, and not only the gateway's URL."""
    urls = ("NEST_MONGO_URL", *(f"NEST_{name.upper()}_MONGO_URL" for name in PROCESSES))
    return any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in ("NEST_KAFKA_BOOTSTRAP", *urls))


def load_environment(data: Path) -> bool:
    """Take the services' settings from the data folder, unless the environment has them; return whether it was so.

    Raises:
        CommandError: neither has settings or a URL.
    """
    if _services_known():
        return False
    stored = operator_credentials(data)
    if stored is not None:
        given = {name.removesuffix("_FILE") for name in os.environ}
        os.environ.update(
            {name: value for name, value in stored.environment.items() if name.removesuffix("_FILE") not in given}
        )
    elif not os.environ.get(URL):
        raise CommandError(
            "which Nest? Run this command where the services run, with their environment, or beside nest up (there is"
            f" none in {data.absolute()}); with {URL} alone it checks the gateway"
        )
    return stored is not None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print(finding: Finding, *, remedy: bool) -> None:
    level, terminal = f"{finding.level.value:<{LEVEL_WIDTH}}", sys.stdout.isatty()
    lines = _lines(f"{finding.area + ':':<{AREA_WIDTH}}", plain(finding.says), terminal=terminal)
    if finding.do and remedy:
        lines += _lines(" " * AREA_WIDTH, f"→ {plain(finding.do)}", terminal=terminal)
    if terminal and not os.environ.get("NO_COLOR"):
        level = typer.style(level, fg=COLOURS[finding.level.value], bold=finding.level.value == "problem")
    for line in lines:
        typer.echo(f"{level} {line}")
        level = " " * LEVEL_WIDTH


def _lines(area: str, text: str, *, terminal: bool) -> list[str]:
    """Return the text in one line, or wrapped to the width of the terminal."""
    width = shutil.get_terminal_size().columns - LEVEL_WIDTH - AREA_WIDTH - 2
    # URLs and variables must stay whole, so that they can be copied.
    pieces = textwrap.wrap(
        text, max(40, width) if terminal else sys.maxsize, break_long_words=False, break_on_hyphens=False
    )
    return [f"{' ' * AREA_WIDTH if number else area} {piece}" for number, piece in enumerate(pieces or [""])]


@contextmanager
def _progress() -> Iterator[Callable[[Sequence[str]], None] | None]:
    """Show the unfinished checks on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 -- would slow down `nest --help`

    with Console(stderr=True).status("checking") as status:
        yield lambda unfinished: status.update(f"checking {', '.join(unfinished)}")
