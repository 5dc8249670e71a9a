"""Where do mails and texts go on a developer's machine? To this inbox, through a real SMTP server on loopback.

They are kept in a file of the data folder, a JSON object a line, so that they outlive a restart.
"""

import asyncio
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from services.embedded.ports import LOOPBACK
from services.mailer.texts.providers import INBOX_DOMAIN

KEPT = 500
"""So many of the newest are kept."""

_LARGEST_MAIL = 10 << 20
_TO_A_PHONE = f"@{INBOX_DOMAIN}"
_URL = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")


@dataclass(frozen=True)
class Arrival:
    """One mail or text that arrived."""

    id: str
    """16 hex characters, for the page's addresses."""
    kind: Literal["mail", "text"]
    to: str
    """Addresses separated by commas, or a phone number."""
    sender: str
    subject: str
    """Empty for a text."""
    text: str
    html: str
    """Empty where there is no such part."""
    links: list[str]
    """Every web address in it, in order, once each."""
    at: str
    """When it arrived, ISO 8601 in UTC with milliseconds and `Z`."""


class Inbox:
    """What arrived on this machine, newest first, as an async context manager that runs the SMTP server.

    Args:
        folder: the data folder; the file in it is readable by its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "inbox.jsonl"
        self._arrivals: list[Arrival] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._smtp, LOOPBACK, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    @property
    def smtp_port(self) -> int:
        """Where on loopback the SMTP server listens."""
        if not self._server:
            raise RuntimeError("the inbox is not running")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def arrivals(self, to: str | None = None) -> list[Arrival]:
        """Newest first; with `to`, those to this address or number, whatever its case."""
        newest = reversed(self._arrivals)
        if to is None:
            return list(newest)
        return [a for a in newest if to.lower() in [each.strip().lower() for each in a.to.split(",")]]

    def find(self, arrival_id: str) -> Arrival | None:
        """The one with this id."""
        return next((arrival for arrival in self._arrivals if arrival.id == arrival_id), None)

    def add_text(self, *, to: str, text: str, sender: str = "Nest") -> Arrival:
        """Takes a text as a phone would."""
        return self._add(kind="text", to=to, sender=sender, subject="", text=text, html="", links=_links(text, ""))

    def add_mail(self, content: bytes, recipients: list[str]) -> Arrival:
        """Takes a mail as it came over the wire; `recipients` are those of the envelope."""
        message = message_from_bytes(content, policy=policy.default)
        text, html = _body(message, "plain"), _body(message, "html")
        return self._add(
            kind="mail",
            to=", ".join(recipients),
            sender=str(message.get("from", "")),
            subject=str(message.get("subject", "")),
            text=text,
            html=html,
            links=_links(text, html),
        )

    def _add(self, **fields: Any) -> Arrival:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arrival = Arrival(id=secrets.token_hex(8), at=now, **fields)
        self._arrivals.append(arrival)
        with self._file.open("a") as out:
            out.write(json.dumps(asdict(arrival)) + "\n")
        return arrival

    def _load(self) -> None:
        """Reads what there is and writes back what is kept; a last line that a crash cut short is dropped."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        known = [arrival for line in lines if (arrival := _read(line))]
        self._arrivals = known[-KEPT:]
        half = self._file.with_suffix(".new")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.writelines(json.dumps(asdict(arrival)) + "\n" for arrival in self._arrivals)
        half.replace(self._file)

    def _smtp(self) -> SMTP:
        return SMTP(
            _Handler(self), hostname="localhost", ident="Nest", enable_SMTPUTF8=True, data_size_limit=_LARGEST_MAIL
        )


class _Handler:
    """aiosmtpd calls `handle_DATA` for each mail."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content or b""
        raw = content.encode() if isinstance(content, str) else content
        mailed = [recipient for recipient in envelope.rcpt_tos if not recipient.endswith(_TO_A_PHONE)]
        if mailed:
            self._inbox.add_mail(raw, mailed)
        for recipient in envelope.rcpt_tos:
            if recipient.endswith(_TO_A_PHONE):
                text = _body(message_from_bytes(raw, policy=policy.default), "plain").rstrip("\n")
                self._inbox.add_text(to=recipient.removesuffix(_TO_A_PHONE), text=text)
        return "250 OK"


def _read(line: str) -> Arrival | None:
    try:
        return Arrival(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _body(message: EmailMessage, subtype: Literal["plain", "html"]) -> str:
    part = message.get_body(preferencelist=(subtype,))
    return str(part.get_content()).replace("\r\n", "\n") if part else ""


def _links(text: str, html: str) -> list[str]:
    hrefs = _Hrefs()
    hrefs.feed(html)
    return list(dict.fromkeys([*_URL.findall(text), *hrefs.found]))


class _Hrefs(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each opening tag."""
        href = dict(attrs).get("href") or ""
        if tag == "a" and href.startswith(("http://", "https://")):
            self.found.append(href)
