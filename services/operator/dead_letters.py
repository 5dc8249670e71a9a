"""`nest dead`: list, show and replay dead letters."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from services.operator.client import Client
from services.operator.output import (
    AsJson,
    Since,
    Table,
    Until,
    Yes,
    columns,
    command,
    confirm,
    plain,
    print_json,
    request_body,
)

app = typer.Typer(no_args_is_help=True, help="List, show and replay dead letters.")
COLUMNS: Final = columns(
    "put_aside_at: DEAD SINCE, id: LETTER, service, reason, detail: ERROR, type, message_id, replayed_at"
)
OUTCOMES: Final = {
    "replayed": "replayed",
    "replayed_before": "skipped: replayed before (--again replays them again)",
    "too_old": "skipped: older than the inbox (--although-too-old replays them; they may take effect twice)",
    "not_ours": "skipped: not written by Nest",
    "closed": "skipped: sealed with a key that is no longer in NEST_SEALING_KEYS",
    "gone": "not found (any more)",
}
TOO_OLD_WARNING: Final = (
    "Nest no longer knows whether messages of this age were handled: mails may be sent twice.\nReplay them anyway?"
)
CLOSED: Final = (
    "\nKey, headers and body cannot be shown: they are sealed with a key that is no longer in NEST_SEALING_KEYS."
)
LIST_PAGE: Final = 500
REPLAY_PAGE: Final = 100

Topic = Annotated[str | None, typer.Option(help="Only from this topic: mailer.commands.")]
Reason = Annotated[
    Literal["undecodable", "unauthenticated", "too_old", "failing"] | None, typer.Option(help="Only with this reason.")
]
Type = Annotated[str | None, typer.Option("--type", help="Only messages with this wire name: mailer.send-mail.")]
Service = Annotated[str | None, typer.Option(help="Only of this service.")]


@command(app, "list", "nest dead list", "nest dead list --service mailer --since 2026-11-20 --json")
def list_letters(
    nest: Client,
    *,
    topic: Topic = None,
    reason: Reason = None,
    message_type: Type = None,
    service: Service = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of dead letters.")] = 100,
) -> Table:
    """List dead letters, newest first. They are kept for 30 days."""
    matching = request_body(topic=topic, reason=reason, type=message_type, service=service, since=since, until=until)
    letters: list[dict[str, Any]] = []
    cursor = None
    while len(letters) < limit:
        body = {"filter": matching, "limit": min(limit - len(letters), LIST_PAGE), "cursor": cursor}
        page = nest.call("list_dead_letters", body)
        letters += page["letters"]
        if (cursor := page["next_cursor"]) is None:
            break
    return Table({"letters": letters}, letters, COLUMNS)


@command(app, "show", "nest dead show mailer.commands.17", "nest dead show mailer.commands.17 --body-to letter.json")
def show_letter(
    nest: Client,
    letter_id: Annotated[str, typer.Argument(metavar="LETTER", help="ID of the dead letter, as listed.")],
    *,
    body_to: Annotated[Path | None, typer.Option("--body-to", help="Write the whole body to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter: its reason, headers and body. Sealed fields stay sealed."""
    letter, body = _read(nest, letter_id)
    if body_to is not None and not letter["closed"]:
        body_to.write_bytes(body or b"")
    if as_json:
        print_json(letter)
        return
    for line in _lines(letter):
        typer.echo(line)
    if letter["closed"]:
        typer.echo(CLOSED)
        raise typer.Exit(1 if body_to is not None else 0)
    if body_to is None:
        typer.echo("")
        typer.echo("(no value)" if body is None else plain(body.decode("utf-8", "backslashreplace"), lines=True))


