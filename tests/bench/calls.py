"""The operations that are measured, as an app performs them over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from email import message_from_string, policy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.embedded.demo import CLIENT_ID
from tests.bench.http import Answer, Connection
from tests.stack import API, Login

PREPARED_SECONDS = 120.0
_CODE = re.compile(r"[?&]code=([^&\s]+)")


class App:
    """An app with some connections to one gateway.

    Args:
        told: what ``around`` printed.
        connections: how many.
    """

    def __init__(self, told: dict[str, Any], connections: list[Connection]) -> None:
        self._told = told
        self._connections = connections
        self._count = itertools.count()
        self._mails = Path(told["mails"])
        self._codes: list[tuple[Login, str]] = []
        self._chains: list[dict[str, Any]] = []
        self._subscribers: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, told: dict[str, Any], connections: int) -> App:
        """Connect."""
        address = urlsplit(told["url"])
        assert address.hostname is not None
        assert address.port is not None
        opened = [await Connection.open(address.hostname, address.port) for _ in range(connections)]
        return cls(told, opened)

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            connection.close()

    async def send_magic_link(self, number: int) -> None:
        """A link for an address that never had one."""
        await self._rpc(number, "send_magic_link", self._newcomer().order(), expected=204)

    async def authenticate_user_code(self, number: int) -> None:
        """Redeem a code; the user is made."""
        login, code = self._codes.pop()
        self._chains.append(await self._json(number, "authenticate_user", login.redemption(code)))

    async def authenticate_user_refresh(self, number: int) -> None:
        """Go on with this connection's chain."""
        chain = self._chains[number]
        body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": chain["refresh_token"]}
        self._chains[number] = await self._json(number, "authenticate_user", body)

    async def get_user(self, number: int) -> None:
        """This connection's user reads herself."""
        await self._own(number, "get_user", self._chains[number])

    async def get_subscription_status(self, number: int) -> None:
        """A subscriber reads her status, portal link included."""
        await self._own(number, "get_subscription_status", self._subscribers[number])

    async def webhook(self, number: int) -> None:
        """An event of Stripe's that Nest only keeps and counts."""
        event = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "type": "invoice.updated",
            "created": int(time.time()),
            "livemode": False,
            "data": {"object": {"id": "in_1", "object": "invoice", "customer": f"cus_{number}", "pad": "x" * 1500}},
        }
        body = json.dumps(event).encode()
        moment = str(int(time.time())).encode()
        signed = hmac.new(self._told["webhook_secret"].encode(), moment + b"." + body, hashlib.sha256).hexdigest()
        header = f"stripe-signature: t={moment.decode()},v1={signed}\r\n"
        answer = await self._connections[number].post("/1/webhook/stripe", body, header)
        _expect(answer, 200)

    async def prepare_codes(self, count: int) -> None:
        """Have so many codes at hand."""
        missing = count - len(self._codes)
        if missing > 0:
            logins = {login.email: login for login in (self._newcomer() for _ in range(missing))}
            await self._each(logins.values(), lambda n, login: self._order(n, "send_magic_link", login.order()))
            async for to, code in self._codes_for(set(logins)):
                self._codes.append((logins[to], code))

    async def prepare_chains(self, count: int) -> None:
        """Have so many logged-in users."""
        missing = count - len(self._chains)
        if missing > 0:
            await self.prepare_codes(missing)
            await self._each(range(missing), lambda n, _item: self.authenticate_user_code(n))

    async def prepare_subscribers(self, count: int) -> None:
        """Have so many users on trial."""
        missing = count - len(self._subscribers)
        logins = {login.email: login for login in (self._newcomer() for _ in range(missing))}
        await self._each(
            logins.values(),
            lambda n, login: self._order(
                n,
                "create_trial_and_magic_link",
                login.order(device={"platform": "mac", "beak_id": login.state, "fingerprint": login.state}),
            ),
        )
        async for to, code in self._codes_for(set(logins)):
            answer = await self._json(0, "authenticate_user", logins[to].redemption(code))
            self._subscribers.append(answer)

    def _newcomer(self) -> Login:
        return Login(f"p{next(self._count)}.{secrets.token_hex(4)}@example.com")

    async def _order(self, number: int, method: str, body: dict[str, Any]) -> None:
        await self._rpc(number, method, body, expected=204)

    async def _own(self, number: int, method: str, tokens: dict[str, Any]) -> None:
        header = f"authorization: bearer {tokens['access_token']}\r\n"
        body = json.dumps({"user_id": tokens["user_id"]}).encode()
        _expect(await self._connections[number].post(f"{API}/{method}", body, header), 200)

    async def _rpc(self, number: int, method: str, body: dict[str, Any], *, expected: int) -> Answer:
        answer = await self._connections[number].post(f"{API}/{method}", json.dumps(body).encode())
        _expect(answer, expected)
        return answer

    async def _json(self, number: int, method: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self._rpc(number, method, body, expected=200)).body)
        return answer

    async def _each(self, items: Iterable[Any], act: Any) -> None:
        rest = iter(list(items))

        async def loop(number: int) -> None:
            for item in rest:
                await act(number, item)

        await asyncio.gather(*(loop(number) for number in range(len(self._connections))))

    async def _codes_for(self, wanted: set[str]) -> AsyncIterator[tuple[str, str]]:
        """The codes mailed to these addresses, read from the sink's file as they come."""
        end = time.monotonic() + PREPARED_SECONDS
        line = ""
        with self._mails.open() as lines:
            while wanted:
                # What is being written may be read in two parts.
                line = line + lines.readline()
                if not line.endswith("\n"):
                    assert time.monotonic() < end, f"{len(wanted)} mails did not come"
                    await asyncio.sleep(0.05)
                    continue
                mail, line = json.loads(line), ""
                if mail["to"] in wanted and (code := _code(mail["content"])):
                    wanted.discard(mail["to"])
                    yield mail["to"], code


def _code(mail: str) -> str | None:
    """The code of the link in a mail's text, if there is one."""
    part = message_from_string(mail, policy=policy.default).get_body(("plain",))
    found = _CODE.search(part.get_content()) if part is not None else None
    return found[1] if found else None


def _expect(answer: Answer, status: int) -> None:
    if answer.status != status:
        raise AssertionError(f"{answer.status} instead of {status}: {answer.body[:300]!r}")
