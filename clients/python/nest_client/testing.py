"""A Nest for tests: its mails and texts, a person's login in one call, and its Stripe account with a clock to move.

``LocalNest.start`` runs a Nest of its own, with Kafka, MongoDB and a Stripe double, in a temporary folder. It needs the
command ``nest`` of the package ``nest[embedded]``. ``LocalNest.attach`` uses one that runs already.
``nest_client.pytest_plugin`` has the fixtures for pytest.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self, TypeVar

import httpx

from nest_client.client import Client, Session
from nest_client.stripe_double import CardRefused, StripeDouble
from nest_client.tokens import MemoryStore

__all__ = ["CardRefused", "LocalNest", "Message", "NestDidNotStart", "StripeDouble", "TimedOut"]

COMMAND: Final = "NEST_COMMAND"
"""Environment variable with the command that runs Nest, words separated by spaces; by default ``nest``."""
DATA: Final = "NEST_TEST_DATA"
"""Environment variable with the data folder of a running Nest, to attach to instead of starting one."""
DEMO_CLIENT: Final = "client_demo"
"""ID of the client that every embedded Nest has."""
START_SECONDS: Final = 120.0
"""Limit of a start. A warm one takes about three seconds, the first one on a machine downloads Apache Kafka."""
STOP_SECONDS: Final = 20.0
WAIT_SECONDS: Final = 10.0
"""How long waiting methods wait by default."""
SETTINGS: Final = {
    "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "1000/1s",
    "NEST_LIMIT_TEXTS_PER_NUMBER": "1000/1s",
    "NEST_TRIAL_ONCE_PER_CARD": "false",
}
"""Settings of a Nest that is started here: tests log in with one address as often as they like, and everybody has a
trial with the same test card."""
_POLL_SECONDS: Final = 0.05
_LOG_LINES: Final = 20
_CODES: Final = {"mail": re.compile(r"^[0-9]{6}$", re.MULTILINE), "text": re.compile(r"(?<![0-9])[0-9]{6}(?![0-9])")}
_Result = TypeVar("_Result")


class NestDidNotStart(Exception):
    """Nest did not start, or none runs in the folder; the text says what to do."""


class TimedOut(AssertionError):
    """What a test waited for did not happen in time."""


@dataclass(frozen=True)
class Message:
    """A mail or text in the inbox.

    Attributes:
        id: ID in the inbox.
        kind: ``mail`` or ``text``.
        to: addresses separated by commas, or a phone number.
        sender: sender as shown.
        subject: subject; empty for a text.
        text: the text, of a mail its plain-text part.
        html: HTML part; empty without one.
        links: all URLs, in order.
    """

    id: str
    kind: str
    to: str
    sender: str
    subject: str
    text: str
    html: str
    links: list[str]

    @property
    def code(self) -> str:
        """The code of six digits: in a mail it stands alone in a line.

        Raises:
            LookupError: there is none.
        """
        for code in reversed(_CODES[self.kind].findall(self.text)):
            return str(code)
        raise LookupError(f"there is no code in {self.subject or self.text!r}")

    def link(self, part: str) -> str:
        """Return the first link that contains a text.

        Raises:
            LookupError: there is none.
        """
        for link in self.links:
            if part in link:
                return link
        raise LookupError(f"no link of {self.subject or self.text!r} contains {part!r}: {self.links}")


class LocalNest:
    """A Nest on this machine; a context manager that stops it, if it was started here.

    Attributes:
        url: URL of its API, without a slash at the end.
        folder: its data folder.
        client_id: ID of the demo client.
        redirect_uri: a redirect URI of the demo client, ``<url>/dev/callback``.
        client: anonymous client.
        internal_key: secret of back ends and operators.
        operator: client with that key.
        stripe: its Stripe account.
    """

    def __init__(self, folder: Path, *, client_id: str, close: Callable[[], None] = lambda: None) -> None:
        access = json.loads((folder / "operator.json").read_text())
        self.url: str = access["url"]
        self.folder = folder
        self.internal_key: str = access["internal_key"]
        self.client_id = client_id
        self.redirect_uri = f"{self.url}/dev/callback"
        self._seen: set[str] = set()
        with ExitStack() as opened:
            opened.callback(close)
            self._http = opened.enter_context(httpx.Client(base_url=self.url, timeout=30.0, verify=False))  # noqa: S501 -- plain HTTP
            self.client = opened.enter_context(Client(self.url, http=self._http))
            self.operator = opened.enter_context(Client(self.url, internal_key=self.internal_key, http=self._http))
            environment = access["environment"]
            self.stripe = opened.enter_context(
                StripeDouble(environment["NEST_STRIPE_API_BASE"], environment["NEST_STRIPE_API_KEY"])
            )
            self._opened = opened.pop_all()

    @classmethod
    def start(
        cls,
        *,
        command: Sequence[str] | None = None,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Self:
        """Start a Nest and wait until it is ready: about three seconds, more at the first time on a machine.

        It stops with this process, even if that is killed.

        Args:
            command: the command ``nest``; by default that of ``NEST_COMMAND``, else the one on the PATH.
            folder: data folder, which is kept; by default a temporary one, which is removed.
            environment: settings of Nest, such as ``{"NEST_CORS_ORIGINS": "https://app.example"}``. Those of this
                process are not passed on.

        Raises:
            NestDidNotStart: with the last lines of its output.
        """
        words = [*(command or _command())]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
        with ExitStack() as opened:
            if folder is None:
                folder = Path(
                    opened.enter_context(tempfile.TemporaryDirectory(prefix="nest-", ignore_cleanup_errors=True))
                )
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "nest-up.log"
            try:
                with log.open("wb") as errors:
                    process = subprocess.Popen(  # noqa: S603 -- the caller's command
                        [*words, "up", "--child", "--data", str(folder), "--port", str(_free_port())],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        env={**inherited, **SETTINGS, **(environment or {})},
                        start_new_session=True,
                    )
            except OSError as failure:
                raise NestDidNotStart(f"{words[0]} can't be run: {failure.strerror}") from None
            opened.callback(_stop, process)
            ready = _ready_line(process)
            if not ready:
                lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                raise NestDidNotStart("\n".join(["Nest did not start:", *lines]))
            return cls(folder, client_id=json.loads(ready)["client_id"], close=opened.pop_all().close)

    @classmethod
    def attach(cls, folder: Path, *, client_id: str = DEMO_CLIENT) -> Self:
        """Use the Nest that runs with a data folder, such as the ``.nest`` of ``make run``. Closing does not stop it.

        Args:
            folder: its data folder.
            client_id: ID of the client that ``log_in`` uses.

        Raises:
            NestDidNotStart: none has run there.
        """
        if not (folder / "operator.json").exists():
            raise NestDidNotStart(f"no Nest has run in {folder}: start one with make run, or unset {DATA}")
        return cls(folder, client_id=client_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and stop Nest if it was started here."""
        self._opened.close()

    def messages(self, to: str | None = None) -> list[Message]:
        """Return the mails and texts in the inbox, newest first; with ``to`` those to this address or phone number."""
        return self._messages({} if to is None else {"to": to})

    def mail(self, to: str, *, subject: str = "", seconds: float = WAIT_SECONDS) -> Message:
        """Wait for a mail to an address, and return it. Each mail is returned once, the oldest one first.

        Args:
            to: address.
            subject: a part of the subject that it must contain.
            seconds: how long to wait.

        Raises:
            TimedOut: none has arrived.
        """
        return self._next("mail", to, subject, seconds)

    def text(self, to: str, *, seconds: float = WAIT_SECONDS) -> Message:
        """Wait for a text to a phone number, and return it, as ``mail`` does."""
        return self._next("text", to, "", seconds)

    def log_in(
        self, email: str | None = None, *, client_id: str | None = None, redirect_uri: str | None = None
    ) -> Session:
        """Log a person in by magic link, and return the session; ``session.tokens`` has the tokens.

        Args:
            email: address; by default a new one. An unknown one is registered.
            client_id: ID of the app's client; by default the demo client.
            redirect_uri: a redirect URI of that client; by default that of the demo client.
        """
        address = email or f"{secrets.token_hex(6)}@example.com"
        target = redirect_uri or self.redirect_uri
        for known in self.messages(address):
            self._seen.add(known.id)
        session = self.client.session(MemoryStore())
        pending = self.client.start_login(address, client_id=client_id or self.client_id, redirect_uri=target)
        session.finish_login(pending, url=self.mail(address).link("code="))
        return session

    def subscribe(
        self, session: Session, price_id: str | None = None, *, card: str = "4242 4242 4242 4242", trial: bool = True
    ) -> None:
        """Subscribe a person on the checkout page, and wait until Nest lets the person use the plan.

        Args:
            session: the person's session.
            price_id: price; by default the first one of ``list_plans``.
            card: number of a test card.
            trial: whether the subscription may begin with a trial.

        Raises:
            CardRefused: the card was declined, or needs an authentication.
            LookupError: no plan is on sale.
            TimedOut: Nest does not know of the subscription in time.
        """
        price = price_id or self._first_price()
        page = session.create_checkout(
            items=[{"price_id": price}], success_url=self.redirect_uri, cancel_url=self.redirect_uri, trial=trial
        )
        self.stripe.pay(page["url"], card=card)
        self.until(lambda: session.get_customer_state()["entitled"], "the subscription is active")

    def until(
        self, check: Callable[[], _Result], what: str = "what is expected", *, seconds: float = WAIT_SECONDS
    ) -> _Result:
        """Call a function until it returns a true value, and return that.

        Nest handles webhooks and events after it has accepted them, so a test waits for their effects.

        Args:
            check: the function.
            what: the condition in words, for the error.
            seconds: how long to wait.

        Raises:
            TimedOut: it did not.
        """
        deadline = time.monotonic() + seconds
        while not (found := check()):
            if time.monotonic() > deadline:
                raise TimedOut(f"not within {seconds:g} seconds: {what}")
            time.sleep(_POLL_SECONDS)
        return found

    def _first_price(self) -> str:
        for plan in self.client.list_plans()["plans"]:
            for price in plan["prices"]:
                return price["price_id"]
        raise LookupError("no plan is on sale: create a product with a recurring price, or pass price_id")

    def _next(self, kind: str, to: str, subject: str, seconds: float) -> Message:
        def found() -> Message | None:
            arrived = [
                each
                for each in self._messages({"to": to, "kind": kind})
                if each.kind == kind and subject in each.subject and each.id not in self._seen
            ]
            return arrived[-1] if arrived else None

        about = f" with {subject!r} in its subject" if subject else ""
        message = self.until(found, f"a {kind} to {to}{about} arrives", seconds=seconds)
        assert message is not None  # noqa: S101 -- for the type
        self._seen.add(message.id)
        return message

    def _messages(self, query: dict[str, str]) -> list[Message]:
        response = self._http.get("/dev/inbox.json", params=query)
        response.raise_for_status()
        return [Message(**{name: each[name] for name in Message.__dataclass_fields__}) for each in response.json()]


def _command() -> list[str]:
    if given := os.environ.get(COMMAND):
        return given.split()
    beside = Path(sys.executable).with_name("nest")
    if beside.exists():
        return [str(beside)]
    if on_path := shutil.which("nest"):
        return [on_path]
    if find_spec("services.cli"):
        return [sys.executable, "-m", "services.cli"]
    raise NestDidNotStart(
        f"there is no command nest: install the package nest[embedded], or name the command in {COMMAND},"
        f" or the data folder of a running Nest in {DATA}"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _ready_line(process: subprocess.Popen[bytes]) -> str:
    """Read the line of JSON that ``nest up --child`` prints; empty if it ends before."""
    deadline = time.monotonic() + START_SECONDS
    assert process.stdout  # noqa: S101 -- for the type
    os.set_blocking(process.stdout.fileno(), False)
    line = b""
    while not line.endswith(b"\n") and time.monotonic() < deadline:
        read = process.stdout.read()
        if read == b"":
            break
        line += read or b""
        time.sleep(0 if read else _POLL_SECONDS / 5)
    return line.decode() if line.endswith(b"\n") else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop Nest by the end of its input, and kill it if that takes too long."""
    assert process.stdin  # noqa: S101 -- for the type
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
