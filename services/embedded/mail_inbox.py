"""Inbox for mails and texts on a developer's machine, with an SMTP server on loopback.

It is stored in the data folder and so survives a restart: `inbox.jsonl` has one JSON object per line, an arrival or a
change of one, and `inbox/<id>.eml` is a mail as it was received.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from services.embedded.arrivals import (
    Arrival,
    Kind,
    Search,
    body,
    from_fields,
    mail_fields,
    read_mail,
    safe_links,
    to_line,
)
from services.embedded.arrivals import links_in as _links_in
from services.embedded.folder import replace_file
from services.embedded.ports import LOOPBACK
from services.mailer.texts.providers import INBOX_DOMAIN
from shared.mail import OPEN_PATH, app_link_of_token
from shared.sealing import Sealer

KEPT: Final = 500
"""Number of arrivals that are kept, the newest ones."""
KEPT_BYTES: Final = 200 << 20
"""Bytes of the kept mails as they were received; older ones are removed."""
HEARTBEAT_SECONDS: Final = 15.0
"""How often `changes` yields None if nothing changes."""
_MAX_MAIL_BYTES = 10 << 20
_CHANGES = 1_000
"""Changes that are kept for listeners that were away."""
_KNOWN_IDS = 10_000
"""IDs whose place in the order is known, those of removed arrivals too."""
_TEXT_SUFFIX = f"@{INBOX_DOMAIN}"
_OPEN = re.compile(re.escape(OPEN_PATH) + r"/([^/?#]+)")
_ID = re.compile(r"[0-9a-f]{16}")


class UnknownArrival(Exception):
    """No arrival has or had this ID."""


@dataclass(frozen=True)
class Change:
    """A change of the inbox.

    Attributes:
        id: its place, for `changes(after=…)`.
        event: `arrived` with the summary of the arrival, `read` with its `id`, `deleted` with the list `ids`, and
            `reset` if the listener has missed changes and must read the whole list again.
        data: what the event carries, for JSON.
    """

    id: str
    event: Literal["arrived", "read", "deleted", "reset"]
    data: dict[str, Any]


class Inbox:
    """The received mails and texts. The async context manager runs the SMTP server.

    Args:
        folder: the data folder; only its owner can read what the inbox stores.
        sealer: unseals the links to apps in mails; without one they are not shown.
        kept: number of arrivals that are kept.
    """

    def __init__(self, folder: Path, sealer: Sealer | None = None, *, kept: int = KEPT) -> None:
        self._file = folder / "inbox.jsonl"
        self._sources = folder / "inbox"
        self._sealer = sealer
        self._kept = kept
        self._arrivals: dict[str, Arrival] = {}
        """By ID, in the order of their arrival."""
        self._bytes = 0
        self._lines = 0
        self._places: dict[str, int] = {}
        self._run = secrets.token_hex(4)
        """Distinguishes the changes of this run from those of an earlier one."""
        self._changes: deque[Change] = deque(maxlen=_CHANGES)
        self._count = 0
        """Number of changes in this run."""
        self._changed = asyncio.Event()
        self._closing = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._smtp, LOOPBACK, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end_waits()
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    @property
    def smtp_port(self) -> int:
        """Loopback port of the SMTP server."""
        if not self._server:
            raise RuntimeError("the inbox is not running")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def arrivals(
        self, to: str | None = None, *, kind: Kind | None = None, search: str = "", after: str | None = None
    ) -> list[Arrival]:
        """Return the arrivals, newest first.

        Args:
            to: only those to this address or number, in any case.
            kind: only mails, or only texts.
            search: only those that match, as in `Search`.
            after: only those that came after the one with this ID, even if it was removed.

        Raises:
            UnknownArrival: no arrival has or had the ID `after`.
        """
        if after is not None and after not in self._places:
            raise UnknownArrival
        since = -1 if after is None else self._places[after]
        matcher = Search(search)
        return [
            each
            for each in reversed(self._arrivals.values())
            if self._places[each.id] > since
            and (to is None or to.lower() in each.to.lower().split(", "))
            and (kind is None or kind == each.kind)
            and matcher.matches(each)
        ]

    async def wait_for(self, seconds: float, **filters: Any) -> list[Arrival]:
        """Return the arrivals as `arrivals` does, once there are any; an empty list after that many seconds.

        Raises:
            UnknownArrival: as `arrivals`.
        """
        end = time.monotonic() + seconds
        while True:
            changed = self._changed
            found = self.arrivals(**filters)
            rest = end - time.monotonic()
            if found or rest <= 0 or self._closing:
                return found
            await _wait(changed, rest)

    def find(self, arrival_id: str) -> Arrival | None:
        """Return the arrival with this ID."""
        return self._arrivals.get(arrival_id)

    def source(self, arrival_id: str) -> bytes | None:
        """Return a mail as it was received; None for a text, or if an earlier release received it."""
        if arrival_id not in self._arrivals:
            return None
        try:
            return self._source_file(arrival_id).read_bytes()
        except FileNotFoundError:
            return None

    def mark_read(self, arrival_id: str) -> None:
        """Note that an arrival was opened. Does nothing if that is known, or if there is no such arrival."""
        arrival = self._arrivals.get(arrival_id)
        if arrival is None or arrival.read:
            return
        self._arrivals[arrival_id] = replace(arrival, read=True)
        self._append(json.dumps({"read": arrival_id}) + "\n")
        self._report("read", {"id": arrival_id})

    def delete(self, arrival_ids: Iterable[str]) -> int:
        """Remove arrivals, and return how many of them there were."""
        ids = [each for each in dict.fromkeys(arrival_ids) if each in self._arrivals]
        for each in ids:
            self._remove(each)
        if ids:
            self._append(json.dumps({"deleted": ids}) + "\n")
            self._report("deleted", {"ids": ids})
        return len(ids)

    async def changes(self, after: str | None = None) -> AsyncIterator[Change | None]:
        """Yield every change from now on, in order; None every 15 seconds without one. Ends with the inbox.

        Args:
            after: ID of the last change that the listener knows; it gets those that it has missed, or, if they are no
                longer kept, the change `reset`.
        """
        seen = self._count
        if after is not None:
            run, _, number = after.partition("-")
            first = self._count - len(self._changes)
            if run == self._run and number.isdecimal() and first <= int(number[:20]) <= self._count:
                seen = int(number[:20])
            else:
                yield Change(self._change_id(seen), "reset", {})
        while not self._closing:
            changed = self._changed
            missed = self._count - seen
            if missed > len(self._changes):
                seen = self._count
                yield Change(self._change_id(seen), "reset", {})
            elif missed:
                change = self._changes[-missed]
                seen += 1
                yield change
            elif not await _wait(changed, HEARTBEAT_SECONDS):
                yield None

    @property
    def last_change(self) -> str:
        """ID of the newest change, for `changes(after=…)`."""
        return self._change_id(self._count)

    def end_waits(self) -> None:
        """End all `changes` and `wait_for`, now and from now on, so that a server can stop."""
        self._closing = True
        self._notify()

    def add_text(self, *, to: str, text: str) -> Arrival:
        """Add a text to a phone number."""
        links = self._with_app_links(_links_in(text, ""))
        return self._add(kind="text", to=to, sender="Nest", subject="", text=text, html="", links=links)

    def add_mail(self, content: bytes, recipients: list[str]) -> Arrival:
        """Add a mail as received by SMTP, with the recipients of its envelope."""
        fields = mail_fields(read_mail(content))
        fields["links"] = self._with_app_links(fields["links"])
        return self._add(kind="mail", to=", ".join(recipients), **fields, source=content)

    def _with_app_links(self, links: list[str]) -> list[str]:
        both = (each for shown in links for each in (shown, self._opened(shown)))
        return safe_links(filter(None, both))

    def _opened(self, link: str) -> str | None:
        """The link to an app behind a page of the gateway."""
        match = _OPEN.search(link)
        app_link = app_link_of_token(self._sealer, match.group(1)) if match and self._sealer else None
        return app_link.link if app_link else None

    def _add(self, *, source: bytes = b"", **fields: Any) -> Arrival:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arrival = Arrival(id=secrets.token_hex(8), at=now, size=len(source), **fields)
        if source:
            self._sources.mkdir(mode=0o700, exist_ok=True)
            self._source_file(arrival.id).write_bytes(source)
        self._insert(arrival)
        self._append(to_line(arrival))
        self._report("arrived", summary(arrival))
        self._remove_oldest()
        return arrival

    def _insert(self, arrival: Arrival) -> None:
        self._arrivals[arrival.id] = arrival
        self._bytes += arrival.size
        self._places[arrival.id] = next(reversed(self._places.values()), -1) + 1
        if len(self._places) > max(_KNOWN_IDS, 2 * self._kept):
            del self._places[next(iter(self._places))]

    def _remove(self, arrival_id: str) -> None:
        self._bytes -= self._arrivals.pop(arrival_id).size
        self._source_file(arrival_id).unlink(missing_ok=True)

    def _remove_oldest(self) -> None:
        ids, count, size = [], len(self._arrivals), self._bytes
        for arrival in self._arrivals.values():
            if count <= self._kept and (size <= KEPT_BYTES or count == 1):
                break
            ids.append(arrival.id)
            count, size = count - 1, size - arrival.size
        self.delete(ids)

    def _source_file(self, arrival_id: str) -> Path:
        return self._sources / f"{arrival_id}.eml"

    def _append(self, line: str) -> None:
        with self._file.open("a") as out:
            out.write(line)
        self._lines += 1
        # Most lines are superseded then.
        if self._lines > 4 * max(self._kept, len(self._arrivals)):
            self._rewrite()

    def _rewrite(self) -> None:
        replace_file(self._file, "".join(map(to_line, self._arrivals.values())))
        self._lines = len(self._arrivals)

    def _load(self) -> None:
        """Read the file and shorten it. A line that a crash truncated is dropped."""
        lines = self._file.read_text(errors="replace").splitlines() if self._file.exists() else []
        for line in lines:
            self._load_line(line)
        self._rewrite()
        self._remove_oldest()
        sizes = {self._source_file(each) for each in self._arrivals}
        for file in self._sources.glob("*.eml"):
            if file not in sizes:
                file.unlink()

    def _load_line(self, line: str) -> None:
        try:
            values = json.loads(line)
        except ValueError:
            return
        match values:
            case {"read": str(arrival_id)} if arrival_id in self._arrivals:
                self._arrivals[arrival_id] = replace(self._arrivals[arrival_id], read=True)
            case {"deleted": list(ids)}:
                for each in ids:
                    if removed := self._arrivals.pop(each, None):
                        self._bytes -= removed.size
            case {"id": str(arrival_id)} if _ID.fullmatch(arrival_id) and (arrival := from_fields(values)):
                self._insert(arrival)

    def _change_id(self, number: int) -> str:
        return f"{self._run}-{number}"

    def _report(self, event: Literal["arrived", "read", "deleted"], data: dict[str, Any]) -> None:
        self._count += 1
        self._changes.append(Change(self._change_id(self._count), event, data))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _smtp(self) -> SMTP:
        return SMTP(
            _Handler(self), hostname="localhost", ident="Nest", enable_SMTPUTF8=True, data_size_limit=_MAX_MAIL_BYTES
        )


class _Handler:
    """aiosmtpd calls `handle_DATA` for each mail."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content or b""
        raw = content.encode() if isinstance(content, str) else content
        mailed = [recipient for recipient in envelope.rcpt_tos if not recipient.endswith(_TEXT_SUFFIX)]
        if mailed:
            self._inbox.add_mail(raw, mailed)
        for recipient in envelope.rcpt_tos:
            if recipient.endswith(_TEXT_SUFFIX):
                text = body(read_mail(raw), "plain").rstrip("\n")
                self._inbox.add_text(to=recipient.removesuffix(_TEXT_SUFFIX), text=text)
        return "250 OK"


def summary(arrival: Arrival) -> dict[str, str]:
    """Return the fields of the event `arrived`."""
    return {name: getattr(arrival, name) for name in ("id", "kind", "to", "sender", "subject", "at")}


async def _wait(changed: asyncio.Event, seconds: float) -> bool:
    """Wait for a change; return False after that many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return False
    return True
