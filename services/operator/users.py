"""`nest users`: find, show, export and erase users, and end their sessions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client, CommandError, Unfinished
from services.operator.command_line import note
from services.operator.output import (
    AsJson,
    Limit,
    Since,
    Table,
    Until,
    Yes,
    columns,
    command,
    confirm,
    print_json,
    request_body,
    show,
)

app = typer.Typer(
    no_args_is_help=True, help="List, find, show, export and erase users, end their sessions, and mend their records."
)
IDENTIFIERS: Final = columns(
    "user_id, identifier_type: TYPE, identifier_value: IDENTIFIER, verified_at, removed_at, created_at"
)
RECONCILED: Final = columns("subscriptions")
USERS: Final = columns("id: USER, identifiers, created_at")
SESSIONS: Final = columns("id: SESSION, client_id, platform, location, created_at, last_used_at, expires_at")
PROCESS: Final = columns("service, done_at, waits_for, waits_since: SINCE, reason")
ERASE: Final = "Nest removes all data of this user. This cannot be undone."
ERASE_STRIPE: Final = f"{ERASE}\nStripe deletes the customer too, which ends its subscriptions at once.\nErase?"
KEEP_STRIPE: Final = f"{ERASE}\nStripe keeps the customer and continues to collect its payments.\nErase?"
POLL_SECONDS: Final = 0.5

UserId = Annotated[str, typer.Argument(metavar="USER", help="ID of the user.")]
OptionalUserId = Annotated[str | None, typer.Argument(metavar="USER", help="ID of the user.")]
Process = Annotated[str | None, typer.Option(help="ID of a process that was started before.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for all services.")]


@command(app, "find", "nest users find ada@example.com", "nest users find +41791234567")
def find(
    nest: Client,
    identifier: Annotated[str, typer.Argument(help="Email address, or phone number with its country code.")],
) -> Table:
    """Find the user of an email address or phone number."""
    kind = "email" if "@" in identifier else "phone"
    return _user_table(nest.call("find_user", {"identifier_type": kind, "identifier_value": identifier}))


@command(app, "list", "nest users list --since 2026-11-20", "nest users list --search ada@")
def list_users(
    nest: Client,
    *,
    search: Annotated[
        str | None, typer.Option(help="Only users with this address or number, or a part of it if Nest allows that.")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Older users: next_cursor of the previous page, see --json.")
    ] = None,
) -> Table:
    """List users, the newest first."""
    body = request_body(search=search, since=since, until=until, limit=limit, cursor=cursor)
    response = nest.call("list_users", body)
    rows = [
        {
            "id": user["id"],
            "created_at": user["created_at"],
            "identifiers": ", ".join(
                each["identifier_value"] for each in user["identifiers"] if not each["removed_at"]
            ),
        }
        for user in response["users"]
    ]
    return Table(response, rows, USERS)


@command(app, "show", "nest users show user_…")
def show_user(nest: Client, user_id: UserId) -> Table:
    """Show a user."""
    return _user_table(nest.call("get_user", {"user_id": user_id}))


@command(app, "sessions", "nest users sessions user_…", "nest users sessions user_… --end all")
def sessions(
    nest: Client,
    user_id: UserId,
    end: Annotated[str | None, typer.Option(help="End the session with this ID, or all.")] = None,
    *,
    yes: Yes = False,
) -> Table:
    """List a user's sessions; --end ends one or all of them before."""
    if end is not None:
        confirm("End all sessions of this user?" if end == "all" else "End this session?", yes=yes)
        nest.call(
            "revoke_sessions", {"user_id": user_id, **({"which": "all"} if end == "all" else {"session_id": end})}
        )
    response = nest.call("list_sessions", {"user_id": user_id})
    rows = [
        {**each, "platform": (each["device"] or {}).get("platform"), "location": _location(each)} for each in response
    ]
    return Table(response, rows, SESSIONS)


@command(app, "resend", "nest users resend user_…")
def resend(nest: Client, user_id: UserId, *, as_json: AsJson = False) -> None:
    """Mail a user's last magic link again, if it can still be redeemed."""
    nest.call("resend_magic_link", {"user_id": user_id})
    if as_json:
        print_json({"resent": user_id})
    else:
        typer.echo(f"ordered a mail for {user_id}")


@command(app, "reconcile", "nest users reconcile user_…")
def reconcile(nest: Client, user_id: UserId) -> Table:
    """Read a user's subscriptions from Stripe, and repair their records."""
    response = nest.call("reconcile_user", {"user_id": user_id})
    return Table(response, [response], RECONCILED)


