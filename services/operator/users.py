"""`nest users`: who is somebody, where are they logged in, what does Nest hold on them, and how is it removed?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.errors import CannotDo
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="Find, show, export and erase people, and end their sessions.")
IDENTIFIERS: Final = {
    "user_id": "USER",
    "identifier_type": "KIND",
    "identifier_value": "IDENTIFIER",
    "verified_at": "VERIFIED",
    "removed_at": "REMOVED",
    "created_at": "CREATED",
}
SESSIONS: Final = {
    "id": "SESSION",
    "client_id": "CLIENT",
    "on": "ON",
    "from": "FROM",
    "created_at": "BEGAN",
    "last_used_at": "LAST USED",
    "expires_at": "EXPIRES",
}
PROCESS: Final = {
    "service": "SERVICE",
    "done_at": "DONE",
    "waits_for": "WAITS FOR",
    "waits_since": "SINCE",
    "reason": "BECAUSE",
}
ERASE: Final = "All that Nest holds on this user is removed, and nothing brings it back."
ERASE_STRIPE: Final = f"{ERASE}\nStripe forgets the customer too, and ends its subscriptions at once."
KEEP_STRIPE: Final = f"{ERASE}\nStripe keeps its customer, and goes on collecting what is subscribed."
SECONDS_BETWEEN_LOOKS: Final = 0.5

UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
Process = Annotated[str | None, typer.Option(help="One that was begun earlier, by its id.")]
Wait = Annotated[float, typer.Option(min=0, help="How many seconds to wait for all services.")]


@app.command(epilog=examples("nest users find ada@example.com", "nest users find +41791234567"))
def find(
    identifier: Annotated[str, typer.Argument(help="An address, or a number with its country code.")],
    data: Data = Path(".nest"),
    *,
    as_json: AsJson = False,
) -> None:
    """Show whose an address or a number is."""
    kind = "email" if "@" in identifier else "phone"
    with said_in_words():
        answer = Client.of(data).call("find_user", {"identifier_type": kind, "identifier_value": identifier})
        _show_user(answer, as_json=as_json)


@app.command("show", epilog=examples("nest users show user_…"))
def show_user(user_id: UserId, data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Show a user by id."""
    with said_in_words():
        _show_user(Client.of(data).call("get_user", {"user_id": user_id}), as_json=as_json)


