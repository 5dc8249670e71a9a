"""Mails and texts as the inbox keeps them: parsing of MIME messages, links, and search."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from html import unescape
from html.parser import HTMLParser
from typing import Any, Final, Literal
from urllib.parse import unquote

Kind = Literal["mail", "text"]

MAX_LINE: Final = 1_000
"""Characters that are kept of a sender, a subject and the value of a header."""
MAX_BODY: Final = 2_000_000
"""Characters that are kept of a plain text and of an HTML part; the source has all."""
MAX_LINKS: Final = 200
MAX_LINK: Final = 4_000
MAX_PARTS: Final = 100
"""Attachments and headers that are shown of a mail."""
MAX_IMAGES: Final = 30_000_000
"""Characters of the embedded images of an HTML part, each counted as often as it occurs."""
IMAGE_TYPES: Final = frozenset({"image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"})
"""Image types that contain neither scripts nor links, as SVG does."""
MAX_SEARCH: Final = 200
"""Characters of a search."""
FORBIDDEN_SCHEMES: Final = frozenset({"javascript", "data", "vbscript"})
"""Schemes that run a script or a document of the sender in the page that opens them."""

# In plain text a scheme needs a slash after it: `https://…`, `com.example.app:/callback`.
_URL = re.compile(r"(?<![\w.+-])[A-Za-z][A-Za-z0-9+.-]*:/[^\s<>\"']*[^\s<>\"'.,;:!?)\]]")
_HREF = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[^\s<>\"'\x00-\x20]+")
# Browsers drop these from URLs: "java\nscript:" is "javascript:" (URL standard, section 4.4).
_DROPPED = re.compile(r"[\t\n\r]")
_CONTROLS_AND_SPACE = "".join(map(chr, range(0x21)))
_ESCAPED_QUOTE = "&(?:quot|apos|#3[49]|#x2[27]);"
# In the attributes `src` and `background`, and in the `url()` of styles; the style may be an attribute.
_EMBEDDED = re.compile(
    rf"""(\b(?:src|background)\s*=\s*(?:["']\s*)?|\burl\(\s*(?:["']|{_ESCAPED_QUOTE})?)"""
    rf"""cid:((?:(?!{_ESCAPED_QUOTE})[^\s"'<>()])+)""",
    re.IGNORECASE,
)
_HREF_ATTRIBUTE = re.compile(r"href\s*=", re.IGNORECASE)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_WORD = re.compile(r'(?:(to|from|subject|text|is):)?(?:"([^"]*)"|(\S+))', re.IGNORECASE)
_INVISIBLE: Final = frozenset({"style", "script", "title", "head", "template"})


@dataclass(frozen=True)
class Attachment:
    """A part of a mail that is not its text: its file name, media type and size in bytes."""

    name: str
    type: str
    size: int
    content_id: str = ""
    """Its `Content-ID` without angle brackets, to which `cid:` URLs refer (RFC 2392); empty without one."""


@dataclass(frozen=True)
class Arrival:
    """A received mail or text; a text has no subject."""

    id: str
    kind: Kind
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
    read: bool = False
    """Whether it was opened in the inbox page."""
    size: int = 0
    """Bytes of the mail as it was received; 0 for texts."""
    attachments: list[Attachment] = field(default_factory=list)

    @property
    def preview(self) -> str:
        """The beginning of its text in one line, of the HTML if there is no plain text."""
        return " ".join(self.plain[:1_000].split())[:160]

    @property
    def plain(self) -> str:
        """Its plain text, or else the text of its HTML."""
        return self.text or html_text(self.html)


def read_mail(content: bytes) -> EmailMessage:
    """Parse a mail (RFC 5322)."""
    return message_from_bytes(content, policy=policy.default)


def mail_fields(message: EmailMessage) -> dict[str, Any]:
    """Return the fields of an arrival that a mail itself contains; `links` as they are written in it."""
    text, html = body(message, "plain"), body(message, "html")
    return {
        "sender": str(message.get("from", ""))[:MAX_LINE],
        "subject": str(message.get("subject", ""))[:MAX_LINE],
        "text": text,
        "html": html,
        "links": links_in(text, html),
        "attachments": [attachment for attachment, _ in attachments_of(message)],
    }


def body(message: EmailMessage, subtype: Literal["plain", "html"]) -> str:
    """Return the text of a mail in plain text or HTML; empty without one."""
    part = message.get_body(preferencelist=(subtype,))
    return _text_of(part)[:MAX_BODY].replace("\r\n", "\n") if part else ""


def _text_of(part: Message) -> str:
    content = part.get_payload(decode=True)
    raw = content if isinstance(content, bytes) else b""
    try:
        return raw.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:  # a charset that Python does not know
        return raw.decode("utf-8", "replace")


def attachments_of(message: EmailMessage) -> Iterator[tuple[Attachment, bytes]]:
    """Yield the first 100 attachments of a mail with their contents, images inside of its HTML too."""
    bodies = [message.get_body(preferencelist=(subtype,)) for subtype in ("plain", "html")]
    count = 0
    for part in message.walk():
        if part.is_multipart() or any(part is each for each in bodies):
            continue
        content = part.get_payload(decode=True)
        raw = content if isinstance(content, bytes) else b""
        count += 1
        name = (part.get_filename() or f"attachment-{count}")[:MAX_LINE]
        content_id = str(part.get("content-id", "")).strip().removeprefix("<").removesuffix(">")[:MAX_LINE]
        yield Attachment(name, part.get_content_type(), len(raw), content_id), raw
        if count == MAX_PARTS:
            return


def headers_of(message: EmailMessage) -> list[tuple[str, str]]:
    """Return the first 100 headers of a mail as they were received, each value in one line."""
    raw = list(message.raw_items())[:MAX_PARTS]
    return [(name, " ".join(_utf8(str(value)).split())[:MAX_LINE]) for name, value in raw]


def _utf8(text: str) -> str:
    """Decode the bytes that the parser keeps as surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def links_in(text: str, html: str) -> list[str]:
    """Return the URLs of a plain text and of the links of an HTML text, in order, without repetitions.

    Links of any scheme are found, `mailto:` and those of apps too, but none of a scheme that runs scripts.
    """
    parser = _HtmlReader()
    parser.feed(html)
    return safe_links([*_URL.findall(text), *parser.links])


def safe_links(links: Iterable[str]) -> list[str]:
    """Return the links that a page may contain as such, 200 at most, without repetitions."""
    return [link for link in dict.fromkeys(links) if is_safe(link)][:MAX_LINKS]


def is_safe(link: str) -> bool:
    """Whether a page may link to it: it has a scheme, and none that runs scripts."""
    match = _HREF.fullmatch(link)
    return match is not None and len(link) <= MAX_LINK and match[1].lower() not in FORBIDDEN_SCHEMES


def framed(html: str) -> str:
    """Return the HTML of a mail for a frame: links open a new tab, and those that would run a script do nothing.

    The frame's policy forbids scripts in any case.
    """
    parser = _HtmlReader()
    parser.feed(html)
    for tag in parser.scripting:
        html = html.replace(tag, _HREF_ATTRIBUTE.sub("data-href=", tag))
    # Before the document's own beginning it would switch the browser to quirks mode.
    head = _HEAD.search(html)
    at = head.end() if head else 0
    return f'{html[:at]}<base target="_blank">{html[at:]}'


def with_images(html: str, message: EmailMessage) -> str:
    """Return HTML whose `cid:` URLs of images are replaced by the images of the mail as `data:` URLs (RFC 2392).

    A URL stays as it is, and shows nothing, if no part has its Content-ID, if the part is not of `IMAGE_TYPES`, or if
    the images would exceed `MAX_IMAGES`.
    """
    images: dict[str, str] = {}
    for attachment, content in attachments_of(message):
        if attachment.type in IMAGE_TYPES:
            url = f"data:{attachment.type};base64,{b64encode(content).decode()}"
            images.setdefault(attachment.content_id, url)
    rest = MAX_IMAGES

    def embed(match: re.Match[str]) -> str:
        nonlocal rest
        url = images.get(unquote(unescape(match[2])))
        if url is None or len(url) > rest:
            return match[0]
        rest -= len(url)
        return match[1] + url

    return _EMBEDDED.sub(embed, html)


def html_text(html: str) -> str:
    """Return the visible text of an HTML text."""
    parser = _HtmlReader()
    parser.feed(html)
    return " ".join(" ".join(parser.text).split())


class _HtmlReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self.scripting: list[str] = []
        """Tags whose link would run a script."""
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _INVISIBLE
        href = _DROPPED.sub("", dict(attrs).get("href") or "").strip(_CONTROLS_AND_SPACE)
        if tag in {"a", "area"} and href:
            self.links.append(href)
            if href.partition(":")[0].lower() in FORBIDDEN_SCHEMES:
                self.scripting.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _INVISIBLE))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


class Search:
    """A search in arrivals: every word must occur, in any case.

    A word may be a text in quotes. `to:`, `from:`, `subject:` and `text:` before a word restrict it to that part,
    `is:unread` and `is:read` to the arrivals that were not opened yet, or were. Without one, a word may occur in the
    recipients, sender, subject, text and links.
    """

    def __init__(self, text: str) -> None:
        words = ((part.lower(), quoted or word) for part, quoted, word in _WORD.findall(text[:MAX_SEARCH]))
        self._words = [(part, word.casefold()) for part, word in words if word]

    def matches(self, arrival: Arrival) -> bool:
        """Whether every word occurs in the arrival."""
        return all(_contains(arrival, part, word) for part, word in self._words)


def _contains(arrival: Arrival, part: str, word: str) -> bool:
    match part:
        case "to":
            return word in arrival.to.casefold()
        case "from":
            return word in arrival.sender.casefold()
        case "subject":
            return word in arrival.subject.casefold()
        case "text":
            return word in arrival.plain.casefold()
        case "is":
            return word == ("read" if arrival.read else "unread")
    searched = (arrival.to, arrival.sender, arrival.subject, arrival.plain, *arrival.links)
    return any(word in each.casefold() for each in searched)


def to_line(arrival: Arrival) -> str:
    """Return an arrival as a line of the inbox file."""
    return json.dumps(asdict(arrival)) + "\n"


def from_fields(values: Any) -> Arrival | None:
    """Return the arrival of a line of the inbox file, of this release or an earlier one; None if it is not one."""
    try:
        attachments = [Attachment(**each) for each in values.get("attachments", ())]
        known = {each.name for each in fields(Arrival)}
        arrival = Arrival(
            **{name: value for name, value in values.items() if name in known} | {"attachments": attachments}
        )
        return Arrival(**vars(arrival) | {"links": safe_links(arrival.links)})
    except (AttributeError, TypeError):
        return None