@command(
    app, "export", "nest users export user_… --to ada.json", "nest users export --process userproc_… --to ada.json"
)
def export(
    nest: Client,
    user_id: OptionalUserId = None,
    process: Process = None,
    to: Annotated[Path | None, typer.Option(help="File to write; standard output by default.")] = None,
    wait: Wait = 60,
) -> None:
    """Write the personal data that all services store about a user, as one JSON document."""
    _require_one(user_id, process)
    done = _wait(nest, _process(nest, "export_user", {"user_id": user_id}, process), wait)
    if done["state"] != "done":
        _exit_unfinished("export", done)
    text = json.dumps(_document(nest, done["id"]), indent=2, ensure_ascii=False)
    if to is None:
        typer.echo(text)
    else:
        _write(text, to)
        note(f"written: {to}")


@command(app, "erase", "nest users erase user_… --stripe", "nest users erase --process userproc_…")
def erase(
    nest: Client,
    user_id: OptionalUserId = None,
    process: Process = None,
    wait: Wait = 60,
    *,
    stripe: Annotated[bool, typer.Option("--stripe", help="Delete the customer in Stripe too.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user from every service."""
    _require_one(user_id, process)
    if process is None:
        confirm(ERASE_STRIPE if stripe else KEEP_STRIPE, yes=yes)
    body = {"user_id": user_id, "delete_stripe_customer": stripe}
    done = _wait(nest, _process(nest, "erase_user", body, process), wait)
    show(Table(done, done["services"], PROCESS), as_json=as_json)
    if done["state"] != "done":
        _exit_unfinished("erase", done)


def _user_table(user: dict[str, Any]) -> Table:
    rows = [{**identifier, "user_id": user["id"]} for identifier in user["identifiers"]]
    return Table(user, rows or [{"user_id": user["id"], "created_at": user["created_at"]}], IDENTIFIERS)


def _location(session: dict[str, Any]) -> str | None:
    """Return ``Zürich, CH (203.0.113.0/24)``, as far as it is known."""
    place = session["place"]
    if place is None:
        return None
    name = ", ".join(each for each in (place["city"], place["country"]) if each)
    return f"{name} ({place['network']})" if name else str(place["network"])


def _require_one(user_id: str | None, process: str | None) -> None:
    if (process is None) == (user_id is None):
        raise typer.BadParameter("give either a user's ID or --process")


def _process(nest: Client, method: str, body: dict[str, Any], process_id: str | None) -> dict[str, Any]:
    """Start a process, or return the one with the given ID."""
    process: dict[str, Any] = (
        nest.call(method, body) if process_id is None else nest.call("get_user_process", {"process_id": process_id})
    )
    return process


def _wait(nest: Client, process: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Wait until a process is done or the time is over, print which services are awaited, and return the process."""
    deadline = time.monotonic() + seconds
    printed = ""
    while process["state"] != "done" and time.monotonic() < deadline:
        awaited = ", ".join(_awaited(part) for part in process["services"] if part["done_at"] is None)
        if awaited != printed:
            note(f"waiting for {awaited}")
            printed = awaited
        time.sleep(POLL_SECONDS)
        process = nest.call("get_user_process", {"process_id": process["id"]})
    return process


def _awaited(part: dict[str, Any]) -> str:
    """Name an unfinished service, and the vendor that it waits for."""
    vendor, reason = part["waits_for"], part["reason"]
    return str(part["service"]) if vendor is None else f"{part['service']} (which waits for {vendor}: {reason})"


def _exit_unfinished(name: str, process: dict[str, Any]) -> None:
    raise Unfinished(f"not done yet; it continues. Check it with: nest users {name} --process {process['id']}")


def _write(text: str, to: Path) -> None:
    """Write a file that only its owner can read, even if it existed with another mode."""
    try:
        to.touch(mode=0o600)
        to.chmod(0o600)
        to.write_text(text + "\n")
    except OSError as error:
        raise CommandError(f"{to} can't be written: {error.strerror}") from None


def _document(nest: Client, process_id: str) -> dict[str, Any]:
    """Merge all pages of an export."""
    document: dict[str, Any] = {}
    cursor: int | None = 0
    while cursor is not None:
        page = nest.call("get_user_export", {"process_id": process_id, "cursor": cursor})
        cursor = page.pop("next_cursor")
        services = document.setdefault("services", {})
        for service, collections in page.pop("services").items():
            for collection, documents in collections.items():
                services.setdefault(service, {}).setdefault(collection, []).extend(documents)
        document.update(page)
    return document
