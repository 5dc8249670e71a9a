"""Attacks on the passwords of accounts, against a Nest with its default limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.stack import CHEAP_PASSWORDS, RunNest, Stack

PASSWORD: Final = "a long sentence is easy to keep"
PROXY: Final = {"NEST_TRUSTED_PROXIES": "127.0.0.1/32"}
"""The tests are a proxy: their header x-forwarded-for is a person's IP address."""


@pytest.fixture(scope="module")
async def guarded(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with all rate limits and cheap password hashes, behind a proxy."""
    settings = {**CHEAP_PASSWORDS, **PROXY, "NEST_LIMIT_LIFT_LOOPBACK": "false", "NEST_OLD_CLIENTS": "true"}
    async with run_nest(settings=settings) as stack:
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
    owner = {"firstname": "Ada", "lastname": "Lovelace", "email": f"{kind}@guessed.example.com", "password": PASSWORD}
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
