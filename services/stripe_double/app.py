"""How is a call answered? From the bytes of the HTTP request to those of the answer."""

import asyncio
import binascii
import json
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from services.stripe_double import faults as troubles
from services.stripe_double.account import API_VERSION, Account, ApiRequest, Json
from services.stripe_double.errors import StripeApiError, not_played
from services.stripe_double.faults import Fault, FaultKind, Faults
from services.stripe_double.idempotency import Answer, Idempotency, asked
from services.stripe_double.ids import new_id
from services.stripe_double.params import Params, decode
from services.stripe_double.presentation import expanded, present
from services.stripe_double.routes import Handler, find
from services.stripe_double.serving import reset

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CALLS_KEPT = 10_000


@dataclass(kw_only=True)
class Call:
    """One call of the API, as the log keeps it."""

    method: str
    path: str
    idempotency_key: str | None
    params: dict[str, Any] = field(default_factory=dict)
    """Decoded parameters, of the query and the body."""
    status: int | None = None
    """What was answered; None when the connection was reset or left hanging."""
    replayed: bool = False
    """The answer is an earlier call's, under the same key."""
    worked: bool = False
    """The call was carried out, whatever the caller saw of it."""
    fault: FaultKind | None = None
    request: str = field(default_factory=lambda: new_id("request"))
    at: int = 0
    """The double's time, in Unix seconds."""


@dataclass(frozen=True)
class Incoming:
    """What came over the wire."""

    headers: dict[str, str]
    """By their names in lower case."""
    parameters: bytes
    """Form-encoded, of the query and the body."""
    scope: Scope
    receive: Receive


class Api:
    """Stripe's API over one account.

    Args:
        account: What is read and changed.
        idempotency: The keys seen.
        faults: What goes wrong.
        api_keys: The secret keys that open it.
    """

    def __init__(self, account: Account, idempotency: Idempotency, faults: Faults, api_keys: Sequence[str]) -> None:
        self.log: deque[Call] = deque(maxlen=CALLS_KEPT)
        self._account = account
        self._idempotency = idempotency
        self._faults = faults
        self._api_keys = tuple(api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call, or plays the fault that strikes it."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read(receive)
        call = Call(
            method=scope["method"],
            path=scope["path"],
            idempotency_key=headers.get("idempotency-key") if scope["method"] == "POST" else None,
            at=self._account.now,
        )
        self.log.append(call)
        parameters = b"&".join(part for part in (scope["query_string"], body) if part)
        incoming = Incoming(headers, parameters, scope, receive)
        fault = self._faults.strike(call.method, call.path)
        if fault is None:
            answer: Answer | None = self.perform(call, incoming)
        else:
            answer = await self._in_trouble(fault, call, incoming)
        if answer is not None:
            call.status = answer.status
            await reply(send, answer, {"Request-Id": call.request, "Stripe-Version": API_VERSION})

    def perform(self, call: Call, incoming: Incoming, *, instead: StripeApiError | None = None) -> Answer:
        """Carries a call out and returns its answer; an idempotency key that is known replays the first one.

        Args:
            call: What is called; it notes what was done.
            incoming: How it came.
            instead: Answer this 500 without doing the work, and keep it under the key.
        """
        try:
            self._authorize(incoming.headers)
            call.params = decode(incoming.parameters)
            handler, identifiers = find(call.method, call.path)
            key = call.idempotency_key
            question = asked(call.method, call.path, call.params) if key is not None else ""
            if key is not None and (known := self._idempotency.replay(key, question)) is not None:
                call.replayed = True
                return known
            return self._carried_out(call, handler, identifiers, question, instead)
        except StripeApiError as refusal:
            return refused(refusal)

    def _carried_out(
        self, call: Call, handler: Handler, identifiers: list[str], question: str, instead: StripeApiError | None
    ) -> Answer:
        values = dict(call.params)
        paths = Params({"expand": values.pop("expand", [])}).texts("expand")
        params = Params(values)
        if call.method == "GET":
            return self._rendered(handler(self._account, params, *identifiers), paths)
        request = ApiRequest(id=call.request, idempotency_key=call.idempotency_key)
        try:
            with self._account.change(request):
                if instead is not None:
                    raise instead
                answer = self._work(handler, params, identifiers, paths)
                if call.idempotency_key is not None:
                    self._idempotency.remember(call.idempotency_key, question, answer, call.request)
        except StripeApiError as refusal:
            answer = refused(refusal)
            if refusal.executed and call.idempotency_key is not None:
                with self._account.change():
                    self._idempotency.remember(call.idempotency_key, question, answer, call.request)
            return answer
        call.worked = True
        return answer

    def _work(self, handler: Handler, params: Params, identifiers: list[str], paths: list[str]) -> Answer:
        try:
            return self._rendered(handler(self._account, params, *identifiers), paths)
        except StripeApiError as refusal:
            if not refusal.keeps:
                raise
            return refused(refusal)

    def _rendered(self, result: Json, paths: list[str]) -> Answer:
        shown = present(self._account, result)
        if paths:
            shown = expanded(self._account, shown, paths)
        return Answer(200, to_json(shown))

    def _authorize(self, headers: dict[str, str]) -> None:
        key = secret_key(headers.get("authorization", ""))
        if not key:
            raise StripeApiError(
                "You did not provide an API key. You need to provide your API key in the Authorization header,"
                " using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
                status=401,
            )
        if key not in self._api_keys:
            raise StripeApiError(f"Invalid API Key provided: {key[:8]}{'*' * 8}", status=401)
        version = headers.get("stripe-version", API_VERSION)
        if version != API_VERSION:
            raise not_played(f"API version {version}, only {API_VERSION}")

    async def _in_trouble(self, fault: Fault, call: Call, incoming: Incoming) -> Answer | None:
        call.fault = fault.trouble
        if fault.trouble is FaultKind.SLOW:
            return await self._late(fault, call, incoming)
        if fault.after_work:
            self.perform(call, incoming)
        if fault.trouble is FaultKind.RESET:
            reset(dict(incoming.scope))
            return None
        if fault.trouble is FaultKind.HANG:
            await gone(incoming.receive)
            return None
        refusal = troubles.refusal(fault)
        if fault.stored and not fault.after_work:
            return self.perform(call, incoming, instead=refusal)
        return refused(refusal)

    async def _late(self, fault: Fault, call: Call, incoming: Incoming) -> Answer:
        if fault.after_work:
            answer = self.perform(call, incoming)
            await asyncio.sleep(fault.seconds)
            return answer
        with self._idempotency.working(call.idempotency_key) as alone:
            if alone:
                await asyncio.sleep(fault.seconds)
        return self.perform(call, incoming)


def secret_key(authorization: str) -> str | None:
    """Returns the key of an `Authorization` header, sent as Bearer or as the user of Basic."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).decode("latin-1").partition(":")[0]
        except binascii.Error:
            return None
    return None


def refused(refusal: StripeApiError) -> Answer:
    """Returns the answer that carries a refusal."""
    return Answer(refusal.status, json.dumps(refusal.body(), indent=2).encode())


async def read(receive: Receive) -> bytes:
    """Reads the whole body."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def gone(receive: Receive) -> None:
    """Waits until the caller has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def reply(send: Send, answer: Answer, headers: dict[str, str]) -> None:
    """Sends an answer."""
    content_type = answer.headers.get("Content-Type", "application/json")
    lines = {**headers, **answer.headers, "Content-Type": content_type, "Content-Length": str(len(answer.body))}
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})
