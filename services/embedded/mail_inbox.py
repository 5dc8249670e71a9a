"""Inbox for mails and texts on a developer's machine, with an SMTP server on loopback.

It is stored in the data folder, one JSON object per line, and so survives a restart.
"""

import asyncio
import json
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

from services.embedded.folder import replace_file
from services.embedded.ports import LOOPBACK
from services.mailer.texts.providers import INBOX_DOMAIN
from shared.mail import OPEN_PATH, app_link_of_token
from shared.sealing import Sealer

KEPT = 500
"""Number of arrivals that are kept, the newest ones."""

_MAX_MAIL_BYTES = 10 << 20
_TEXT_SUFFIX = f"@{INBOX_DOMAIN}"
# Links of apps too: `myapp://callback`, `com.example.app:/callback`.
_URL = re.compile(r"(?<![\w.+-])[A-Za-z][A-Za-z0-9+.-]*:/[^\s<>\"']*[^\s<>\"'.,;:!?)\]]")
_OPEN = re.compile(re.escape(OPEN_PATH) + r"/([^/?#]+)")


@dataclass(frozen=True)
class Arrival:
    """A received mail or text; a text has no subject."""

    id: str
    kind: Literal["mail", "text"]
    to: str
    """Addresses separated by commas, or a phone number."""
    sender: str
    subject: str
    text: str
    html: str
    """Empty without an HTML part."""
    links: list[str]
    """Every URL in it, in order, without repetitions. After a page that opens an app, the link to the app."""
    at: str
    """Time of arrival, ISO 8601 in UTC with milliseconds and `Z`."""


class Inbox:
    """The received mails and texts. The async context manager runs the SMTP server.

    Args:
        folder: the data folder; only its owner can read the inbox file.
        sealer: unseals the links to apps in mails; without one they are not shown.
    """

    def __init__(self, folder: Path, sealer: Sealer | None = None) -> None:
        self._file = folder / "inbox.jsonl"
        self._sealer = sealer
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
        """Loopback port of the SMTP server."""
        if not self._server:
            raise RuntimeError("the inbox is not running")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def arrivals(self, to: str | None = None) -> list[Arrival]:
        """Return the arrivals, newest first; with `to` only those to this address or number, in any case."""
        newest = reversed(self._arrivals)
        if to is None:
            return list(newest)
        return [each for each in newest if to.lower() in each.to.lower().split(", ")]

    def find(self, arrival_id: str) -> Arrival | None:
        """Return the arrival with this ID."""
        return next((arrival for arrival in self._arrivals if arrival.id == arrival_id), None)

    def add_text(self, *, to: str, text: str) -> Arrival:
        """Add a text to a phone number."""
        return self._add(kind="text", to=to, sender="Nest", subject="", text=text, html="", links=self._links(text, ""))

    def add_mail(self, content: bytes, recipients: list[str]) -> Arrival:
        """Add a mail as received by SMTP, with the recipients of its envelope."""
        message = message_from_bytes(content, policy=policy.default)
        text, html = _body(message, "plain"), _body(message, "html")
        return self._add(
            kind="mail",
            to=", ".join(recipients),
            sender=str(message.get("from", "")),
            subject=str(message.get("subject", "")),
            text=text,
            html=html,
            links=self._links(text, html),
        )

    def _links(self, text: str, html: str) -> list[str]:
        parser = _LinkParser()
        parser.feed(html)
        links = (each for shown in [*_URL.findall(text), *parser.links] for each in (shown, self._opened(shown)))
        return list(dict.fromkeys(filter(None, links)))

    def _opened(self, link: str) -> str | None:
        """The link to an app behind a page of the gateway."""
        match = _OPEN.search(link)
        app_link = app_link_of_token(self._sealer, match.group(1)) if match and self._sealer else None
        return app_link.link if app_link else None

    def _add(self, **fields: Any) -> Arrival:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arrival = Arrival(id=secrets.token_hex(8), at=now, **fields)
        self._arrivals.append(arrival)
        with self._file.open("a") as out:
            out.write(_line(arrival))
        return arrival

    def _load(self) -> None:
        """Read the file and shorten it. A line that a crash truncated is dropped."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self._arrivals = [arrival for line in lines if (arrival := _parse(line))][-KEPT:]
        replace_file(self._file, "".join(map(_line, self._arrivals)))

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
                text = _body(message_from_bytes(raw, policy=policy.default), "plain").rstrip("\n")
                self._inbox.add_text(to=recipient.removesuffix(_TEXT_SUFFIX), text=text)
        return "250 OK"


def _line(arrival: Arrival) -> str:
    return json.dumps(asdict(arrival)) + "\n"


def _parse(line: str) -> Arrival | None:
    try:
        return Arrival(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _body(message: EmailMessage, subtype: Literal["plain", "html"]) -> str:
    part = message.get_body(preferencelist=(subtype,))
    return str(part.get_content()).replace("\r\n", "\n") if part else ""


class _LinkParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") or ""
        if tag == "a" and _URL.fullmatch(href):
            self.links.append(href)