@command(
    app,
    "replay",
    "nest dead replay mailer.commands.17",
    "nest dead replay --all --service mailer --reason failing --since 2026-11-20",
    "nest dead replay --all",
)
def replay(
    nest: Client,
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="LETTER", help="IDs of dead letters, as listed.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Replay every matching dead letter.")] = False,
    topic: Topic = None,
    reason: Reason = None,
    message_type: Type = None,
    service: Service = None,
    since: Since = None,
    until: Until = None,
    again: Annotated[bool, typer.Option("--again", help="Include those that were replayed before.")] = False,
    although_too_old: Annotated[
        bool, typer.Option("--although-too-old", help="Include messages that may already have been handled.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back on their topics, each once, those with the same key in order.

    An interrupted replay continues if the command is repeated.
    """
    matching = request_body(topic=topic, reason=reason, type=message_type, service=service, since=since, until=until)
    if bool(letter_ids) == every or (letter_ids and matching):
        raise typer.BadParameter("give letters, or --all with or without filters")
    if although_too_old:
        confirm(TOO_OLD_WARNING, yes=yes)
    shows_progress = not as_json and sys.stderr.isatty()
    replayed: list[dict[str, str]] = []
    for page in _replay(nest, letter_ids or [], matching, {"again": again, "although_too_old": although_too_old}):
        replayed += page
        if shows_progress:
            typer.echo(f"\r{len(replayed)} letters processed", err=True, nl=False)
    if as_json:
        print_json({"letters": replayed})
        return
    if shows_progress:
        typer.echo("", err=True)
    for outcome, count in Counter(each["outcome"] for each in replayed).items():
        typer.echo(f"{count} {OUTCOMES[outcome]}")
    if not replayed:
        typer.echo("no matching letters")


def _replay(
    nest: Client, letter_ids: Sequence[str], matching: dict[str, Any], options: dict[str, bool]
) -> Iterator[list[dict[str, str]]]:
    """Replay letters page by page, so that a failed call can be repeated, and yield their outcomes."""
    for start in range(0, len(letter_ids), REPLAY_PAGE):
        body = {"ids": letter_ids[start : start + REPLAY_PAGE], **options}
        yield nest.call("replay_dead_letters", body)["letters"]
    cursor = None
    while not letter_ids:
        body = {"filter": matching, "limit": REPLAY_PAGE, "cursor": cursor, **options}
        page = nest.call("replay_dead_letters", body)
        yield page["letters"]
        if (cursor := page["next_cursor"]) is None:
            return


def _read(nest: Client, letter_id: str) -> tuple[dict[str, Any], bytes | None]:
    """Return a letter and its whole body, which may take several calls."""
    letter: dict[str, Any] = nest.call("list_dead_letters", {"id": letter_id})["letters"][0]
    if letter["body"] is None:
        return letter, None
    body = _bytes(letter["body"])
    while len(body) < letter["body"]["size"]:
        (rest,) = nest.call("list_dead_letters", {"id": letter_id, "body_from": len(body)})["letters"]
        body += _bytes(rest["body"])
    return letter, body


def _lines(letter: dict[str, Any]) -> Iterator[str]:
    """Describe a letter for people."""
    facts = {
        "letter": letter["id"],
        "dead since": f"{letter['put_aside_at'] or '-'}, service {letter['service'] or 'unknown'}",
        "reason": f"{letter['reason'] or 'unknown'}: {letter['detail']}",
        "attempts": letter["tries"],
        "topic": f"{letter['topic']}, partition {letter['partition']}, offset {letter['offset']}",
        "type": letter["type"],
        "message": f"{letter['message_id']}, created {letter['made_at']}",
        "key": None if letter["key"] is None else _excerpt(letter["key"]),
        "replayed": letter["replayed_at"] or "never",
    }
    for name, value in facts.items():
        yield f"{name + ':':<12}{plain('-' if value is None else str(value))}"
    for frame in letter["frames"]:
        yield f"    {plain(frame)}"
    if letter["closed"]:
        return
    yield "headers:"
    for header in letter["headers"]:
        value = "(null)" if header["value"] is None else _excerpt(header["value"])
        yield f"    {plain(header['name'])}: {plain(value)}"
    if letter["headers_left_out"]:
        yield f"    and {letter['headers_left_out']} more"


def _excerpt(octets: dict[str, Any]) -> str:
    content = _bytes(octets)
    text = content.decode("utf-8", "backslashreplace")
    omitted = octets["size"] - len(content)
    return f"{text} … ({omitted} bytes more)" if omitted else text


def _bytes(octets: dict[str, Any]) -> bytes:
    return base64.b64decode(octets["base64"]) if octets["text"] is None else str(octets["text"]).encode()
