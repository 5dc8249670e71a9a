"""A pytest plugin that records what tests exchange with the Stripe double, for `contract.py`.

`pytest -p tests.stripe_contract.recorder TESTS tests/stripe_contract/contract.py` records in the process of the tests.
Responses and objects are validated at once; of the requests one of each form is kept.
"""

import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from pydantic_core import from_json

from services.stripe_double.api import Api, Receive, Scope, Send
from services.stripe_double.rendering import render
from services.stripe_double.server import StripeDouble
from tests.stripe_contract.differences import TOOLS
from tests.stripe_contract.specification import Fault, Json, Specification

NEST = "Stripe/v1 PythonBindings"
"""Beginning of the User-Agent of stripe-python, with which billing calls Stripe."""
_WORD = re.compile(r"[a-z_.]{1,60}")


@dataclass(frozen=True)
class Request:
    """One request to Stripe's API.

    Attributes:
        method: HTTP method.
        path: Path with its IDs.
        query: Form-encoded query.
        body: Form-encoded body.
        by_nest: Whether billing made it.
        status: Status of the double's response.
        test: The test that caused it.
    """

    method: str
    path: str
    query: bytes
    body: bytes
    by_nest: bool
    status: int
    test: str


@dataclass
class Record:
    """Everything that a test session has exchanged with the double.

    Attributes:
        specification: Stripe's specification.
        faults: Where responses and objects differ from it: a title such as `GET /v1/customers/{customer} 200` or
            `invoice`, with the first test that showed it.
        requests: The requests, one of each form: parameter names, with those values that are words.
        answered: Number of responses by method, route and status.
        kinds: Number of objects validated by kind and status.
        event_types: Number of events by type.
        unknown_routes: Routes that the double serves and Stripe lacks.
        missing: Members that Stripe's examples have and the double's objects lack, by kind.
    """

    specification: Specification
    faults: dict[tuple[str, Fault], str] = field(default_factory=dict)
    requests: dict[object, Request] = field(default_factory=dict)
    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    event_types: Counter[str] = field(default_factory=Counter)
    unknown_routes: set[str] = field(default_factory=set)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    test: str = ""

    def add_exchange(self, request: Request, response: bytes) -> None:
        """Validate a response, and keep its request."""
        route = self.specification.route(request.method, request.path)
        if route is None:
            if request.status < 300:
                self.unknown_routes.add(f"{request.method} {request.path}")
            return
        self.answered[request.method, route, request.status] += 1
        body = from_json(response)
        for fault in self.specification.response_faults(request.method, route, request.status, body):
            self.faults.setdefault((f"{request.method} {route} {request.status}", fault), self.test)
        if request.status < 300:
            self._add_body(body)
        if request.by_nest or request.status < 300:
            self.requests.setdefault(_form(request, route), request)

    def add_account(self, double: StripeDouble) -> None:
        """Validate all objects of an account, and the objects in its events."""
        account = double.account
        for kind, objects in account._objects.items():
            if kind[0] != "_":
                for entry in objects.values():
                    self._add_object(kind, render(account, entry))

    def _add_body(self, body: Any) -> None:
        for entry in body["data"] if body.get("object") == "list" else [body]:
            self._add_object(entry["object"], entry)

    def _add_object(self, title: str, entry: Json) -> None:
        self.kinds[entry["object"], entry.get("status")] += 1
        for fault in self.specification.object_faults(entry):
            self.faults.setdefault((title, fault), self.test)
        for name in self.specification.missing_members(entry):
            self.missing.setdefault((entry["object"], name), self.test)
        if entry["object"] == "event":
            self.event_types[entry["type"]] += 1
            self._add_object(f"event {entry['type']}", entry["data"]["object"])


def _form(request: Request, route: str) -> object:
    pairs = parse_qsl(b"&".join((request.query, request.body)).decode("latin-1"), keep_blank_values=True)
    values = {(unquote(name), value if _WORD.fullmatch(value) or not value else "*") for name, value in pairs}
    return request.method, route, frozenset(values), request.by_nest


class Recorder:
    """The plugin: wraps the double's API and its end."""

    def __init__(self, record: Record) -> None:
        self.record = record

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note which test runs."""
        self.record.test = item.nodeid
        return (yield)

    def wrap(self, patch: pytest.MonkeyPatch) -> None:
        """Record all doubles of this process."""
        record = self.record
        call, leave = Api.__call__, StripeDouble.__aexit__

        async def recorded_call(api: Api, scope: Scope, receive: Receive, send: Send) -> None:
            sent, answered = bytearray(), bytearray()
            status = 0

            async def receive_part() -> Any:
                message = await receive()
                sent.extend(message.get("body", b""))
                return message

            async def send_part(message: Any) -> None:
                nonlocal status
                status = message.get("status", status)
                answered.extend(message.get("body", b""))
                await send(message)

            await call(api, scope, receive_part, send_part)
            if status:
                agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
                by_nest = agent.startswith(NEST) and record.test.startswith("tests/billing")
                request = Request(
                    scope["method"], scope["path"], scope["query_string"], bytes(sent), by_nest, status, record.test
                )
                record.add_exchange(request, bytes(answered))

        async def recorded_leave(double: StripeDouble, *error: object) -> None:
            record.add_account(double)
            await leave(double, *error)

        patch.setattr(Api, "__call__", recorded_call)
        patch.setattr(StripeDouble, "__aexit__", recorded_leave)


RECORD = pytest.StashKey[Record]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record."""
    recorder = Recorder(Record(Specification(TOOLS)))
    config.stash[RECORD] = recorder.record
    config.pluginmanager.register(recorder)
    patch = pytest.MonkeyPatch()
    recorder.wrap(patch)
    config.add_cleanup(patch.undo)
