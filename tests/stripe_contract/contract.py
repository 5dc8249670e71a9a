"""The double and Nest's requests against Stripe's specification and stripe-mock.

`make stripe-contract` runs this file after the tests that it records; `make test` does not collect it.
"""

import socket
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest

from services.stripe_double.account import API_VERSION
from services.stripe_double.api import ROUTES
from services.stripe_double.events import matches
from tests.stripe_contract.differences import (
    FAULTS,
    KINDS,
    MISSING,
    SPECIFICATION,
    TOOLS,
    UNDECLARED,
    UNDECLARED_ROUTES,
    UNSEEN_STATUSES,
)
from tests.stripe_contract.recorder import RECORD, Record, Request
from tests.stripe_contract.specification import Specification
from tests.stripe_contract.tour import tour


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config) -> Record:
    """What the tests before this file exchanged with the double."""
    return pytestconfig.stash[RECORD]


@pytest.fixture(scope="session")
def specification(record: Record) -> Specification:
    """Stripe's specification."""
    return record.specification


@pytest.fixture(scope="session")
def stripe_mock() -> Iterator[httpx.Client]:
    """A client of a running stripe-mock."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen([TOOLS / "stripe-mock", "-http-addr", address], stdout=subprocess.DEVNULL) as process:
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(base_url=f"http://{address}", transport=transport, auth=("sk_test_123", "")) as client:
            yield client
        process.terminate()


async def test_all_routes_are_visited() -> None:
    await tour()


def test_the_specification_has_the_version_that_the_table_of_differences_is_for(specification: Specification) -> None:
    assert specification.version == SPECIFICATION
    # A table for the pinned version itself would have no entries that were added later.
    assert specification.version < API_VERSION
    assert [each for each in UNDECLARED if specification.declares(*each)] == []


def _invoice(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda subscription: change(subscription["latest_invoice"])


@pytest.mark.parametrize(
    ("corrupt", "fault"),
    [
        (lambda each: each.pop("customer"), ("", "lacks customer")),
        (lambda each: each.update(plan_id="x"), ("", "has unknown plan_id")),
        (lambda each: each.update(status="asleep"), ("status", "'asleep' is no value of the enumeration")),
        (lambda each: each.update(start_date="x"), ("start_date", "str instead of ['integer']")),
        (lambda each: each.update(start_date=None), ("start_date", "NoneType instead of ['integer']")),
        (lambda each: each["items"]["data"][0].pop("price"), ("items.data.[]", "lacks price")),
        (_invoice(lambda each: each.pop("total")), ("latest_invoice", "lacks total")),
        (_invoice(lambda each: each.update(charge="ch_1")), ("latest_invoice", "has unknown charge, subscription")),
    ],
)
def test_a_wrong_object_is_found(
    corrupt: Callable[[Any], object], fault: tuple[str, str], specification: Specification
) -> None:
    subscription = deepcopy(specification.fixtures["subscription"])
    subscription["latest_invoice"] = deepcopy(specification.fixtures["invoice"])
    # The examples are of older versions in these two places.
    del subscription["pending_update"]
    outdated = set(specification.object_faults(subscription))
    corrupt(subscription)
    found = set(specification.object_faults(subscription)) - outdated
    assert [(each.place, each.message) for each in found] == [fault]


def test_every_response_object_and_event_matches_the_specification(record: Record) -> None:
    used = set()
    unexpected = []
    for (title, fault), test in record.faults.items():
        entry = next((each for each in FAULTS if each[0] in (title, test) and fault.message.startswith(each[1])), None)
        used.add(entry)
        if entry is None:
            unexpected.append(f"{title}: {fault.place} {fault.message} ({test})")
    assert unexpected == []
    assert used == set(FAULTS)


def test_objects_have_all_members_of_stripes_examples(record: Record) -> None:
    allowed = {
        missed: next((each for each in MISSING if each[0] == missed[0] and missed[1].startswith(each[1])), None)
        for missed in record.missing
    }
    assert [f"{missed} ({record.missing[missed]})" for missed, entry in allowed.items() if entry is None] == []
    assert set(allowed.values()) == set(MISSING)


def test_every_route_of_the_double_exists_and_was_answered(record: Record) -> None:
    answered = {f"{method} {route}" for method, route, status in record.answered if status < 300}
    silent, undeclared = [], []
    for name in ROUTES:
        method, path = name.split(" ")
        route = record.specification.route(method, path.replace("{}", "id"))
        if route is None:
            undeclared.append(name)
        elif f"{method} {route}" not in answered:
            silent.append(name)
    assert undeclared == list(UNDECLARED_ROUTES)
    assert silent == []


def test_every_event_type_exists(record: Record) -> None:
    assert set(record.event_types) <= record.specification.event_types
    # The double's events reach the patterns that endpoints subscribe to.
    assert any(matches("invoice.*", each) for each in record.event_types)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_were_validated_in_every_status(kind: str, record: Record) -> None:
    seen = {status for each, status in record.kinds if each == kind}
    unseen = record.specification.statuses(kind) - seen
    assert {(kind, status) for status in unseen} == {each for each in UNSEEN_STATUSES if each[0] == kind}


def test_stripe_mock_accepts_every_request(record: Record, stripe_mock: httpx.Client) -> None:
    refused = []
    for request in record.requests.values():
        response = _send(stripe_mock, request)
        if response.status_code >= 300 and not _is_undeclared(request):
            text = response.json()["error"]["message"]
            refused.append(f"{request.method} {request.path} {request.query + request.body!r} ({request.test}): {text}")
    assert refused == []
    assert sum(request.by_nest for request in record.requests.values()) > 20


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/customers", b"emial=ada@example.com"),
        ("/v1/customers", b"tax_exempt=maybe"),
        ("/v1/subscriptions", b"customer=cus_1&items[0][quantity]=x"),
        ("/v1/billing_portal/sessions", b"customer=cus_1&flow_data[type]=unknown"),
    ],
)
def test_stripe_mock_refuses_wrong_parameters(path: str, body: bytes, stripe_mock: httpx.Client) -> None:
    request = Request("POST", path, b"", body, by_nest=False, status=200, test="")
    assert _send(stripe_mock, request).status_code == 400


def _send(client: httpx.Client, request: Request) -> httpx.Response:
    url = request.path + ("?" + request.query.decode() if request.query else "")
    # stripe-mock refuses a POST without this header; Stripe accepts it if the body is empty.
    headers = {"content-type": "application/x-www-form-urlencoded"} if request.method == "POST" else {}
    return client.request(request.method, url, content=request.body or None, headers=headers)


def _is_undeclared(request: Request) -> bool:
    parts = request.path.split("/")
    parts[3:4] = ["{}"]
    return f"{request.method} {'/'.join(parts)}" in UNDECLARED_ROUTES
