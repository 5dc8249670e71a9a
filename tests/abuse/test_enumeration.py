"""Account enumeration: responses about existing and unknown accounts look the same and take the same time."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx
import pytest

from tests.abuse.conftest import Target
from tests.abuse.mann_whitney import mann_whitney_p
from tests.stack import Login

PASSWORD: Final = "a long sentence is easy to keep"
ACCOUNTS: Final = 5
"""Number of existing accounts, and of unknown ones. Each is requested many times, as by an attacker who measures."""
FEW: Final = 5
MANY: Final = 1000
SIGNIFICANCE: Final = 0.01
"""Smallest accepted p-value. One in a hundred pairs of samples from one distribution is below it and measured again."""

Request = Callable[[str], Awaitable[httpx.Response]]
Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Probe:
    """A request that could reveal whether an account exists.

    Attributes:
        existing: identifiers with an account.
        unknown: identifiers without one, of the same length and form.
        request: sends the request for one identifier.
    """

    existing: list[str]
    unknown: list[str]
    request: Request


def addresses(name: str) -> list[str]:
    """Addresses of one length, new in every run."""
    return [f"{name}{secrets.token_hex(4)}@example.com" for _ in range(ACCOUNTS)]


def phone_numbers() -> list[str]:
    """Swiss mobile numbers."""
    return [f"+4179{secrets.randbelow(10**7):07}" for _ in range(ACCOUNTS)]


async def magic_links(target: Target) -> Probe:
    existing, unknown = addresses("ada"), addresses("eve")
    for email in existing:
        await target.nest.log_in(email)
    return Probe(existing, unknown, lambda email: target.nest.call("send_magic_link", Login(email).request()))


async def phone_codes(target: Target) -> Probe:
    http, existing, unknown = target.nest.http, phone_numbers(), phone_numbers()
    client = Login("nobody@example.com").client_id
    for number in existing:
        nonce = (await http.post("/init", json={"phone_number": number})).text
        code = (await target.text(number)).partition("#")[2].strip()
        verified = await http.post("/verify", json={"code": code, "nonce": nonce, "clientid": client})
        assert verified.status_code == 200, verified.text
    return Probe(existing, unknown, lambda number: http.post("/init", json={"phone_number": number}))


async def owners(target: Target) -> Probe:
    http, existing, unknown = target.nest.http, addresses("ada"), addresses("eve")
    for email in existing:
        body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": PASSWORD}
        assert (await http.post("/appowner/create", json=body)).status_code == 200
    return Probe(
        existing,
        unknown,
        lambda email: http.post("/appowner/login", json={"email": email, "password": f"not {PASSWORD}"}),
    )


async def users_of_an_application(target: Target) -> tuple[list[str], list[str], str]:
    """Existing and unknown addresses, and the API key."""
    http, existing, unknown = target.nest.http, addresses("ada"), addresses("eve")
    body = {"firstname": "A", "lastname": "B", "email": addresses("own")[0], "password": PASSWORD}
    owner = (await http.post("/appowner/create", json=body)).json()
    application = (await http.post("/applications/create", json={"owneruuid": owner["uuid"], "appname": "a"})).json()
    key = application["apiKey"]
    for email in existing:
        body = {"apikey": key, "username": "ada", "email": email, "password": PASSWORD}
        assert (await http.post("/users/signup", json=body)).status_code == 202
    return existing, unknown, key


async def application_users(target: Target) -> Probe:
    http, (existing, unknown, key) = target.nest.http, await users_of_an_application(target)
    return Probe(
        existing,
        unknown,
        lambda email: http.post(
            "/users/signwithemail", json={"apikey": key, "email": email, "password": f"not {PASSWORD}"}
        ),
    )


async def forgotten_passwords(target: Target) -> Probe:
    http, (existing, unknown, key) = target.nest.http, await users_of_an_application(target)
    return Probe(existing, unknown, lambda email: http.post("/users/forgot", json={"apikey": key, "email": email}))


async def verifications(target: Target) -> Probe:
    http, (existing, unknown, key) = target.nest.http, await users_of_an_application(target)
    path = "/users/sendverification"
    return Probe(existing, unknown, lambda email: http.post(path, json={"apikey": key, "email": email}))


async def forgetful_owners(target: Target) -> Probe:
    http, probe = target.nest.http, await owners(target)
    return replace(probe, request=lambda email: http.post("/appowner/forgot", json={"email": email}))


PROBES: Final = {
    "send_magic_link": magic_links,
    "/init": phone_codes,
    "/appowner/login": owners,
    "/users/signwithemail": application_users,
    "/users/forgot": forgotten_passwords,
    "/users/sendverification": verifications,
    "/appowner/forgot": forgetful_owners,
}


def shape(response: httpx.Response) -> Shape:
    """The parts of a response that must not differ: status, header names, and the body without random values."""
    body: Any = response.text
    if response.headers.get("content-type", "").startswith("application/json"):
        body = json.loads(response.text)
        body.get("meta", {}).pop("request_id", None)
    elif response.text:
        body = len(response.text)
    return response.status_code, tuple(sorted(response.headers)), json.dumps(body, sort_keys=True)


async def samples(probe: Probe, count: int) -> dict[bool, list[tuple[float, Shape]]]:
    """Seconds and shapes of ``count`` responses each about existing and unknown accounts, in random order."""
    results: dict[bool, list[tuple[float, Shape]]] = {True: [], False: []}
    order = [True, False] * count
    random.SystemRandom().shuffle(order)
    for exists in order:
        identifier = secrets.choice(probe.existing if exists else probe.unknown)
        began = time.perf_counter()
        response = await probe.request(identifier)
        results[exists].append((time.perf_counter() - began, shape(response)))
    return results


def shapes(results: dict[bool, list[tuple[float, Shape]]]) -> set[Shape]:
    return {shape for sample in results.values() for _, shape in sample}


@pytest.mark.parametrize("name", PROBES)
async def test_responses_about_existing_and_unknown_accounts_look_the_same(target: Target, name: str) -> None:
    found = shapes(await samples(await PROBES[name](target), FEW))
    assert len(found) == 1, found


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
async def test_responses_about_existing_and_unknown_accounts_take_the_same_time(target: Target, name: str) -> None:
    probe = await PROBES[name](target)
    await samples(probe, FEW)
    p = 0.0
    for _ in range(2):
        results = await samples(probe, MANY)
        assert len(shapes(results)) == 1
        p = mann_whitney_p(*([seconds for seconds, _ in results[exists]] for exists in (True, False)))
        if p > SIGNIFICANCE:
            break
    assert p > SIGNIFICANCE
