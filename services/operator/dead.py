"""`nest dead`: what could not be handled, why, and what becomes of it when it is tried once more?"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.tables import plain, show

app = typer.Typer(no_args_is_help=True, help="See what could not be handled, and let it be tried once more.")
COLUMNS: Final = {
    "put_aside_at": "PUT ASIDE",
    "id": "LETTER",
    "service": "SERVICE",
    "reason": "REASON",
    "detail": "WHAT WAS WRONG",
    "type": "TYPE",
    "message_id": "MESSAGE",
    "replayed_at": "REPLAYED",
}
OUTCOMES: Final = {
    "replayed": "put back",
    "replayed_before": "left alone, put back before (--again puts them back once more)",
    "too_old": "left alone, older than anybody remembers (--although-too-old, which may do them twice)",
    "not_ours": "left alone, not written by Nest",
    "closed": "left alone, sealed with a key that NEST_SEALING_KEYS no longer holds",
    "gone": "not there (any more)",
}
TOO_OLD_WARNING: Final = (
    "Nobody remembers whether messages that old were handled: mails may go out twice.\nReplay them all the same?"
)
CLOSED: Final = (
    "\nKey, headers and body can't be shown: they are sealed with a key that NEST_SEALING_KEYS no longer holds."
)
AT_ONCE: Final = 100


class Reason(StrEnum):
    """Why a record was put aside."""

    UNDECODABLE = "undecodable"
    TOO_OLD = "too_old"
    FAILING = "failing"


Topic = Annotated[str | None, typer.Option(help="Only those from this topic: mailer.commands.")]
Why = Annotated[Reason | None, typer.Option(help="Only those put aside for this reason.")]
Type = Annotated[str | None, typer.Option("--type", help="Only messages of this wire name: mailer.send-mail.")]
Service = Annotated[str | None, typer.Option(help="Only what this service put aside.")]
Since = Annotated[datetime | None, typer.Option(help="Put aside then or later, in UTC.")]
Until = Annotated[datetime | None, typer.Option(help="Put aside before, in UTC.")]


@app.command("list", epilog=examples("nest dead list", "nest dead list --service mailer --since 2026-11-20 --json"))
def list_letters(
    data: Data = Path(".nest"),
    *,
    topic: Topic = None,
    reason: Why = None,
    message_type: Type = None,
    service: Service = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, the newest first. They are kept for 30 days."""
    wanted = _filter(topic=topic, reason=reason, type=message_type, service=service, since=since, until=until)
    with said_in_words():
        letters = _listed(Client.of(data), wanted, limit)
        show({"letters": letters}, letters, COLUMNS, as_json=as_json)


