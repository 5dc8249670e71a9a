"""Mailchimp client: syncs marketing consents to one audience, the recipients of newsletters.

The only module that calls Mailchimp (https://mailchimp.com/developer/marketing/api/list-members/).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from prometheus_client import Counter
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, AccountRefused, Deferred, Outcome, Rejected
from shared.circuit_breaker import CircuitBreaker
from shared.messages.mailer.consents import ConsentLevel
from shared.telemetry import log
from shared.tracing import http_request

MAX_CONCURRENT_CALLS: Final = 8
"""Mailchimp serves ten concurrent calls per account and rejects more (its documentation, under Throttling)."""
MAX_RESPONSE_BYTES: Final = 65_536
MAX_REASON_CHARACTERS: Final = 120
ACCOUNT_REFUSED: Final = frozenset({401, 403, 404})
"""A wrong key, a disabled account, a plan without the feature, or a wrong list: an operator must correct it
(https://mailchimp.com/developer/marketing/docs/errors/)."""
NOT_NOW: Final = frozenset({408, 425, 429})
TOO_MANY_SIGN_UPS: Final = re.compile(
    r"very recently|too many recent sign-?up|not allowing more sign-?ups", re.IGNORECASE
)
"""Detail of a 400 about an address that was added to many lists of Mailchimp's customers within a short time:
``… has signed up to a lot of lists very recently; we're not allowing more signups for now``."""
SUCCESS: Final = frozenset({200, 204})
NOT_FOUND: Final = 404
_UPDATES: Final = Counter(
    "nest_audience_told", "Calls that sync a consent to the audience provider, by outcome.", ["outcome"]
)
_ERASURES: Final = Counter(
    "nest_audience_forgotten", "Calls that erase a person at the audience provider, by outcome.", ["outcome"]
)
_OUTCOMES: Final[dict[type[Outcome], str]] = {
    Accepted: "carried",
    Deferred: "not_now",
    AccountRefused: "refused",
    Rejected: "never",
}
for _outcome in _OUTCOMES.values():
    # An alarm finds the first increase only of a series that exists.
    _UPDATES.labels(_outcome)
    _ERASURES.labels(_outcome)
GIVEN_UP: Final = Counter("nest_audience_given_up", "Consents whose sync to the audience provider was given up.")
_STATUS: Final[dict[ConsentLevel, tuple[str, str]]] = {
    "general": ("subscribed", "subscribed"),
    # A new member must not appear as somebody who has unsubscribed.
    "none": ("unsubscribed", "transactional"),
}
"""A member's status per consent level: of an existing member, and of a new one."""


class Mailchimp:
    """One audience at Mailchimp. Errors of calls are returned, not raised.

    Args:
        api_key: ends with ``-`` and the data centre: ``…-us21``.
        list_id: the audience's ID.
        timeout: seconds for one call.
        api_base: the URL of a test double instead of Mailchimp, up to ``/3.0``.
    """

    def __init__(self, api_key: SecretStr, list_id: str, *, timeout: float, api_base: str | None = None) -> None:
        base = api_base or f"https://{api_key.get_secret_value().rpartition('-')[2]}.api.mailchimp.com/3.0"
        self._list = f"{base}/lists/{list_id}"
        self._timeout = timeout
        self._breaker = CircuitBreaker("mailchimp")
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._http = aiohttp.ClientSession(
            headers={"authorization": aiohttp.encode_basic_auth("nest", api_key.get_secret_value())},
            timeout=aiohttp.ClientTimeout(total=timeout),
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENT_CALLS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def update(self, address: str, level: ConsentLevel) -> Outcome:
        """Send the consent of an address; idempotent.

        ``PUT /lists/{list}/members/{MD5 of the lower-case address}``
        """
        status, status_if_new = _STATUS[level]
        body = {"email_address": address, "status": status, "status_if_new": status_if_new}
        # A list may require fields, such as a name, that we do not have.
        path = f"/members/{member_hash(address)}?skip_merge_validation=true"
        return _counted(_UPDATES, self._outcome(await self._call("PUT", path, body)))

    async def erase(self, address: str) -> Outcome:
        """Erase everything about an address; ``Accepted`` also if the address is unknown.

        Afterwards Mailchimp accepts the address from its owner only, so an update that arrives late has no effect.
        ``POST /lists/{list}/members/{…}/actions/delete-permanent``
        """
        response = await self._call("POST", f"/members/{member_hash(address)}/actions/delete-permanent")
        if isinstance(response, _Response) and response.status == NOT_FOUND:
            # Either the member or the whole list is unknown: a wrong list ID must not count as an erasure.
            response = await self._call("GET", "?fields=id")
        return _counted(_ERASURES, self._outcome(response))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> _Response | Deferred:
        if (reason := self._breaker.rejection) is not None:
            return Deferred(reason)
        # No queueing: a waiting call would occupy one of the messages in flight, which mails need.
        if self._slots.locked():
            return Deferred("busy")
        async with self._slots:
            if (reason := self._breaker.before_call()) is not None:
                return Deferred(reason)
            url = self._list + path
            try:
                with http_request(method, url) as span:
                    async with self._http.request(method, url, json=body, allow_redirects=False) as response:
                        span.responded(response.status)
                        return _Response(response.status, await response.content.read(MAX_RESPONSE_BYTES))
            except TimeoutError:
                return self._failed(f"no answer within {self._timeout:g} s")
            except (aiohttp.ClientError, OSError) as failure:
                # Without the error's text, which may contain the member's hash.
                return self._failed(type(failure).__name__)

    def _outcome(self, response: _Response | Deferred) -> Outcome:
        if isinstance(response, Deferred):
            return response
        if response.status in SUCCESS:
            self._breaker.succeeded()
            return Accepted()
        problem = _problem(response.body)
        reason = f"{response.status} {_printable(problem.get('title'))}".strip()
        if response.status in ACCOUNT_REFUSED:
            self._breaker.failed(reason)
            log.error("mailchimp refuses the account", reason=reason)
            return AccountRefused(reason)
        if not 400 <= response.status < 500 or response.status in NOT_NOW:  # noqa: PLR2004 -- client errors
            return self._failed(reason)
        self._breaker.succeeded()
        if TOO_MANY_SIGN_UPS.search(str(problem.get("detail"))):
            return Deferred(f"{reason}: too many recent sign-ups of the address")
        return Rejected(reason)

    def _failed(self, reason: str) -> Deferred:
        self._breaker.failed(reason)
        return Deferred(reason)


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes


def member_hash(address: str) -> str:
    """Return Mailchimp's ID of an address: the MD5 of its lower-case form, in hex."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def _counted(counter: Counter, outcome: Outcome) -> Outcome:
    counter.labels(_OUTCOMES[type(outcome)]).inc()
    return outcome


def _problem(body: bytes) -> dict[str, Any]:
    """Return a problem document (RFC 9457). Only its ``title`` may be stored: its ``detail`` quotes the address."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _printable(text: Any) -> str:
    printable = "".join(each if each.isprintable() else " " for each in text) if isinstance(text, str) else ""
    return printable[:MAX_REASON_CHARACTERS]
