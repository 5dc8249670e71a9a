"""Measured operations, as an app performs them over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from services.embedded.demo import CLIENT_ID
from tests.bench.http_client import Connection, Response
from tests.bench.mails import Mails
from tests.stack import API, Login

ORDERING: Final = 8
"""Connections that order trials: each takes several calls to Stripe, and must be answered in time."""


NEWEST = "/1/2026-12-01"
"""Version of the API that has every method."""


class App:
    """An app with some connections, divided evenly among the gateways.

    Args:
        environment: the addresses and secrets that ``environment`` yields.
        connections: how many connections it opens.
    """

    def __init__(self, environment: dict[str, Any], connections: int) -> None:
        urls = itertools.cycle(map(urlsplit, environment["urls"]))
        self._connections = [
            Connection(str(url.hostname), int(url.port or 0)) for url in itertools.islice(urls, connections)
        ]
        self._webhook_secret = environment["webhook_secret"].encode()
        self._mails = Mails(Path(environment["mails"]))
        self._count = itertools.count()
        self._codes: list[tuple[Login, str]] = []
        self._known: deque[Login] = deque()
        """People who have logged in."""
        self._asked: dict[str, Login] = {}
        """Known people whose next link was not read yet."""
        self._asked_at = 0
        """Where their mails begin in the file of all mails."""
        self._logins: list[dict[str, Any]] = []
        self._subscribers: list[dict[str, Any]] = []
        self._ordered: list[tuple[str, float]] = []
        """Address of each link that was requested since `expect_mails`, and when."""
        self._ordered_at = 0

    async def connect(self) -> None:
        """Open every connection anew, so that none reaches the server's idle timeout during a round."""
        for connection in self._connections:
            await connection.connect()

    def trace(self, number: int, traceparent: str) -> None:
        """Let the next calls of a connection belong to a trace (https://www.w3.org/TR/trace-context/)."""
        self._connections[number].every = f"traceparent: {traceparent}\r\n"

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            connection.close()

    async def send_magic_link(self, number: int) -> None:
        """Request a magic link for a new address."""
        login = self._new_login()
        self._ordered.append((login.email, time.monotonic()))
        await self._rpc(number, "send_magic_link", login.request(), expected=204)

    async def send_magic_link_known(self, number: int) -> None:
        """Request a magic link for somebody who has logged in before: for each of them in turn."""
        self._known.rotate(-1)
        login = Login(self._known[-1].email)
        self._ordered.append((login.email, time.monotonic()))
        await self._rpc(number, "send_magic_link", login.request(), expected=204)

    def expect_mails(self) -> None:
        """Begin to note when links are requested, for `mailed`."""
        self._ordered.clear()
        self._ordered_at = self._mails.size

    async def mailed(self) -> tuple[list[float], float]:
        """Wait until the sink has the mails of all links since `expect_mails`.

        Returns:
            the seconds from each request to its mail, and from the first request to the last mail.
        """
        ordered: dict[str, deque[float]] = {}
        for address, at in self._ordered:
            ordered.setdefault(address, deque()).append(at)
        latencies, last = [], 0.0
        async for mail in self._mails.since(self._ordered_at):
            if mail["to"] in ordered:
                latencies.append(mail["at"] - ordered[mail["to"]].popleft())
                last = mail["at"]
            if len(latencies) == len(self._ordered):
                break
        return latencies, last - self._ordered[0][1]

    async def authenticate_user_code(self, number: int) -> None:
        """Redeem an unused code; that of a new address creates its user."""
        assert self._codes, "prepare more codes"
        login, code = self._codes.pop()
        self._logins.append(await self._json(number, "authenticate_user", login.redemption(code)))
        self._known.append(login)

    async def send_magic_link_again(self, number: int) -> None:
        """Request a magic link for somebody who has logged in before; `collect_codes` reads its code."""
        if not self._asked:
            self._asked_at = self._mails.size
        login = Login(self._known.pop().email)
        self._asked[login.email] = login
        await self._rpc(number, "send_magic_link", login.request(), expected=204)

    async def create_trial(self, number: int) -> None:
        """Order a trial and a magic link for a new address."""
        await self._rpc(number, "create_trial_and_magic_link", _trial(self._new_login()), expected=204)

    async def authenticate_user_refresh(self, number: int) -> None:
        """Refresh the tokens of this connection's user."""
        await self.authenticate_user_refresh_of(number, number)

    async def authenticate_user_refresh_of(self, number: int, user: int) -> None:
        """Refresh the tokens of another connection's user."""
        self._logins[user] = await self._refreshed(number, self._logins[user])

    async def renew(self) -> None:
        """Refresh the tokens of all users, which last an hour, and forget unused codes, which last less."""
        self._codes.clear()
        for users in (self._logins, self._subscribers):
            users[:] = [await self._refreshed(0, tokens) for tokens in users]

    async def get_user(self, number: int) -> None:
        """Read this connection's user."""
        await self._as_user(number, "get_user", self._logins[number])

    async def call_internally(self, number: int, method: str, body: Mapping[str, Any], key: str) -> None:
        """Call a method as an operator."""
        header = f"authorization: internal {key}\r\n"
        _expect(await self._connections[number].post(f"{NEWEST}/{method}", json.dumps(body).encode(), header), 200)

    async def get_user_of(self, number: int, user: int) -> None:
        """Read the user of another connection."""
        await self._as_user(number, "get_user", self._logins[user])

    async def send_magic_link_to(self, number: int, address: str) -> None:
        """Request a magic link for one address, whose rate limit refuses most of them."""
        body = json.dumps(Login(address).request()).encode()
        response = await self._connections[number].post(f"{API}/send_magic_link", body)
        if response.status != 429:
            _expect(response, 204)

    def get_user_requests(self) -> list[bytes]:
        """``get_user`` of each logged-in user, as complete HTTP requests."""
        connection = self._connections[0]
        return [
            connection.request(
                f"{API}/get_user",
                json.dumps({"user_id": login["user_id"]}).encode(),
                f"authorization: bearer {login['access_token']}\r\n",
            )
            for login in self._logins
        ]

    async def get_subscription_status(self, number: int) -> None:
        """Read the subscription status of a user on trial, with the link to the billing portal."""
        await self._as_user(number, "get_subscription_status", self._subscribers[number])

    async def list_news_items(self, number: int) -> None:
        """List the news of the app."""
        await self._rpc(number, "list_news_items", {"client_id": CLIENT_ID}, expected=200)

    async def heartbeat(self, number: int) -> None:
        """Check that a user on trial has a subscription."""
        header = f"authorization: bearer {self._subscribers[number]['access_token']}\r\n"
        path = "/1/2020-12-14/get_subscription_status"
        _expect(await self._connections[number].post(path, b"", header), 204)

    async def webhook(self, number: int) -> None:
        """Send a signed Stripe event of a type that billing stores without reading anything from Stripe."""
        invoice = {"id": "in_1", "object": "invoice", "customer": f"cus_{number}", "pad": "x" * 1500}
        await self._event(number, "invoice.updated", invoice)

    async def renewal(self, number: int, subscription: str, *, event_id: str = "") -> None:
        """Send a signed event about a subscription, which billing reads from Stripe."""
        changed = {"id": subscription, "object": "subscription", "customer": f"cus_{subscription}", "pad": "x" * 1500}
        await self._event(number, "customer.subscription.updated", changed, event_id=event_id)

    async def _event(self, number: int, event_type: str, changed: dict[str, Any], *, event_id: str = "") -> None:
        event = {
            "id": event_id or new_event_id(),
            "object": "event",
            "type": event_type,
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": changed},
        }
        body = json.dumps(event).encode()
        now = int(time.time())
        signature = hmac.new(self._webhook_secret, b"%d.%b" % (now, body), hashlib.sha256).hexdigest()
        header = f"stripe-signature: t={now},v1={signature}\r\n"
        _expect(await self._connections[number].post("/1/webhook/stripe", body, header), 200)

    async def prepare_codes(self, count: int) -> None:
        """Request magic links until so many codes are unused."""
        missing = count - len(self._codes)
        if missing > 0:
            logins = {login.email: login for login in (self._new_login() for _ in range(missing))}
            await self._each(logins.values(), lambda n, login: self._request(n, "send_magic_link", login.request()))
            async for to, code in self._mails.codes(set(logins)):
                self._codes.append((logins[to], code))

    async def collect_codes(self) -> None:
        """Read the codes of the links of `send_magic_link_again`."""
        asked, self._asked = self._asked, {}
        sent = {to: code async for to, code in self._mails.codes(set(asked), start=self._asked_at)}
        self._codes = [(login, sent[email]) for email, login in asked.items()]

    async def prepare_known(self, count: int) -> None:
        """Log new users in until so many people have logged in."""
        missing = count - len(self._known)
        if missing > 0:
            await self.prepare_codes(missing)
            await self._each(range(missing), lambda n, _item: self.authenticate_user_code(n))

    async def prepare_known_codes(self, count: int) -> None:
        """Request a link for so many people who have logged in; only their codes are unused afterwards."""
        await self.prepare_known(count)
        await self._each(range(count), lambda n, _item: self.send_magic_link_again(n))
        await self.collect_codes()

    async def create_trials(self, count: int) -> None:
        """Order so many subscriptions in Stripe, of new users."""
        await self._each(range(count), lambda n, _item: self.create_trial(n), connections=ORDERING)

    async def prepare_logins(self, count: int) -> None:
        """Log new users in until there are so many."""
        missing = count - len(self._logins)
        if missing > 0:
            await self.prepare_codes(missing)
            await self._each(range(missing), lambda n, _item: self.authenticate_user_code(n))

    async def prepare_subscribers(self, count: int) -> None:
        """Start trials for new users until there are so many."""
        missing = count - len(self._subscribers)
        logins = {login.email: login for login in (self._new_login() for _ in range(missing))}
        await self._each(
            logins.values(),
            lambda n, login: self._request(n, "create_trial_and_magic_link", _trial(login)),
            connections=ORDERING,
        )
        async for to, code in self._mails.codes(set(logins)):
            self._subscribers.append(await self._json(0, "authenticate_user", logins[to].redemption(code)))

    def _new_login(self) -> Login:
        return Login(f"p{next(self._count)}.{secrets.token_hex(4)}@example.com")

    async def _request(self, number: int, method: str, body: dict[str, Any]) -> None:
        await self._rpc(number, method, body, expected=204)

    async def _refreshed(self, number: int, tokens: dict[str, Any]) -> dict[str, Any]:
        body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        return await self._json(number, "authenticate_user", body)

    async def _as_user(self, number: int, method: str, tokens: dict[str, Any]) -> None:
        header = f"authorization: bearer {tokens['access_token']}\r\n"
        body = json.dumps({"user_id": tokens["user_id"]}).encode()
        _expect(await self._connections[number].post(f"{API}/{method}", body, header), 200)

    async def _rpc(self, number: int, method: str, body: dict[str, Any], *, expected: int) -> Response:
        response = await self._connections[number].post(f"{API}/{method}", json.dumps(body).encode())
        _expect(response, expected)
        return response

    async def _json(self, number: int, method: str, body: dict[str, Any]) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads((await self._rpc(number, method, body, expected=200)).body)
        return parsed

    async def _each(self, items: Iterable[Any], act: Any, *, connections: int | None = None) -> None:
        rest = iter(list(items))

        async def loop(number: int) -> None:
            for item in rest:
                await act(number, item)

        await asyncio.gather(*(loop(number) for number in range(connections or len(self._connections))))


def _trial(login: Login) -> dict[str, Any]:
    return login.request(device={"platform": "mac", "beak_id": login.state, "fingerprint": login.state})


def new_event_id() -> str:
    """A new ID as Stripe forms them."""
    return f"evt_{secrets.token_hex(12)}"


def _expect(response: Response, status: int) -> None:
    if response.status != status:
        raise AssertionError(f"{response.status} instead of {status}: {response.body[:300]!r}")