@app.command(
    "show",
    epilog=examples("nest dead show mailer.commands.17", "nest dead show mailer.commands.17 --body-to letter.json"),
)
def show_letter(
    letter: Annotated[str, typer.Argument(help="Its id, as nest dead list shows it.")],
    data: Data = Path(".nest"),
    *,
    body_to: Annotated[
        Path | None, typer.Option("--body-to", help="Write the whole body, byte for byte, into this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one letter: why it died, its headers and its body. What is sealed in it stays sealed."""
    with said_in_words():
        found, body = _whole(Client.of(data), letter)
        if body_to is not None and not found["closed"]:
            body_to.write_bytes(body or b"")
        if as_json:
            typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
            return
        for line in _lines(found):
            typer.echo(line)
        if found["closed"]:
            typer.echo(CLOSED)
            raise typer.Exit(1 if body_to is not None else 0)
        if body_to is None:
            typer.echo("")
            typer.echo("(no value)" if body is None else plain(body.decode("utf-8", "backslashreplace"), lines=True))


@app.command(
    epilog=examples(
        "nest dead replay mailer.commands.17",
        "nest dead replay --all --service mailer --reason failing --since 2026-11-20",
        "nest dead replay --all",
    )
)
def replay(
    letters: Annotated[list[str] | None, typer.Argument(help="Ids, as nest dead list shows them.")] = None,
    data: Data = Path(".nest"),
    *,
    every: Annotated[bool, typer.Option("--all", help="All that the filters below leave.")] = False,
    topic: Topic = None,
    reason: Why = None,
    message_type: Type = None,
    service: Service = None,
    since: Since = None,
    until: Until = None,
    again: Annotated[bool, typer.Option("--again", help="Those too that were put back before.")] = False,
    although_too_old: Annotated[
        bool, typer.Option("--although-too-old", help="Those too of which nobody knows whether they were done.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put letters back on their topics, each once, those of one key in their order.

    When it is interrupted, say the same again: it goes on with those that are left.
    """
    wanted = _filter(topic=topic, reason=reason, type=message_type, service=service, since=since, until=until)
    if bool(letters) == every or (letters and wanted):
        raise typer.BadParameter("name letters, or say --all, with filters or without")
    with said_in_words():
        client = Client.of(data)
        if although_too_old:
            confirmed(TOO_OLD_WARNING, yes=yes)
        more = {"again": again, "although_too_old": although_too_old}
        done: list[dict[str, str]] = []
        for said in _replayed(client, letters or [], wanted, more):
            done += said
            if not as_json and sys.stderr.isatty():
                typer.echo(f"\r{len(done)} letters looked after", err=True, nl=False)
        if not as_json and sys.stderr.isatty():
            typer.echo("", err=True)
        if as_json:
            typer.echo(json.dumps({"letters": done}, indent=2))
            return
        for outcome, count in Counter(each["outcome"] for each in done).items():
            typer.echo(f"{count} {OUTCOMES[outcome]}")
        if not done:
            typer.echo("there are none")


def _replayed(
    client: Client, letters: Sequence[str], wanted: dict[str, Any], more: dict[str, bool]
) -> Iterator[list[dict[str, str]]]:
    """What became of the letters, some at a time: each call is one that may fail, and be made again."""
    for start in range(0, len(letters), AT_ONCE):
        said = client.call("replay_dead_letters", {"ids": letters[start : start + AT_ONCE], **more})
        yield said["letters"]
    cursor = None
    while not letters:
        asked = {"filter": wanted, "limit": AT_ONCE, "cursor": cursor, **more}
        said = client.call("replay_dead_letters", asked)
        yield said["letters"]
        if (cursor := said["next_cursor"]) is None:
            return


def _listed(client: Client, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = []
    cursor = None
    while len(letters) < limit:
        asked = {"filter": wanted, "limit": min(limit - len(letters), 500), "cursor": cursor}
        said = client.call("list_dead_letters", asked)
        letters += said["letters"]
        if (cursor := said["next_cursor"]) is None:
            break
    return letters


def _whole(client: Client, letter: str) -> tuple[dict[str, Any], bytes | None]:
    """A letter with all of its body."""
    found: dict[str, Any] = client.call("list_dead_letters", {"id": letter})["letters"][0]
    if found["body"] is None:
        return found, None
    body = _bytes(found["body"])
    while len(body) < found["body"]["size"]:
        (piece,) = client.call("list_dead_letters", {"id": letter, "body_from": len(body)})["letters"]
        body += _bytes(piece["body"])
    return found, body


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """What is known of a letter, a line each, for people."""
    said = {
        "letter": found["id"],
        "put aside": f"{found['put_aside_at'] or '-'} by {found['service'] or 'somebody'}",
        "reason": f"{found['reason'] or 'unknown'}: {found['detail']}",
        "tries": found["tries"],
        "from": f"{found['topic']}, partition {found['partition']}, offset {found['offset']}",
        "type": found["type"],
        "message": f"{found['message_id']}, made {found['made_at']}",
        "key": None if found["key"] is None else _shown(found["key"]),
        "replayed": found["replayed_at"] or "never",
    }
    for name, value in said.items():
        yield f"{name + ':':<11}{plain('-' if value is None else str(value))}"
    for frame in found["frames"]:
        yield f"    {plain(frame)}"
    if found["closed"]:
        return
    yield "headers:"
    for header in found["headers"]:
        value = "(null)" if header["value"] is None else _shown(header["value"])
        yield f"    {plain(header['name'])}: {plain(value)}"
    if found["headers_left_out"]:
        yield f"    and {found['headers_left_out']} more"


def _shown(octets: dict[str, Any]) -> str:
    text = _bytes(octets).decode("utf-8", "backslashreplace")
    left = octets["size"] - len(_bytes(octets))
    return f"{text} … ({left} bytes more)" if left else text


def _bytes(octets: dict[str, Any]) -> bytes:
    if octets["text"] is not None:
        return str(octets["text"]).encode()
    return base64.b64decode(octets["base64"])


def _filter(
    *,
    topic: str | None,
    reason: Reason | None,
    type: str | None,  # noqa: A002 -- the field's name
    service: str | None,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, Any]:
    named = {
        "topic": topic,
        "reason": None if reason is None else reason.value,
        "type": type,
        "service": service,
        "since": None if since is None else since.replace(tzinfo=UTC).isoformat(),
        "until": None if until is None else until.replace(tzinfo=UTC).isoformat(),
    }
    return {name: value for name, value in named.items() if value is not None}
