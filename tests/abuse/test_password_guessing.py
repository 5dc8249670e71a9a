"""Attacks on the passwords of accounts, against a Nest with its default limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import pytest

from tests.stack import RunNest, Stack

PASSWORD: Final = "a long sentence is easy to keep"
OWNER: Final = {"firstname": "Ada", "lastname": "Lovelace", "password": PASSWORD}
HASHES: Final = {"NEST_PASSWORD_MEMORY": "16", "NEST_PASSWORD_PASSES": "2", "NEST_PASSWORD_WAIT_SECONDS": "1"}
PROXY: Final = {"NEST_TRUSTED_PROXIES": "127.0.0.1/32"}
"""The tests are a proxy: their header x-forwarded-for is a person's IP address."""


@pytest.fixture(scope="module")
async def guarded(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with all rate limits behind a proxy, where a second of waiting for a password hash is too long."""
    async with run_nest(settings={**HASHES, **PROXY, "NEST_LIMIT_LIFT_LOOPBACK": "false"}) as stack:
        yield stack


def full_width(text: str) -> str:
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def spellings(local: str, domain: str, count: int) -> list[str]:
    """Return different texts that mean one address: case, full-width letters and dots, punycode, white space."""
    texts: list[str] = []
    for number in range(count):
        name = "".join(c.upper() if number >> i & 1 else c for i, c in enumerate(local))
        forms = (domain, domain.upper(), full_width(domain), full_width(domain[:5]) + domain[5:])
        form = forms[number % len(forms)].replace(".", (".", "\u3002", "\uff0e", "\uff61")[number // 4 % 4])
        texts.append(f"{' ' * (number % 3)}{name}@{form}{chr(0x200B) * (number % 2)}")
    assert len(set(texts)) == count
    return texts


async def call(nest: Stack, path: str, network: int, **body: Any) -> tuple[int, str]:
    """Send a request from a network of its own, and return status and code."""
    headers = {"x-forwarded-for": f"198.18.{network}.7"}
    response = await nest.http.post(path, json=body, headers=headers, timeout=60)
    return response.status_code, "done" if response.is_success else response.json()["code"]


async def attack(nest: Stack, path: str, address: str, **body: Any) -> list[tuple[int, str]]:
    """Guess 60 times in parallel, with another spelling from another network each; the last guess is right."""
    local, _, domain = address.partition("@")
    guesses = [
        call(nest, path, number, **body, email=email, password=PASSWORD if number == 59 else f"guess {number}")
        for number, email in enumerate(spellings(local, domain, 60))
    ]
    return await asyncio.gather(*guesses)


@pytest.mark.parametrize("kind", ["owner", "application_user"])
async def test_sixty_parallel_spellings_do_not_let_a_late_guess_through(guarded: Stack, kind: str) -> None:
    owner = {**OWNER, "email": f"{kind}@guessed.example.com"}
    created = (await guarded.http.post("/appowner/create", json=owner)).json()
    path, body = "/appowner/login", {}
    if kind == "application_user":
        application = {"owneruuid": created["uuid"], "appname": "An app"}
        key = (await guarded.http.post("/applications/create", json=application)).json()["apiKey"]
        path, body = "/users/signwithemail", {"apikey": key}
        user = {**body, "username": "ada", "email": owner["email"], "password": PASSWORD}
        assert (await guarded.http.post("/users/signup", json=user)).status_code == 202

    outcomes = await attack(guarded, path, owner["email"], **body)

    assert outcomes[-1] == (429, "throttled"), "the right password"
    assert Counter(outcomes) == {(401, "wrong_credentials"): 10, (429, "throttled"): 50}


async def create_owner(nest: Stack, email: str, network: int) -> None:
    assert await call(nest, "/appowner/create", network, **OWNER, email=email) == (200, "done")


def log_in(nest: Stack, email: str, network: int, password: str = PASSWORD) -> Coroutine[Any, Any, tuple[int, str]]:
    return call(nest, "/appowner/login", network, email=email, password=password)


async def log_in_under_overload(nest: Stack, email: str, network: int) -> tuple[int, str]:
    """Log in, and repeat the call while the gateway refuses it because too many calls wait, as its message says."""
    async with asyncio.timeout(20):
        for _ in range(20):
            outcome = await log_in(nest, email, network)
            if outcome != (429, "too_many_requests"):
                break
            await asyncio.sleep(1)
    return outcome


async def test_one_password_for_sixty_addresses_meets_a_limit(guarded: Stack) -> None:
    sprayed = [log_in(guarded, f"sprayed{number}@example.com", 100, "password") for number in range(60)]
    outcomes = Counter(await asyncio.gather(*sprayed))
    assert outcomes[401, "wrong_credentials"] <= 30
    assert outcomes[429, "throttled"] >= 30
    # What was not counted was not hashed, and may be tried again.
    assert outcomes.keys() <= {(401, "wrong_credentials"), (429, "throttled"), (503, "unavailable")}


async def test_sixty_registrations_from_one_network_meet_a_limit(guarded: Stack) -> None:
    registrations = [
        call(guarded, "/appowner/create", 101, **OWNER, email=f"registered{number}@example.com") for number in range(60)
    ]
    outcomes = Counter(await asyncio.gather(*registrations))
    assert outcomes[200, "done"] <= 30
    assert outcomes[429, "throttled"] >= 30


async def test_person_in_a_known_network_logs_in_during_a_flood(guarded: Stack) -> None:
    victim, newcomer = "victim@example.com", "newcomer@example.com"
    for email in (victim, newcomer):
        await create_owner(guarded, email, 110)
    assert await log_in(guarded, victim, 111) == (200, "done")
    flood = [
        asyncio.create_task(log_in(guarded, email, 112, f"guess {number}"))
        for number in range(40)
        for email in (victim, f"flooded{number}@example.com")
    ]
    try:
        await asyncio.sleep(0)
        for _ in range(3):
            assert await log_in_under_overload(guarded, victim, 111) == (200, "done")
        assert await log_in_under_overload(guarded, newcomer, 113) == (200, "done"), "in a network that is not known"
    finally:
        statuses = {status for status, _ in await asyncio.gather(*flood)}
    assert statuses <= {401, 429, 503}, "the network that floods is refused in time"
    # The network is over its budget, but not for a person who has logged in there before.
    assert (await log_in(guarded, newcomer, 112))[0] == 429
    assert await log_in(guarded, victim, 111) == (200, "done")


@pytest.mark.parametrize("networks", [40, pytest.param(1, marks=pytest.mark.slow)])
async def test_forty_parallel_logins_with_costly_hashes_are_never_answered_504(
    run_nest: RunNest, networks: int
) -> None:
    """With the default parameters of Argon2id, and 5 s as the longest wait for a thread."""
    async with run_nest(settings=PROXY) as nest:
        logins = [log_in(nest, f"parallel{number}@example.com", number % networks, "wrong") for number in range(40)]
        statuses = Counter(status for status, _ in await asyncio.gather(*logins))
    assert statuses.keys() <= {401, 429, 503}
    assert statuses[401], "none was checked"