@app.command(epilog=examples("nest users sessions user_…", "nest users sessions user_… --end all"))
def sessions(
    user_id: UserId,
    end: Annotated[str | None, typer.Option(help="End this session, by its id, or all of them.")] = None,
    data: Data = Path(".nest"),
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show where a user is logged in; with --end, log them out there."""
    with said_in_words():
        client = Client.of(data)
        if end is not None:
            confirmed("End all sessions of this user?" if end == "all" else "End this session?", yes=yes)
            which = {"which": "all"} if end == "all" else {"session_id": end}
            client.call("revoke_sessions", {"user_id": user_id, **which})
        answer = client.call("list_sessions", {"user_id": user_id})
        rows = [{**each, "on": _device(each), "from": _place(each)} for each in answer]
        show(answer, rows, SESSIONS, as_json=as_json)


@app.command(
    epilog=examples("nest users export user_… --to ada.json", "nest users export --process userproc_… --to ada.json")
)
def export(
    user_id: Annotated[str | None, typer.Argument(metavar="[USER]", help="The user's id.")] = None,
    process: Process = None,
    to: Annotated[Path | None, typer.Option(help="The file to write; standard output by default.")] = None,
    wait: Wait = 60,
    data: Data = Path(".nest"),
) -> None:
    """Write all that every service holds on a user, as one JSON document."""
    _of_one(user_id, process)
    with said_in_words():
        client = Client.of(data)
        begun = _begun(client, "export_user", {"user_id": user_id}, process)
        done = _waited_for(client, begun, wait)
        if done["state"] != "done":
            _come_back("export", done)
        text = json.dumps(_document(client, done["id"]), indent=2, ensure_ascii=False)
        if to is None:
            typer.echo(text)
        else:
            _keep(text, to)
            typer.echo(f"written: {to}", err=True)


@app.command(epilog=examples("nest users erase user_… --stripe", "nest users erase --process userproc_…"))
def erase(
    user_id: Annotated[str | None, typer.Argument(metavar="[USER]", help="The user's id.")] = None,
    process: Process = None,
    wait: Wait = 60,
    data: Data = Path(".nest"),
    *,
    stripe: Annotated[bool, typer.Option("--stripe", help="Have Stripe forget the customer too.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a user everywhere."""
    _of_one(user_id, process)
    with said_in_words():
        client = Client.of(data)
        if process is None:
            confirmed(f"{ERASE_STRIPE if stripe else KEEP_STRIPE}\nErase?", yes=yes)
        begun = _begun(client, "erase_user", {"user_id": user_id, "delete_stripe_customer": stripe}, process)
        done = _waited_for(client, begun, wait)
        show(done, done["services"], PROCESS, as_json=as_json)
        if done["state"] != "done":
            _come_back("erase", done)


def _show_user(answer: dict[str, Any], *, as_json: bool) -> None:
    rows = [{**identifier, "user_id": answer["id"]} for identifier in answer["identifiers"]]
    show(answer, rows or [{"user_id": answer["id"], "created_at": answer["created_at"]}], IDENTIFIERS, as_json=as_json)


def _device(session: dict[str, Any]) -> str | None:
    return None if session["device"] is None else str(session["device"]["platform"])


def _place(session: dict[str, Any]) -> str | None:
    """``Zürich, CH (203.0.113.0/24)``, as far as it is known."""
    place = session["place"]
    if place is None:
        return None
    where = ", ".join(each for each in (place["city"], place["country"]) if each)
    return f"{where} ({place['network']})" if where else str(place["network"])


def _of_one(user_id: str | None, process: str | None) -> None:
    if (process is None) == (user_id is None):
        raise typer.BadParameter("give a user's id, or a process that was begun earlier")


def _begun(client: Client, method: str, asked: dict[str, Any], process: str | None) -> dict[str, Any]:
    called = (method, asked) if process is None else ("get_user_process", {"process_id": process})
    begun: dict[str, Any] = client.call(*called)
    return begun


def _waited_for(client: Client, process: dict[str, Any], wait: float) -> dict[str, Any]:
    """The process when it is done, or when the time is over; who is waited for is told on the way."""
    deadline = time.monotonic() + wait
    told = ""
    while process["state"] != "done" and time.monotonic() < deadline:
        waits_for = ", ".join(_waited(part) for part in process["services"] if part["done_at"] is None)
        if waits_for != told:
            typer.echo(f"waiting for {waits_for}", err=True)
            told = waits_for
        time.sleep(SECONDS_BETWEEN_LOOKS)
        process = client.call("get_user_process", {"process_id": process["id"]})
    return process


def _waited(part: dict[str, Any]) -> str:
    """A service that is not done, and who outside of Nest keeps it, if it has said so."""
    outsider, reason = part["waits_for"], part["reason"]
    return str(part["service"]) if outsider is None else f"{part['service']} (which waits for {outsider}: {reason})"


def _come_back(verb: str, process: dict[str, Any]) -> None:
    typer.echo(f"not done yet; it goes on by itself. Look again: nest users {verb} --process {process['id']}", err=True)
    raise typer.Exit(2)


def _keep(text: str, to: Path) -> None:
    """Into a file for its owner alone, whatever it was before.

    Raises:
        CannotDo: it can't be written.
    """
    try:
        to.touch(mode=0o600)
        to.chmod(0o600)
        to.write_text(text + "\n")
    except OSError as error:
        raise CannotDo(f"{to} can't be written: {error.strerror}") from None


def _document(client: Client, process_id: str) -> dict[str, Any]:
    """All pages as one."""
    whole: dict[str, Any] = {}
    cursor: int | None = 0
    while cursor is not None:
        page = client.call("get_user_export", {"process_id": process_id, "cursor": cursor})
        cursor = page.pop("next_cursor")
        services = whole.setdefault("services", {})
        for service, collections in page.pop("services").items():
            for collection, documents in collections.items():
                services.setdefault(service, {}).setdefault(collection, []).extend(documents)
        whole.update(page)
    return whole
