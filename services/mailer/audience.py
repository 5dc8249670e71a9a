"""Who keeps the audience of our newsletters? A provider behind a small port; Mailchimp, where the settings name it.

The only file that calls Mailchimp (https://mailchimp.com/developer/marketing/api/list-members/).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
from prometheus_client import Counter

from services.mailer.models.audience import Carriage, Carried, Never, NotNow
from shared.circuit_breaker import CircuitBreaker
from shared.messages.mailer.consents import ConsentLevel

CALLS_AT_ONCE: Final = 8
"""Mailchimp serves ten to one account at once, and turns more away (its documentation, under Throttling)."""
MAX_ANSWER_BYTES: Final = 65_536
REASON_CHARACTERS: Final = 120
NOT_ITS_FAULT: Final = frozenset({401, 403, 404, 408, 425, 429})
"""The key or the list is wrong, which an operator mends, or it is too busy: nothing about this address."""
DONE: Final = frozenset({200, 204})
ABSENT: Final = 404
_TOLD: Final = Counter("nest_audience_told", "Tries to tell the audience provider, by outcome.", ["outcome"])
_FORGOTTEN: Final = Counter(
    "nest_audience_forgotten", "Tries to have the audience provider forget an erased person, by outcome.", ["outcome"]
)
_GIVEN_UP: Final = Counter("nest_audience_given_up", "Consents that the audience provider was never brought to take.")
_STATUS: Final[dict[ConsentLevel, tuple[str, str]]] = {
    "general": ("subscribed", "subscribed"),
    # Who was never in the audience is not made one that has left it.
    "none": ("unsubscribed", "transactional"),
}
"""What a member becomes, and as what somebody enters who is none yet."""


class Audience(Protocol):
    """Whoever keeps the audience."""

    async def tell(self, address: str, level: ConsentLevel) -> Carriage:
        """Try once to tell what an address consents to, in some seconds at most. What goes wrong is told, not raised.

        Telling the same twice changes nothing.
        """

    async def forget(self, address: str) -> Carriage:
        """Try once to have all removed that is known of an address, in some seconds at most; told as by ``tell``.

        ``Carried`` also when nothing is known of it. From then on the provider takes the address from nobody but its
        owner: what was told of it earlier and arrives late changes nothing.
        """

    def given_up(self) -> None:
        """Count a consent that nobody will try to carry any more."""

    async def close(self) -> None:
        """Take leave."""


class Mailchimp:
    """One list at Mailchimp.

    Args:
        api_key: ends with ``-`` and the data centre: ``…-us21``.
        list_id: the audience's id.
        timeout: seconds for one call.
        api_base: a test double instead of Mailchimp, up to ``/3.0``.
    """

    def __init__(self, api_key: str, list_id: str, *, timeout: float, api_base: str | None = None) -> None:
        base = api_base or f"https://{api_key.rpartition('-')[2]}.api.mailchimp.com/3.0"
        self._list = f"{base}/lists/{list_id}"
        self._timeout = timeout
        self._breaker = CircuitBreaker("mailchimp")
        self._free = asyncio.Semaphore(CALLS_AT_ONCE)
        self._http = aiohttp.ClientSession(
            headers={"authorization": aiohttp.encode_basic_auth("nest", api_key)},
            timeout=aiohttp.ClientTimeout(total=timeout),
            connector=aiohttp.TCPConnector(limit=CALLS_AT_ONCE),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def tell(self, address: str, level: ConsentLevel) -> Carriage:
        """As ``Audience.tell``: ``PUT /lists/{list}/members/{MD5 of the lower-cased address}``."""
        status, status_if_new = _STATUS[level]
        body = {"email_address": address, "status": status, "status_if_new": status_if_new}
        # A list may ask for a name and the like, which we do not have.
        path = f"/members/{member_of(address)}?skip_merge_validation=true"
        return _counted(_TOLD, self._judged(await self._asked("PUT", path, body)))

    async def forget(self, address: str) -> Carriage:
        """As ``Audience.forget``: ``POST /lists/{list}/members/{…}/actions/delete-permanent``."""
        answer = await self._asked("POST", f"/members/{member_of(address)}/actions/delete-permanent")
        if isinstance(answer, _Answer) and answer.status == ABSENT:
            # The member, or the whole list: a wrong setting must not pass for somebody who was never there.
            answer = await self._asked("GET", "?fields=id")
        return _counted(_FORGOTTEN, self._judged(answer))

    def given_up(self) -> None:
        """As ``Audience.given_up``."""
        _GIVEN_UP.inc()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> _Answer | NotNow:
        if (reason := self._breaker.refusal) is not None:
            return NotNow(reason)
        # Nobody queues here: each that waits would hold one of the places in which mails are sent.
        if self._free.locked():
            return NotNow("busy")
        async with self._free:
            if (reason := self._breaker.admit()) is not None:
                return NotNow(reason)
            try:
                async with self._http.request(method, self._list + path, json=body, allow_redirects=False) as answer:
                    return _Answer(answer.status, await answer.content.read(MAX_ANSWER_BYTES))
            except TimeoutError:
                return self._down(f"no answer within {self._timeout:g} s")
            except (aiohttp.ClientError, OSError) as failure:
                # Without its words: they may hold the member's hash.
                return self._down(type(failure).__name__)

    def _judged(self, answer: _Answer | NotNow) -> Carriage:
        if isinstance(answer, NotNow):
            return answer
        if answer.status in DONE:
            self._breaker.succeeded()
            return Carried()
        reason = f"{answer.status} {_title(answer.said)}".strip()
        if 400 <= answer.status < 500 and answer.status not in NOT_ITS_FAULT:  # noqa: PLR2004 -- client errors
            self._breaker.succeeded()
            return Never(reason)
        return self._down(reason)

    def _down(self, reason: str) -> NotNow:
        self._breaker.failed(reason)
        return NotNow(reason)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    said: bytes


def member_of(address: str) -> str:
    """How Mailchimp calls an address: the MD5 of its lower-cased form, in hex."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def _counted(tries: Counter, carriage: Carriage) -> Carriage:
    tries.labels({Carried: "carried", NotNow: "not_now", Never: "never"}[type(carriage)]).inc()
    return carriage


def _title(said: bytes) -> str:
    """The short form of what went wrong (RFC 9457). The long one names the address."""
    try:
        problem = json.loads(said)
    except ValueError:
        return ""
    title = problem.get("title") if isinstance(problem, dict) else None
    if not isinstance(title, str):
        return ""
    return "".join(character if character.isprintable() else " " for character in title)[:REASON_CHARACTERS]
